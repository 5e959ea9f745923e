//! Server-Sent Events.

use std::{convert::Infallible, time::Duration};

use ambient_domain::session::Session;
use ambient_live::{Beginning, End, Snapshot, Subscription};
use axum::{
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    authority::{Authorized, View},
    error::{ApiError, ApiResult},
};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Tells a proxy to pass events on as they arrive.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The session's log as it grows, after `after_seq` or from the newest snapshot on.
pub(crate) async fn stream(session: &Authorized<Session, View>, after_seq: Option<i64>) -> ApiResult<Response> {
    let permit = session.access().state().live_permit();
    let permit = permit.ok_or_else(|| ApiError::unavailable("too many live connections", 5))?;
    let Beginning { snapshot, subscription } = session.follow(after_seq).await?;
    let first = stream::iter(snapshot.map(|snapshot| Ok(beginning(&snapshot))));
    Ok(response(first.chain(events(subscription, permit))))
}

/// A stream of events as they come, which is kept alive.
pub(crate) fn response(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(NO_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// The messages so far. Its id is where to continue: a reader that returns with it gets what follows.
fn beginning(snapshot: &Snapshot) -> Event {
    Event::default().event("snapshot").id(snapshot.covers_seq().to_string()).data(snapshot.json())
}

fn events(
    subscription: Subscription,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let batches = stream::unfold(Some((subscription, permit)), |state| async move {
        let (mut subscription, permit) = state?;
        match subscription.next().await {
            Some(batch) => {
                let events =
                    batch.events.iter().map(|event| Event::default().id(event.seq().to_string()).data(event.json()));
                Some((events.collect::<Vec<_>>(), Some((subscription, permit))))
            }
            None => Some((last(subscription.end()), None)),
        }
    });
    batches.flat_map(|events| stream::iter(events.into_iter().map(Ok)))
}

/// What a reader is told when it gets nothing more. When the server shuts down, nothing: the reader reconnects and continues.
fn last(end: Option<End>) -> Vec<Event> {
    match end {
        Some(End::Deleted) => vec![Event::default().event("ended").data(json!({"reason": "deleted"}).to_string())],
        Some(End::TooOld { oldest, covers_seq }) => {
            let told = json!({"code": "too_old", "oldest": oldest, "covers_seq": covers_seq});
            vec![Event::default().event("error").data(told.to_string())]
        }
        Some(End::Closed) | None => Vec::new(),
    }
}
