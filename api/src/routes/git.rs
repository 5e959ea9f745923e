//! `/sessions/{s}/git`: git in a running session's workspace, through its runner.

use ambient_domain::session::Session;
use ambient_wire::git::{GitCommit, GitCommitted, GitPush, GitPushed, GitStatus, diff_header};
use axum::{
    Json as Answer,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    authority::{Authorized, Edit, View},
    error::ApiResult,
    extract::{Act, Json, Query},
    responses::{Acting, Proxied},
};

/// Which repository.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusParams {
    /// Repository; may be absent if there is only one.
    repo: Option<String>,
}

/// Branch, commit and changed files of a repository.
#[utoipa::path(get, path = "/sessions/{session_id}/git/status", operation_id = "getGitStatus", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), StatusParams),
    responses((status = 200, description = "Its status", body = GitStatus), Proxied))]
pub(super) async fn status(
    session: Authorized<Session, View>,
    Query(params): Query<StatusParams>,
) -> ApiResult<Answer<GitStatus>> {
    session.git_status(params.repo).await.map(Answer)
}

/// Which difference.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffParams {
    /// Repository; may be absent if there is only one.
    repo: Option<String>,
    /// Commit to compare with; when absent, the one that was cloned.
    base: Option<String>,
}

/// Unified diff of a repository; it applies byte for byte with `git apply`. At most 24 MiB.
#[utoipa::path(get, path = "/sessions/{session_id}/git/diff", operation_id = "getGitDiff", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), DiffParams),
    responses((status = 200, description = "Unified diff", body = String, content_type = "text/x-diff", headers(
        ("x-diff-truncated" = String, description = "`true` if the diff is truncated: it does not apply"),
        ("x-diff-left-out" = String, description = "What it does not show: a JSON list of `{path, reason}`, percent-encoded; the first 50"),
    )), Proxied))]
pub(super) async fn diff(session: Authorized<Session, View>, Query(params): Query<DiffParams>) -> ApiResult<Response> {
    let diff = session.git_diff(params.repo, params.base.as_deref()).await?;
    let headers = [(header::CONTENT_TYPE, "text/x-diff"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let told = [
        (HeaderName::from_static(diff_header::TRUNCATED), diff.truncated.to_string()),
        (HeaderName::from_static(diff_header::LEFT_OUT), diff.left_out),
    ];
    Ok((headers, told, diff.patch).into_response())
}

/// Commits all changes of a repository.
#[utoipa::path(post, path = "/sessions/{session_id}/git/commit", operation_id = "commitGit", tag = "workspace", request_body = GitCommit,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "The commit; null if there was nothing to commit", body = GitCommitted), Proxied, Acting))]
pub(super) async fn commit(
    session: Authorized<Session, Edit>,
    Act(Json(commit)): Act<Json<GitCommit>>,
) -> ApiResult<Answer<GitCommitted>> {
    session.git_commit(&commit).await.map(Answer)
}

/// Pushes to a branch of the origin; never forces.
#[utoipa::path(post, path = "/sessions/{session_id}/git/push", operation_id = "pushGit", tag = "workspace", request_body = GitPush,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "Where the branch now points", body = GitPushed), Proxied, Acting))]
pub(super) async fn push(
    session: Authorized<Session, Edit>,
    Act(Json(push)): Act<Json<GitPush>>,
) -> ApiResult<Answer<GitPushed>> {
    session.git_push(&push).await.map(Answer)
}
