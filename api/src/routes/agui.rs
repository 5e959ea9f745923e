//! `/sessions/{s}/agui`: for user interfaces that speak AG-UI 1.0.

use ambient_domain::session::Session;
use ambient_wire::{
    BASE,
    agui::{AgentCapabilities, AguiRun, Feedback, MessagesSnapshot, RunAgentInput},
    api::List,
};
use axum::{
    Json as Answer,
    http::{HeaderMap, HeaderName, Method, StatusCode},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::events::ListParams;
use crate::{
    agui::{
        answer, history,
        input::{self, Wish},
        runs, stream,
    },
    authority::{Accepted, Authorized, Edit, View},
    error::{ApiError, ApiResult},
    extract::{Act, Conditions, ConversationJson, Fingerprint, NoBody, OpaqueJson, Query, Write, WriteOptions},
    list, representation,
    responses::{Acting, Changing, Reading},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Sends the newest message of the user to the agent, or answers interrupts (`resume`), and streams the run that follows as Server-Sent
/// Events, up to its `RUN_FINISHED` or `RUN_ERROR`. A session that does not run is started. The same message, by its id, is sent once: a repeated request
/// streams the same run again. Tools of the client are not supported.
#[utoipa::path(post, path = "/sessions/{session_id}/agui", operation_id = "runAgui", tag = "agui", request_body = RunAgentInput,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "The run's events", body = String, content_type = "text/event-stream"), Acting))]
pub(super) async fn run(
    session: Authorized<Session, Edit>,
    Act(ConversationJson(input)): Act<ConversationJson<RunAgentInput>>,
) -> ApiResult<Response> {
    match input::wish(&input)? {
        Wish::Message { id, text } => {
            let Accepted { message_id, seq, .. } = send(&session, &id, text).await?;
            let seq = seq.ok_or_else(|| ApiError::unavailable("the message is not in the log yet", 1))?;
            stream::on_message(&session, message_id, seq, input).await
        }
        Wish::Answers(answers) => {
            let first = answers.first().map(|(id, _)| id.clone()).unwrap_or_default();
            let seq = answer::give(&session, answers).await?;
            stream::after_interrupt(&session, first, seq, input).await
        }
    }
}

/// Sends a message once, by the client's id of it.
async fn send(session: &Authorized<Session, Edit>, id: &str, text: String) -> ApiResult<Accepted> {
    let path = format!("{BASE}/sessions/{}/agui", session.get().id);
    let fingerprint = Fingerprint::of(&Method::POST, &path, None, text.as_bytes());
    let key = Fingerprint::of(&Method::POST, &path, None, id.as_bytes()).key();
    let conditions = Conditions { if_match: None, idempotency_key: Some(key) };
    session.send(text, Vec::new(), true, WriteOptions { conditions: &conditions, fingerprint: &fingerprint }).await
}

/// Where a stream starts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamParams {
    /// The id of the last event that was seen; `0` = from the first event on. Without it a stream starts with the messages so far, if
    /// there is a snapshot of them. The header `Last-Event-ID` overrides it.
    after_seq: Option<String>,
}

/// All runs of the session as they happen, in order and without gaps, as Server-Sent Events. Resume with the `id` of the last event that was seen. A stream
/// without a starting point begins with a run that consists of a `MESSAGES_SNAPSHOT`.
#[utoipa::path(get, path = "/sessions/{session_id}/agui/events", operation_id = "streamAguiEvents", tag = "agui",
    params(("session_id" = String, Path, description = "Session"), StreamParams,
        ("Last-Event-ID" = Option<String>, Header, description = "Where the stream continues")),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 409, description = "The log has not reached that place", body = ambient_wire::error::Error),
        (status = 410, description = "Events after that place are no longer kept", body = ambient_wire::error::Error),
        Reading))]
pub(super) async fn events(
    session: Authorized<Session, View>,
    Query(params): Query<StreamParams>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let last = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default().trim());
    stream::all(&session, last.or(params.after_seq.as_deref())).await
}

/// The messages so far, as the AG-UI event `MESSAGES_SNAPSHOT`.
#[utoipa::path(get, path = "/sessions/{session_id}/agui/history", operation_id = "getAguiHistory", tag = "agui",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "The messages", body = MessagesSnapshot), Reading))]
pub(super) async fn messages(session: Authorized<Session, View>) -> ApiResult<Answer<serde_json::Value>> {
    history::read(&session).await.map(Answer)
}

/// Runs that began after `after_seq`, in order. `next` is the `after_seq` of the next page; `total` is the seq of the log's last event.
#[utoipa::path(get, path = "/sessions/{session_id}/agui/runs", operation_id = "listAguiRuns", tag = "agui",
    params(("session_id" = String, Path, description = "Session"), ListParams),
    responses(
        (status = 200, description = "A page of runs", body = List<AguiRun>),
        (status = 410, description = "Events after that seq are no longer kept", body = ambient_wire::error::Error),
        Reading))]
pub(super) async fn list(
    session: Authorized<Session, View>,
    Query(params): Query<ListParams>,
) -> ApiResult<Answer<List<AguiRun>>> {
    let (after_seq, size) = params.checked()?;
    let (items, next) = runs::read(&session, after_seq, usize::try_from(size).unwrap_or(1)).await?;
    let total = session.last_seq().await?;
    let oldest = session.kept_after(after_seq).await?;
    Ok(Answer(list::kept(list::cursored("AguiRunList", total, items, next.map(|seq| seq.to_string())), oldest)))
}

/// Ends the run in progress; if there is none, nothing happens.
#[utoipa::path(post, path = "/sessions/{session_id}/agui/interrupt", operation_id = "interruptAgui", tag = "agui",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 204, description = "It ends, or there was none"), Acting))]
pub(super) async fn interrupt(session: Authorized<Session, Edit>, Act(NoBody): Act<NoBody>) -> ApiResult<StatusCode> {
    session.interrupt_turn().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a person thinks of what the agent has said or done, as an AG-UI event `META` (`thumbs_up`, `thumbs_down`). It is an operation of the session, and
/// in its log (`user.feedback`); the agent is not told.
#[utoipa::path(post, path = "/sessions/{session_id}/agui/feedback", operation_id = "giveAguiFeedback", tag = "agui", request_body = Feedback,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 204, description = "It is recorded"), Changing))]
pub(super) async fn feedback(
    session: Authorized<Session, Edit>,
    write: Write<OpaqueJson<Feedback>>,
) -> ApiResult<StatusCode> {
    session.give_feedback(write.body.0.clone(), write.options()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the session's agent can do, as far as AG-UI has words for it.
#[utoipa::path(get, path = "/sessions/{session_id}/agui/capabilities", operation_id = "getAguiCapabilities", tag = "agui",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "The capabilities", body = AgentCapabilities), Reading))]
pub(super) async fn capabilities(session: Authorized<Session, View>) -> ApiResult<Answer<AgentCapabilities>> {
    Ok(Answer(representation::agui_capabilities(session.get())))
}
