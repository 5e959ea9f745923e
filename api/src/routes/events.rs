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
    /// After this seq; 0 = from the oldest event that is kept, also when absent.
    #[param(minimum = 0)]
    pub(super) after_seq: Option<i64>,
    /// Items of a page. 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) size: Option<i64>,
}

impl ListParams {
    /// Both, within their limits.
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

/// Events after `after_seq`, in order and without gaps. `next` is the `after_seq` of the next page. With `Accept: text/event-stream` the
/// answer is that of `events/stream`.
#[utoipa::path(get, path = "/sessions/{session_id}/events", operation_id = "listSessionEvents", tag = "live",
    params(("session_id" = String, Path, description = "Session"), ListParams),
    responses(
        (status = 200, description = "A page of events", body = List<Event>),
        (status = 409, description = "The log has not come to that seq", body = ambient_wire::error::Error),
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
    Ok(axum::Json(list::cursored("EventList", total, items, next)).into_response())
}

/// Where a stream begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamParams {
    /// After this seq; 0 = from the oldest event that is kept. A stream without it begins with a snapshot, if there is one; the header
    /// `Last-Event-ID` wins over it.
    #[param(minimum = 0)]
    after_seq: Option<i64>,
}

/// Events after `after_seq` as they come, in order and without gaps, as Server-Sent Events: `id` is the seq, `data` the event. A stream
/// that is not told where to begin brings `event: snapshot` first: `data` is an AG-UI `MESSAGES_SNAPSHOT` in the place of all events up
/// to its `covers_seq`, which is its `id`. `event: ended` is the last when the session is deleted.
#[utoipa::path(get, path = "/sessions/{session_id}/events/stream", operation_id = "streamSessionEvents", tag = "live",
    params(("session_id" = String, Path, description = "Session"), StreamParams,
        ("Last-Event-ID" = Option<i64>, Header, description = "Where the stream goes on")),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 409, description = "The log has not come to that seq", body = ambient_wire::error::Error),
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
