//! `/sessions/{s}/workflow`: the playbook that a session's agent goes by; session-reconcile takes it into effect.

use ambient_domain::session::Session;
use ambient_wire::{
    playbook::{Playbook, PlaybookMetadata},
    session::{Session as Wire, SessionPatch},
};
use axum::Json as Answer;

use super::repos::wanted;
use crate::{
    authority::{Authorized, Edit, View},
    error::ApiResult,
    extract::{Json, NoBody, Write},
    given,
    respond::Shown,
    responses::{Changing, Reading},
};

/// Has the session go by a playbook, in place of the one it goes by.
#[utoipa::path(post, path = "/sessions/{session_id}/workflow", operation_id = "setSessionWorkflow", tag = "sessions", request_body = Playbook,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 202, description = "Wanted; in effect from the next turn after it was cloned. While a run is active, Location is the execution that does so", body = Wire), Changing))]
pub(super) async fn set(session: Authorized<Session, Edit>, write: Write<Json<Playbook>>) -> ApiResult<Shown<Wire>> {
    given::playbook("", &write.body.0)?;
    change(&session, Some(write.body.0.clone()), &write).await
}

/// Has the session go by no playbook.
#[utoipa::path(delete, path = "/sessions/{session_id}/workflow", operation_id = "clearSessionWorkflow", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 202, description = "No longer wanted", body = Wire), Changing))]
pub(super) async fn clear(session: Authorized<Session, Edit>, write: Write<NoBody>) -> ApiResult<Shown<Wire>> {
    change(&session, None, &write).await
}

/// What the session's playbook has, as it was read when it came into effect; no run is needed.
#[utoipa::path(get, path = "/sessions/{session_id}/workflow/metadata", operation_id = "getSessionWorkflowMetadata", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "Commands, agents and configuration; empty without a playbook, or before it is in effect", body = PlaybookMetadata), Reading))]
pub(super) async fn metadata(session: Authorized<Session, View>) -> ApiResult<Answer<PlaybookMetadata>> {
    let none = || PlaybookMetadata { kind: "WorkflowMetadata".to_owned(), ..PlaybookMetadata::default() };
    Ok(Answer(session.playbook().await?.unwrap_or_else(none)))
}

async fn change<B>(
    session: &Authorized<Session, Edit>,
    playbook: Option<Playbook>,
    write: &Write<B>,
) -> ApiResult<Shown<Wire>> {
    let patch = SessionPatch { active_workflow: Some(playbook), ..SessionPatch::default() };
    let reply = session.patch(patch, write.options()).await?;
    Ok(wanted(&reply.state).by(reply.operation_id))
}
