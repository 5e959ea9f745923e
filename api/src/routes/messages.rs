//! `/sessions/{s}/messages`: the conversation.

use ambient_domain::session::{Phase, Session};
use ambient_wire::{
    api::List,
    session::{Message, MessageAccepted, MessageCreate},
};
use axum::{
    Json as Answer,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{events::ListParams, runs};
use crate::{
    authority::{Accepted, Authorized, Edit, View},
    conversation,
    error::ApiResult,
    extract::{Json, Query, Write},
    list,
    respond::Shown,
    responses::{Changing, Reading},
};

/// Sends a user's message to the agent. 202 if it will be delivered later, because the session is still starting.
#[utoipa::path(post, path = "/sessions/{session_id}/messages", operation_id = "sendSessionMessage", tag = "sessions", request_body = MessageCreate,
    params(("session_id" = String, Path, description = "Session")),
    responses(
        (status = 201, description = "Accepted by a running session", body = MessageAccepted),
        (status = 202, description = "Accepted, to be delivered once the session runs; Location is session-start", body = MessageAccepted),
        Changing))]
pub(super) async fn send(session: Authorized<Session, Edit>, write: Write<Json<MessageCreate>>) -> ApiResult<Response> {
    let Json(MessageCreate { text, attachments, start }) = &write.body;
    let Accepted { reply, message_id, seq } =
        session.send(text.clone(), attachments.clone(), *start, write.options()).await?;
    let (kind, session_id) = ("Message".to_owned(), reply.state.id.clone());
    let body = MessageAccepted { kind, id: message_id, session_id, seq };
    if reply.state.phase() == Some(Phase::Running) {
        let created = (StatusCode::CREATED, Shown::ok(body, reply.state.version).by(reply.operation_id));
        return Ok(created.into_response());
    }
    let workflow = runs::start_workflow(&reply.state);
    Ok(Shown::accepted(body, reply.state.version, workflow.as_deref()).by(reply.operation_id).into_response())
}

/// Messages of people and the agent that started after `after_seq`, assembled from the live log. `next` is the `after_seq` of the
/// next page; `total` counts all messages of the session. If retention has removed events, `oldest` says where they begin; `agui/history` has
/// the messages before.
#[utoipa::path(get, path = "/sessions/{session_id}/messages", operation_id = "listSessionMessages", tag = "sessions",
    params(("session_id" = String, Path, description = "Session"), ListParams),
    responses(
        (status = 200, description = "A page of messages", body = List<Message>),
        (status = 410, description = "Events after that seq are no longer kept", body = ambient_wire::error::Error),
        Reading))]
pub(super) async fn list(
    session: Authorized<Session, View>,
    Query(params): Query<ListParams>,
) -> ApiResult<Answer<List<Message>>> {
    let (after_seq, size) = params.checked()?;
    let (items, next) = conversation::read(&session, after_seq, size).await?;
    let total = session.message_count().await?;
    let oldest = session.kept_after(after_seq).await?;
    Ok(Answer(list::kept(list::cursored("MessageList", total, items, next.map(|seq| seq.to_string())), oldest)))
}
