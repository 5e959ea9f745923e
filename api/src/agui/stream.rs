//! AG-UI events as Server-Sent Events. The id of each is its [`Place`].

use std::{convert::Infallible, sync::Arc};

use ambient_domain::session::Session;
use ambient_live::{Beginning, Snapshot, Subscription};
use ambient_wire::{agui::RunAgentInput, live::Event};
use axum::response::{Response, sse};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    history,
    one_run::{OneRun, Wanted},
    place::Place,
    projector::{Projector, frames},
};
use crate::{
    authority::{Authorized, Edit, Right, View},
    error::{ApiError, ApiResult},
    live, representation,
};

/// Events per read.
const READ: i64 = 1_000;

/// Every run, after a place, or from the messages so far on.
pub(crate) async fn all(session: &Authorized<Session, View>, after: Option<&str>) -> ApiResult<Response> {
    let place: Option<Place> = after
        .map(str::parse)
        .transpose()
        .map_err(|()| ApiError::invalid("after_seq", "must be a seq, or the id of an event of such a stream"))?;
    let permit = permit(session)?;
    let Beginning { snapshot, subscription } = session.follow(place.map(Place::complete)).await?;
    let mut projector = projector_at(session, subscription.cursor()).await?;
    let mut first = Vec::new();
    if let Some(snapshot) = snapshot {
        first = beginning(&session.get().id, &snapshot, projector.reenter());
    }
    let seen = place.unwrap_or(Place { seq: 0, nth: None });
    let reader = Reader { subscription, projector, seen, only: None, _permit: permit };
    Ok(live::sse::response(stream::iter(first.into_iter().map(Ok)).chain(reader.events())))
}

/// The run on a message.
pub(crate) async fn on_message(
    session: &Authorized<Session, Edit>,
    message_id: String,
    seq: i64,
    input: RunAgentInput,
) -> ApiResult<Response> {
    one(session, seq, Wanted::Message(message_id), input).await
}

/// The run that follows an interrupt, which was requested at `seq`.
pub(crate) async fn after_interrupt(
    session: &Authorized<Session, Edit>,
    interrupt_id: String,
    seq: i64,
    input: RunAgentInput,
) -> ApiResult<Response> {
    one(session, seq - 1, Wanted::After(interrupt_id), input).await
}

async fn one(
    session: &Authorized<Session, Edit>,
    after_seq: i64,
    wanted: Wanted,
    input: RunAgentInput,
) -> ApiResult<Response> {
    let permit = permit(session)?;
    let Beginning { subscription, .. } = session.follow(Some(after_seq)).await?;
    let projector = projector_at(session, after_seq).await?;
    let only = Some(OneRun::new(wanted, input.thread_id, input.run_id));
    let seen = Place { seq: 0, nth: None };
    Ok(live::sse::response(Reader { subscription, projector, seen, only, _permit: permit }.events()))
}

fn permit<R: Right>(session: &Authorized<Session, R>) -> ApiResult<OwnedSemaphorePermit> {
    let permit = session.access().state().live_permit();
    permit.ok_or_else(|| ApiError::unavailable("too many live connections", 5))
}

/// As one that has seen all events up to `seq`: it need not see those of turns that have ended.
async fn projector_at<R: Right>(session: &Authorized<Session, R>, seq: i64) -> ApiResult<Projector> {
    let mut projector = Projector::new(&session.get().id);
    let mut cursor = session.last_turn_end(seq).await?;
    while cursor < seq {
        let events = session.events(cursor, READ.min(seq - cursor)).await?;
        let Some(last) = events.last() else { break };
        cursor = last.seq;
        for event in events {
            projector.take(&representation::event(event));
        }
    }
    Ok(projector)
}

/// The messages so far as a run of their own, since there is nothing outside of runs; and the run in progress, begun anew.
fn beginning(session_id: &str, snapshot: &Snapshot, run: Vec<Value>) -> Vec<sse::Event> {
    let run_id = format!("{session_id}/history");
    let ids = json!({ "threadId": session_id, "runId": run_id });
    let of = |event_type: &str| {
        let mut event = ids.clone();
        event["type"] = event_type.into();
        event
    };
    let mut started = of("RUN_STARTED");
    started["protocolVersion"] = frames::PROTOCOL.into();
    let mut finished = of("RUN_FINISHED");
    finished["outcome"] = json!({ "type": "success" });
    let messages = history::event(serde_json::from_str(snapshot.json()).unwrap_or_default());
    let mut events: Vec<Value> = vec![started, messages, finished];
    events.extend(run);
    // Who has not seen the last of them begins again.
    let last = events.len() - 1;
    let place = Place { seq: snapshot.covers_seq(), nth: None };
    let event = |(n, event): (usize, Value)| {
        let sent = sse::Event::default().data(event.to_string());
        if n == last { sent.id(place.to_string()) } else { sent }
    };
    events.into_iter().enumerate().map(event).collect()
}

struct Reader {
    subscription: Subscription,
    projector: Projector,
    /// What was seen before.
    seen: Place,
    /// Only one run, after which the stream ends.
    only: Option<OneRun>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    fn events(self) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static {
        let batches = stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            // A reader that gets nothing more comes back with the last id it has seen.
            let batch = reader.subscription.next().await?;
            let events: Vec<_> = batch.events.iter().flat_map(|event| reader.take(event)).collect();
            let is_over = reader.only.as_ref().is_some_and(OneRun::is_over);
            Some((events, (!is_over).then_some(reader)))
        });
        batches.flat_map(|events| stream::iter(events.into_iter().map(Ok)))
    }

    fn take(&mut self, event: &Arc<ambient_live::Event>) -> Vec<sse::Event> {
        // It was serialised by us.
        let Ok(event) = serde_json::from_str::<Event>(event.json()) else { return Vec::new() };
        let told = self.projector.take(&event);
        let told = match &mut self.only {
            Some(only) => only.take(&event, told),
            None => told,
        };
        let seen = self.seen.seen_of(event.seq);
        let sent = |(n, told): (usize, Value)| {
            let place = Place { seq: event.seq, nth: Some(n + 1) };
            sse::Event::default().id(place.to_string()).data(told.to_string())
        };
        told.into_iter().enumerate().skip(seen).map(sent).collect()
    }
}
