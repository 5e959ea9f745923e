//! `/sessions/{s}/git`: git in a running session's workspace, through its runner.

use ambient_domain::session::Session;
use ambient_wire::{
    git::{GitCommit, GitCommitted, GitDiffQuery, GitPush, GitPushed, GitStatus, diff_header},
    git_history::{GitBranchCreate, GitBranchCreated, GitBranches, GitLog, GitLogQuery},
    git_merge::{
        GitAbandon, GitAbandoned, GitMergeQuery, GitMergeStatus, GitPull, GitPulled, GitSynchronize, GitSynchronized,
    },
};
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
pub(super) struct RepoParams {
    /// Repository; may be absent if there is only one.
    repo: Option<String>,
}

/// Branch, commit and changed files of a repository.
#[utoipa::path(get, path = "/sessions/{session_id}/git/status", operation_id = "getGitStatus", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), RepoParams),
    responses((status = 200, description = "Its status", body = GitStatus), Proxied))]
pub(super) async fn status(
    session: Authorized<Session, View>,
    Query(params): Query<RepoParams>,
) -> ApiResult<Answer<GitStatus>> {
    session.git_status(params.repo).await.map(Answer)
}

/// Unified diff of a repository; it applies byte for byte with `git apply`. At most 24 MiB.
#[utoipa::path(get, path = "/sessions/{session_id}/git/diff", operation_id = "getGitDiff", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), GitDiffQuery),
    responses((status = 200, description = "Unified diff", body = String, content_type = "text/x-diff", headers(
        ("x-diff-truncated" = String, description = "`true` if the diff is truncated: it does not apply"),
        ("x-diff-left-out" = String, description = "What it does not show: a JSON list of `{path, reason}`, percent-encoded; the first 50"),
    )), Proxied))]
pub(super) async fn diff(session: Authorized<Session, View>, Query(query): Query<GitDiffQuery>) -> ApiResult<Response> {
    let diff = session.git_diff(query).await?;
    let headers = [(header::CONTENT_TYPE, "text/x-diff"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let told = [
        (HeaderName::from_static(diff_header::TRUNCATED), diff.truncated.to_string()),
        (HeaderName::from_static(diff_header::LEFT_OUT), diff.left_out),
    ];
    Ok((headers, told, diff.patch).into_response())
}

/// Commits of a repository, newest first. Names, times and messages are as the repository claims.
#[utoipa::path(get, path = "/sessions/{session_id}/git/log", operation_id = "listGitLog", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), GitLogQuery),
    responses((status = 200, description = "A page of them", body = GitLog), Proxied))]
pub(super) async fn log(
    session: Authorized<Session, View>,
    Query(query): Query<GitLogQuery>,
) -> ApiResult<Answer<GitLog>> {
    session.git_log(query).await.map(Answer)
}

/// Branches of a repository in the workspace, and of its origin.
#[utoipa::path(get, path = "/sessions/{session_id}/git/list-branches", operation_id = "listGitBranches", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), RepoParams),
    responses((status = 200, description = "All of them", body = GitBranches), Proxied))]
pub(super) async fn branches(
    session: Authorized<Session, View>,
    Query(params): Query<RepoParams>,
) -> ApiResult<Answer<GitBranches>> {
    session.git_branches(params.repo).await.map(Answer)
}

/// Makes a branch in a repository of the workspace. One that is there, at the same commit, is fine.
#[utoipa::path(post, path = "/sessions/{session_id}/git/create-branch", operation_id = "createGitBranch", tag = "workspace", request_body = GitBranchCreate,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "The branch", body = GitBranchCreated), Proxied, Acting))]
pub(super) async fn create_branch(
    session: Authorized<Session, Edit>,
    Act(Json(branch)): Act<Json<GitBranchCreate>>,
) -> ApiResult<Answer<GitBranchCreated>> {
    session.create_branch(&branch).await.map(Answer)
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

/// Pushes to a branch of the origin, or of the fork that the repository's output names; never forces. Refused if that output is `none`.
#[utoipa::path(post, path = "/sessions/{session_id}/git/push", operation_id = "pushGit", tag = "workspace", request_body = GitPush,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "Where the branch now points", body = GitPushed), Proxied, Acting))]
pub(super) async fn push(
    session: Authorized<Session, Edit>,
    Act(Json(push)): Act<Json<GitPush>>,
) -> ApiResult<Answer<GitPushed>> {
    session.git_push(&push).await.map(Answer)
}

/// Takes over commits of a branch of the origin. Changed files stay as they are. A conflict, with commits or with changed files, is 409, and leaves everything as
/// it was.
#[utoipa::path(post, path = "/sessions/{session_id}/git/pull", operation_id = "pullGit", tag = "workspace", request_body = GitPull,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "What was taken over", body = GitPulled), Proxied, Acting))]
pub(super) async fn pull(
    session: Authorized<Session, Edit>,
    Act(Json(pull)): Act<Json<GitPull>>,
) -> ApiResult<Answer<GitPulled>> {
    session.git_pull(&pull).await.map(Answer)
}

/// Pulls from a branch of the origin, then pushes to it. If the push fails, what was pulled stays.
#[utoipa::path(post, path = "/sessions/{session_id}/git/synchronize", operation_id = "synchronizeGit", tag = "workspace", request_body = GitSynchronize,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "What was pulled and pushed", body = GitSynchronized), Proxied, Acting))]
pub(super) async fn synchronize(
    session: Authorized<Session, Edit>,
    Act(Json(request)): Act<Json<GitSynchronize>>,
) -> ApiResult<Answer<GitSynchronized>> {
    session.git_synchronize(&request).await.map(Answer)
}

/// What merging a branch of the origin would come to, conflicts included. Asks the origin; nothing in the workspace is touched.
#[utoipa::path(get, path = "/sessions/{session_id}/git/merge-status", operation_id = "getGitMergeStatus", tag = "workspace",
    params(("session_id" = String, Path, description = "Session"), GitMergeQuery),
    responses((status = 200, description = "How the two stand to each other", body = GitMergeStatus), Proxied))]
pub(super) async fn merge_status(
    session: Authorized<Session, View>,
    Query(query): Query<GitMergeQuery>,
) -> ApiResult<Answer<GitMergeStatus>> {
    session.merge_status(query).await.map(Answer)
}

/// Takes the checked-out branch and the files back to the commit that was cloned. Everything that is given up is kept first, as a commit on no
/// branch; ignored files stay where they are.
#[utoipa::path(post, path = "/sessions/{session_id}/git/abandon", operation_id = "abandonGit", tag = "workspace", request_body = GitAbandon,
    params(("session_id" = String, Path, description = "Session")),
    responses((status = 200, description = "What was given up, and where it is kept", body = GitAbandoned), Proxied, Acting))]
pub(super) async fn abandon(
    session: Authorized<Session, Edit>,
    Act(Json(request)): Act<Json<GitAbandon>>,
) -> ApiResult<Answer<GitAbandoned>> {
    session.git_abandon(&request).await.map(Answer)
}
