//! `/sessions/{s}/repos`: wanted repositories; session-reconcile clones and removes them.

use ambient_domain::session::{Phase, Session, workflow_id};
use ambient_wire::{
    api::List,
    repo::Repo,
    session::{Session as Wire, SessionRepo},
};

use crate::{
    authority::{Authorized, Edit, View},
    error::ApiResult,
    extract::{Json, NoBody, Write, path_parameter},
    list, representation,
    respond::Shown,
    responses::{Changing, Reading},
    session_spec,
};

path_parameter!(
    /// Name of a repository.
    RepoName, "name"
);

/// Adds a repository.
#[utoipa::path(post, path = "/sessions/{session_id}/repos", operation_id = "addSessionRepo", tag = "sessions", request_body = Repo,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 202, description = "Wanted; while a run is active, Location is the execution that clones it", body = Wire), Changing))]
pub(super) async fn add(session: Authorized<Session, Edit>, write: Write<Json<Repo>>) -> ApiResult<Shown<Wire>> {
    let repo = session_spec::repo(write.body.0.clone(), &session.get().spec.repos)?;
    let reply = session.add_repo(repo, write.options()).await?;
    Ok(wanted(&reply.state).by(reply.operation_id))
}

/// Removes a repository and its directory.
#[utoipa::path(delete, path = "/sessions/{session_id}/repos/{name}", operation_id = "removeSessionRepo", tag = "sessions",
    params(("session_id" = String, Path, description = "Session"), ("name" = String, Path, description = "Its name")),
    responses((status = 202, description = "No longer wanted", body = Wire), Changing))]
pub(super) async fn remove(
    session: Authorized<Session, Edit>,
    RepoName(name): RepoName,
    write: Write<NoBody>,
) -> ApiResult<Shown<Wire>> {
    let reply = session.remove_repo(name, write.options()).await?;
    Ok(wanted(&reply.state).by(reply.operation_id))
}

/// Repositories as wanted and as they are.
#[utoipa::path(get, path = "/sessions/{session_id}/repos/status", operation_id = "getSessionRepoStatus", tag = "sessions",
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "All of them", body = List<SessionRepo>), Reading))]
pub(super) async fn status(session: Authorized<Session, View>) -> ApiResult<axum::Json<List<SessionRepo>>> {
    let has_workspace = session.workspace_removed_at().await?.is_none();
    let items = representation::session_repos(session.get(), has_workspace);
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(axum::Json(list::envelope("SessionRepoList", 1, total, items)))
}

pub(super) fn wanted(session: &Session) -> Shown<Wire> {
    let active = matches!(session.phase(), Some(Phase::Pending | Phase::Creating | Phase::Running));
    let workflow = active.then(|| workflow_id::supervise(&session.id, session.run_number()));
    Shown::accepted(representation::session(session, None), session.version, workflow.as_deref())
}
