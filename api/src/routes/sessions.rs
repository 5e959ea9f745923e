//! `/sessions`.

use ambient_domain::{project::Project, session::Session};
use ambient_wire::{
    api::List,
    session::{Session as Wire, SessionCreate, SessionPatch},
};
use axum::response::Response;

use crate::{
    authority::{Access, Authorized, Creation, Edit, View, shown as removed},
    error::ApiResult,
    extract::{Json, NoBody, Query, VersionParams, Write},
    list::{self, ListParams},
    representation,
    respond::{Shown, deleted},
    responses::{Changing, Creating, Reading},
    session_spec,
};

/// Sessions of the projects in which the caller has a role.
#[utoipa::path(get, path = "/sessions", operation_id = "listSessions", tag = "sessions", params(ListParams<Session>),
    responses((status = 200, description = "A page of sessions", body = List<Wire>), Reading))]
pub(super) async fn list(
    access: Access,
    Query(params): Query<ListParams<Session>>,
) -> ApiResult<axum::Json<List<Wire>>> {
    let page = access.list::<Session>(&params.query(&access).await?).await?;
    let items = page.items.iter().map(|session| representation::session(session, None)).collect();
    Ok(axum::Json(list::envelope("SessionList", page.page, page.total, items)))
}

/// Creates a session; with `start`, its first run starts at once.
#[utoipa::path(post, path = "/sessions", operation_id = "createSession", tag = "sessions", request_body = SessionCreate,
    responses((status = 201, description = "Created", body = Wire), Creating))]
pub(super) async fn create(access: Access, write: Write<Json<SessionCreate>>) -> ApiResult<Shown<Wire>> {
    write.conditions.no_version_yet()?;
    let body = write.body.0.clone();
    let project = access.authorize::<Project, Edit>(&body.project_id).await?;
    let agent = project.agent(body.agent_id.as_deref()).await?;
    let (start, secrets) = (body.start, body.environment_variables.clone());
    let spec = session_spec::resolve(body, project.get(), agent.as_ref(), access.state().server_defaults())?;
    let reply = project.create_session(Creation { spec, agent, start, secrets }, write.options()).await?;
    let body = representation::session(&reply.state, None);
    let href = body.href.clone();
    Ok(Shown::created(body, reply.state.version, href).by(reply.operation_id))
}

/// A session.
#[utoipa::path(get, path = "/sessions/{session_id}", operation_id = "getSession", tag = "sessions",
    params(("session_id" = String, Path, description = "Session"), VersionParams),
    responses((status = 200, description = "The session", body = Wire), Reading))]
pub(super) async fn get(
    session: Authorized<Session, View>,
    Query(params): Query<VersionParams>,
) -> ApiResult<Shown<Wire>> {
    if let Some(version) = params.version {
        let then = session.at_version(version).await?;
        return Ok(Shown::ok(representation::session(&then, None), version));
    }
    let last_seq = session.last_seq().await?;
    let mut shown = representation::session(session.get(), Some(last_seq));
    shown.retention = session.removed().await?.as_ref().map(removed);
    Ok(Shown::ok(representation::with_results(shown, session.results().await?), session.get().version))
}

/// Changes a session by a JSON merge patch. What a run has already used cannot be changed while it is active.
#[utoipa::path(patch, path = "/sessions/{session_id}", operation_id = "updateSession", tag = "sessions", request_body = SessionPatch,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "The session afterwards", body = Wire), Changing))]
pub(super) async fn patch(
    session: Authorized<Session, Edit>,
    write: Write<Json<SessionPatch>>,
) -> ApiResult<Shown<Wire>> {
    let body = write.body.0.clone();
    let reply = session.patch(body, write.options()).await?;
    Ok(Shown::ok(representation::session(&reply.state, None), reply.state.version).by(reply.operation_id))
}

/// Deletes a session in any phase; from then on it is not found, by further deletions either. session-delete tears down what is left of it.
#[utoipa::path(delete, path = "/sessions/{session_id}", operation_id = "deleteSession", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 204, description = "Deleted"), Changing))]
pub(super) async fn delete(session: Authorized<Session, Edit>, write: Write<NoBody>) -> ApiResult<Response> {
    let reply = session.delete(write.options()).await?;
    deleted(&reply)
}
