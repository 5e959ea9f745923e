//! `/sessions/{s}/start`, `/stop`, `/resources`.

use ambient_domain::session::{Phase, Session, workflow_id};
use ambient_wire::{
    api::List,
    session::{Session as Wire, SessionResource, SessionStart, SessionStop},
};

use crate::{
    authority::{Authorized, Edit, View},
    error::ApiResult,
    extract::{OrDefault, Write},
    list, representation,
    respond::Shown,
    responses::{Changing, Reading},
};

/// Starts a run.
#[utoipa::path(post, path = "/sessions/{session_id}/start", operation_id = "startSession", tag = "sessions", request_body = Option<SessionStart>,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 202, description = "Accepted; Location is session-start", body = Wire), Changing))]
pub(super) async fn start(
    session: Authorized<Session, Edit>,
    write: Write<OrDefault<SessionStart>>,
) -> ApiResult<Shown<Wire>> {
    let reply = session.start(write.body.0.prompt.clone(), write.options()).await?;
    let workflow = start_workflow(&reply.state);
    let body = representation::session(&reply.state, None);
    Ok(Shown::accepted(body, reply.state.version, workflow.as_deref()).by(reply.operation_id))
}

/// Stops the run. 200 if it has already ended.
#[utoipa::path(post, path = "/sessions/{session_id}/stop", operation_id = "stopSession", tag = "sessions", request_body = Option<SessionStop>,
    params(("session_id" = String, Path, description = "Session")),
    responses(
        (status = 202, description = "Stopping; Location is session-stop", body = Wire),
        (status = 200, description = "It had already ended, or was ended by force", body = Wire),
        Changing))]
pub(super) async fn stop(
    session: Authorized<Session, Edit>,
    write: Write<OrDefault<SessionStop>>,
) -> ApiResult<Shown<Wire>> {
    let reply = session.stop(write.body.0.force, write.options()).await?;
    let (state, body) = (&reply.state, representation::session(&reply.state, None));
    let shown = match (state.phase(), state.required_workflows().first()) {
        (Some(Phase::Stopping), workflow) => Shown::accepted(body, state.version, workflow.map(String::as_str)),
        _ => Shown::ok(body, state.version),
    };
    Ok(shown.by(reply.operation_id))
}

/// A session's compute resources.
#[utoipa::path(get, path = "/sessions/{session_id}/resources", operation_id = "listSessionResources", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "All of them", body = List<SessionResource>), Reading))]
pub(super) async fn resources(session: Authorized<Session, View>) -> ApiResult<axum::Json<List<SessionResource>>> {
    let found = session.resources().await?.into_iter();
    let items: Vec<_> = found.map(representation::resource).collect();
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(axum::Json(list::envelope("SessionResourceList", 1, total, items)))
}

/// The execution that starts the current attempt.
pub(super) fn start_workflow(session: &Session) -> Option<String> {
    session.run().map(|run| workflow_id::start(&session.id, run.number, run.attempt))
}
