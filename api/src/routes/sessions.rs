//! `/sessions`.

use ambient_domain::{project::Project, session::Session};
use ambient_wire::{
    api::List,
    session::{Session as Wire, SessionCreate, SessionPatch},
};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    projects::VersionParams,
    responses::{Changing, Creating, Reading},
};
use crate::{
    authority::{Access, Authorized, Creation, Edit, View},
    error::{ApiError, ApiResult},
    extract::{Json, NoBody, Query, Write},
    list::{self, Column},
    representation,
    respond::{Shown, no_content},
    session_spec,
};

pub(crate) const ORDER: &[Column] = &[
    ("id", "id"),
    ("name", "display_name"),
    ("project_id", "project_id"),
    ("phase", "phase"),
    ("agent", "agent"),
    ("run", "run"),
    ("version", "version"),
    ("created_by_user_id", "created_by"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("start_time", "start_time"),
    ("completion_time", "completion_time"),
];

/// Values of the filter `phase`; `New` stands for a session that was never started.
pub(crate) const PHASES: [&str; 8] =
    ["New", "Pending", "Creating", "Running", "Stopping", "Stopped", "Completed", "Failed"];

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// From 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Items of a page; 0 = only the total. 100 when absent.
    #[param(minimum = 0, maximum = 65500)]
    size: Option<i64>,
    /// `column[ asc|desc]`, comma-separated; newest first when absent.
    #[serde(alias = "orderBy")]
    order_by: Option<String>,
    /// Project, by id or name.
    project_id: Option<String>,
    /// Exact name.
    name: Option<String>,
    /// `New` (never started), `Pending`, `Creating`, `Running`, `Stopping`, `Stopped`, `Completed` or `Failed`.
    phase: Option<String>,
    /// Agent.
    agent: Option<String>,
    /// Chat (true) or batch.
    interactive: Option<bool>,
    /// Model.
    llm_model: Option<String>,
    /// Creator.
    created_by_user_id: Option<String>,
    /// Session they were made from.
    parent_session_id: Option<String>,
    /// `key=value` that its labels hold; may be repeated, and all of them hold then.
    #[serde(default, deserialize_with = "list::each")]
    label: Vec<String>,
}

impl ListParams {
    fn filters(self, project_id: Option<String>) -> ApiResult<Vec<(String, String)>> {
        let labels = list::labels(&self.label)?;
        if self.phase.as_deref().is_some_and(|phase| !PHASES.contains(&phase)) {
            return Err(ApiError::invalid("phase", format!("must be one of {}", PHASES.join(", "))));
        }
        let mut filters = list::filters([
            ("project_id", project_id),
            ("display_name", self.name),
            ("phase", self.phase),
            ("agent", self.agent),
            ("interactive", self.interactive.map(|value| value.to_string())),
            ("llm_model", self.llm_model),
            ("created_by", self.created_by_user_id),
            ("parent_session_id", self.parent_session_id),
        ]);
        filters.extend(labels);
        Ok(filters)
    }
}

/// Sessions of the projects the caller has a role in.
#[utoipa::path(get, path = "/sessions", operation_id = "listSessions", tag = "sessions", params(ListParams),
    responses((status = 200, description = "A page of sessions", body = List<Wire>), Reading))]
pub(super) async fn list(access: Access, Query(params): Query<ListParams>) -> ApiResult<axum::Json<List<Wire>>> {
    let paging = list::paging(params.page, params.size, list::MAX_SIZE)?;
    let order = list::order(params.order_by.as_deref(), ORDER)?;
    let project_id = access.project_id(params.project_id.as_deref()).await?;
    let page = access.sessions(&list::query(paging, order, params.filters(project_id)?)).await?;
    let items = page.items.iter().map(|session| representation::session(session, None)).collect();
    Ok(axum::Json(list::envelope("SessionList", page.page, page.total, items)))
}

/// Creates a session; with `start`, its first run begins at once.
#[utoipa::path(post, path = "/sessions", operation_id = "createSession", tag = "sessions", request_body = SessionCreate,
    responses((status = 201, description = "Created", body = Wire), Creating))]
pub(super) async fn create(access: Access, write: Write<Json<SessionCreate>>) -> ApiResult<Shown<Wire>> {
    write.conditions.no_version()?;
    let body = write.body.0.clone();
    let project = access.authorize::<Project, Edit>(&body.project_id).await?;
    let (start, secrets) = (body.start, body.environment_variables.clone());
    let spec = session_spec::resolve(body, project.get(), access.state().server_defaults())?;
    let reply = project.create_session(Creation { spec, start, secrets }, write.with()).await?;
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
    Ok(Shown::ok(representation::session(session.get(), Some(last_seq)), session.get().version))
}

/// Changes a session by a JSON merge patch. What a run has already used cannot change while it is active.
#[utoipa::path(patch, path = "/sessions/{session_id}", operation_id = "updateSession", tag = "sessions", request_body = SessionPatch,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "The session afterwards", body = Wire), Changing))]
pub(super) async fn patch(
    session: Authorized<Session, Edit>,
    write: Write<Json<SessionPatch>>,
) -> ApiResult<Shown<Wire>> {
    let body = write.body.0.clone();
    let reply = session.patch(body, write.with()).await?;
    Ok(Shown::ok(representation::session(&reply.state, None), reply.state.version).by(reply.operation_id))
}

/// Deletes a session in any phase; what is left of it is torn down by session-delete.
#[utoipa::path(delete, path = "/sessions/{session_id}", operation_id = "deleteSession", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 204, description = "Deleted"), Changing))]
pub(super) async fn delete(session: Authorized<Session, Edit>, write: Write<NoBody>) -> ApiResult<Response> {
    let reply = session.delete(write.with()).await?;
    Ok(no_content(reply.operation_id))
}
