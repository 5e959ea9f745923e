//! `/sessions/{s}/events`: the live log, as a page or as Server-Sent Events.

use ambient_domain::session::Session;
use ambient_wire::{api::List, live::Event};
use axum::{
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Authorized, View},
    error::{ApiError, ApiResult},
    extract::{Query, accepts_event_stream, last_event_id},
    list, live, representation,
    responses::Reading,
};

const MAX_SIZE: i64 = 1_000;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Events after this seq; 0, or absent = from the oldest event that is kept.
    #[param(minimum = 0)]
    pub(super) after_seq: Option<i64>,
    /// Items per page; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) size: Option<i64>,
}

impl ListParams {
    /// Both values, within their limits.
    pub(super) fn checked(&self) -> ApiResult<(i64, i64)> {
        let (after_seq, size) = (self.after_seq.unwrap_or(0), self.size.unwrap_or(list::DEFAULT_SIZE));
        if after_seq < 0 {
            return Err(ApiError::invalid("after_seq", "must be 0 or more"));
        }
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(ApiError::invalid("size", format!("must be 1 to {MAX_SIZE}")));
        }
        Ok((after_seq, size))
    }
}

/// Events after `after_seq`, in order and without gaps; if retention has removed some, `oldest` says where they begin. `next` is the `after_seq` of the next page. With `Accept: text/event-stream` the
/// response is that of `events/stream`.
#[utoipa::path(get, path = "/sessions/{session_id}/events", operation_id = "listSessionEvents", tag = "live",
    params(("session_id" = String, Path, description = "Session"), ListParams),
    responses(
        (status = 200, description = "A page of events", body = List<Event>),
        (status = 409, description = "The log has not reached that seq", body = ambient_wire::error::Error),
        (status = 410, description = "Events after that seq are no longer kept", body = ambient_wire::error::Error),
        Reading))]
pub(super) async fn list(
    session: Authorized<Session, View>,
    Query(params): Query<ListParams>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (after_seq, size) = params.checked()?;
    let last_event_id = last_event_id(&headers)?;
    if accepts_event_stream(&headers) {
        let after_seq = last_event_id.or(params.after_seq);
        return live::sse::stream(&session, after_seq).await.map(IntoResponse::into_response);
    }
    let items: Vec<Event> = session.events(after_seq, size).await?.into_iter().map(representation::event).collect();
    let total = session.last_seq().await?;
    let next = items.last().filter(|last| last.seq < total).map(|last| last.seq.to_string());
    // After the events were read: what is removed meanwhile is missed by nobody who is not told.
    let oldest = session.kept_after(after_seq).await?;
    Ok(axum::Json(list::kept(list::cursored("EventList", total, items, next), oldest)).into_response())
}

/// Where a stream starts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamParams {
    /// Events after this seq; 0 = from the first event on. Without it a stream starts with a snapshot, if there is one. The header
    /// `Last-Event-ID` overrides it.
    #[param(minimum = 0)]
    after_seq: Option<i64>,
}

/// Events after `after_seq` as they happen, in order and without gaps, as Server-Sent Events: `id` is the seq, `data` the event. A stream
/// without a starting point sends `event: snapshot` first: its `data` is a `MESSAGES_SNAPSHOT` that replaces all events up
/// to its `covers_seq`, which is its `id`. `event: ended` is the last one when the session is deleted.
#[utoipa::path(get, path = "/sessions/{session_id}/events/stream", operation_id = "streamSessionEvents", tag = "live",
    params(("session_id" = String, Path, description = "Session"), StreamParams,
        ("Last-Event-ID" = Option<i64>, Header, description = "Where the stream continues")),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 409, description = "The log has not reached that seq", body = ambient_wire::error::Error),
        (status = 410, description = "Events after that seq are no longer kept", body = ambient_wire::error::Error),
        Reading))]
pub(super) async fn stream(
    session: Authorized<Session, View>,
    Query(params): Query<StreamParams>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let after_seq = last_event_id(&headers)?.or(params.after_seq);
    if after_seq.is_some_and(|seq| seq < 0) {
        return Err(ApiError::invalid("after_seq", "must be 0 or more"));
    }
    live::sse::stream(&session, after_seq).await
}
