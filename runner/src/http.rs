//! Routes of the runner; handlers only translate.

use std::time::Duration;

use ambient_runner_protocol::{
    Accepted, AgentSettings, AnswerTaken, CONTRACT_VERSION, DeliverMessage, Health, ModelBudget, PackEnd,
    PermissionPolicy, PlaybookStatus, RepoSpec, RepoStatus,
};
use ambient_wire::{
    content::{FileMove, FileStatus, Listing},
    git::{GitCommit, GitCommitted, GitDiffQuery, GitPush, GitPushed, GitStatus, LeftOut, LeftOutReason, diff_header},
    git_history::{GitBranchCreate, GitBranchCreated, GitBranches, GitLog, GitLogQuery},
    git_merge::{
        GitAbandon, GitAbandoned, GitMergeQuery, GitMergeStatus, GitPull, GitPulled, GitSynchronize, GitSynchronized,
    },
    permission::InterruptAnswer,
    playbook::Playbook,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequest, Path, Query, Request, State, WebSocketUpgrade, rejection::BytesRejection,
    },
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post, put},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    app::SharedApp,
    changes, content,
    ending::{End, Stop},
    error::{Error, Result},
    file_change::Condition,
    git::{abandon, branches, history, operations, packs, playbooks, pull, push, repos},
    messages, reader,
    turns::ACK_PATIENCE,
};

/// Largest body: a message of 1 MiB whose every byte is escaped as `\u00xx`.
const MAX_BODY: usize = 6 * messages::MAX_TEXT_BYTES + 4096;

/// Timeout for a body.
const BODY: Duration = Duration::from_secs(30);
/// How much of what a diff leaves out is named in its headers.
const MAX_LEFT_OUT: usize = 50;
const TRUNCATED: HeaderName = HeaderName::from_static(diff_header::TRUNCATED);
const LEFT_OUT: HeaderName = HeaderName::from_static(diff_header::LEFT_OUT);

/// All routes.
pub(crate) fn router(app: SharedApp) -> Router {
    Router::new()
        .route("/events", get(events))
        .route("/messages", post(deliver))
        .route("/interrupt", post(interrupt))
        .route("/halt", post(halt))
        .route("/interrupts/{id}", post(answer))
        .route("/policy", put(set_policy))
        .route("/model-budget", put(set_model_budget))
        .route("/settings", put(set_settings))
        .route("/shutdown", post(shutdown))
        .route("/repos", get(list_repos))
        .route("/repos/{name}", put(put_repo).delete(delete_repo))
        .route("/playbook", put(put_playbook).delete(clear_playbook))
        .route("/git/status", get(git_status))
        .route("/git/diff", get(git_diff))
        .route("/git/log", get(git_log))
        .route("/git/list-branches", get(git_branches))
        .route("/git/create-branch", post(create_branch))
        .route("/git/pull", post(git_pull))
        .route("/git/synchronize", post(git_synchronize))
        .route("/git/merge-status", get(merge_status))
        .route("/git/abandon", post(git_abandon))
        .route("/git/commit", post(git_commit))
        .route("/git/push", post(git_push))
        .route("/packs/{id}", get(read_pack).delete(settle_pack))
        .route("/content", get(list_content))
        .route("/content/{*path}", get(read_content).put(write_content).delete(remove_content))
        .route("/content-status", get(content_status))
        .route("/content-move", post(move_content))
        .route_layer(middleware::from_fn_with_state(app.clone(), require_token))
        .route("/health", get(health))
        .fallback(|| async { Error::NotFound("no such route".to_owned()) })
        .method_not_allowed_fallback(|| async { Error::NotFound("no such method on this route".to_owned()) })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

/// Lets a request through if it carries the run's token.
async fn require_token(State(app): State<SharedApp>, request: Request, next: Next) -> Result<Response> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Error::Unauthorized)?;
    if !app.auth.allows(token) {
        return Err(Error::Unauthorized);
    }
    Ok(next.run(request).await)
}

async fn health(State(app): State<SharedApp>) -> Json<Health> {
    let state = match () {
        () if app.ending.has_begun() => "ending",
        () if app.current.is_working() => "working",
        () => "idle",
    };
    let (session_id, log_id) = (app.attempt.spec.session_id.clone(), app.log_id.clone());
    let (run, attempt) = (app.attempt.spec.run, app.attempt.spec.attempt);
    Json(Health { version: CONTRACT_VERSION, session_id, run, attempt, log_id, state: state.to_owned() })
}

/// Does what changes something in a task of its own: a caller that goes away leaves nothing half done.
async fn in_own_task<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(|e| Error::Internal(e.to_string()))?
}

async fn events(State(app): State<SharedApp>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.read_buffer_size(4096).write_buffer_size(0).max_message_size(64 * 1024);
    upgrade.on_upgrade(|socket| async move { reader::serve(&app.readers, &app.log, &app.log_id, socket).await })
}

async fn deliver(State(app): State<SharedApp>, Body(message): Body<DeliverMessage>) -> Result<Json<Accepted>> {
    app.inbox.accept(message).await.map(Json)
}

async fn interrupt(State(app): State<SharedApp>) -> StatusCode {
    app.current.stop(Stop::Interrupted);
    StatusCode::NO_CONTENT
}

async fn halt(State(app): State<SharedApp>) -> StatusCode {
    app.current.halt();
    StatusCode::NO_CONTENT
}

async fn answer(
    State(app): State<SharedApp>,
    Text(id): Text,
    Body(given): Body<InterruptAnswer>,
) -> Result<Json<AnswerTaken>> {
    in_own_task(async move { app.permissions.answer(&id, given.answer).await }).await.map(Json)
}

async fn set_policy(State(app): State<SharedApp>, Body(policy): Body<PermissionPolicy>) -> StatusCode {
    app.permissions.set_policy(policy);
    StatusCode::NO_CONTENT
}

async fn set_model_budget(State(app): State<SharedApp>, Body(budget): Body<ModelBudget>) -> StatusCode {
    if let Some(model) = &app.attempt.model {
        model.set_budget(budget);
    }
    StatusCode::NO_CONTENT
}

async fn set_settings(State(app): State<SharedApp>, Body(settings): Body<AgentSettings>) -> StatusCode {
    app.set_settings(settings);
    StatusCode::NO_CONTENT
}

async fn shutdown(State(app): State<SharedApp>) -> StatusCode {
    let reason = "shut down by request".to_owned();
    app.ending.begin(End { code: 0, reason, stop: Stop::Terminated, ack: ACK_PATIENCE, recorded: true });
    StatusCode::ACCEPTED
}

async fn list_repos(State(app): State<SharedApp>) -> Json<Vec<RepoStatus>> {
    Json(repos::list(&app.repos).await)
}

async fn put_repo(
    State(app): State<SharedApp>,
    Text(name): Text,
    Body(spec): Body<RepoSpec>,
) -> Result<Json<RepoStatus>> {
    in_own_task(async move { repos::put(&app.repos, &name, &spec).await }).await.map(Json)
}

async fn delete_repo(State(app): State<SharedApp>, Text(name): Text) -> Result<StatusCode> {
    in_own_task(async move { repos::delete(&app.repos, &name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_playbook(State(app): State<SharedApp>, Body(wanted): Body<Playbook>) -> Result<Json<PlaybookStatus>> {
    in_own_task(async move { playbooks::put(&app.playbooks, &wanted).await }).await.map(Json)
}

async fn clear_playbook(State(app): State<SharedApp>) -> Result<StatusCode> {
    in_own_task(async move { playbooks::clear(&app.playbooks).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepoQuery {
    repo: String,
}

async fn git_status(State(app): State<SharedApp>, Parameters(query): Parameters<RepoQuery>) -> Result<Json<GitStatus>> {
    operations::status(&app.repos, &query.repo).await.map(Json)
}

async fn git_diff(
    State(app): State<SharedApp>,
    Parameters(query): Parameters<GitDiffQuery>,
) -> Result<([(HeaderName, String); 3], Vec<u8>)> {
    let diff = operations::diff(&app.repos, &query).await?;
    let more = LeftOut { path: String::new(), reason: LeftOutReason::More, submodule: None };
    let more = (diff.left_out.len() > MAX_LEFT_OUT).then_some(&more);
    let left_out = serde_json::to_string(&diff.left_out.iter().take(MAX_LEFT_OUT).chain(more).collect::<Vec<_>>());
    let left_out = left_out.map_err(|e| Error::Internal(e.to_string()))?;
    let headers = [
        // No character set: it is as exact as the files are.
        (header::CONTENT_TYPE, "text/x-diff".to_owned()),
        (TRUNCATED, diff.truncated.to_string()),
        (LEFT_OUT, utf8_percent_encode(&left_out, NON_ALPHANUMERIC).to_string()),
    ];
    Ok((headers, diff.patch))
}

async fn git_log(State(app): State<SharedApp>, Parameters(query): Parameters<GitLogQuery>) -> Result<Json<GitLog>> {
    history::log(&app.repos, query).await.map(Json)
}

async fn git_branches(
    State(app): State<SharedApp>,
    Parameters(query): Parameters<RepoQuery>,
) -> Result<Json<GitBranches>> {
    history::branches(&app.repos, &query.repo).await.map(Json)
}

async fn create_branch(
    State(app): State<SharedApp>,
    Body(request): Body<GitBranchCreate>,
) -> Result<Json<GitBranchCreated>> {
    in_own_task(async move { branches::create(&app.repos, &request).await }).await.map(Json)
}

async fn git_pull(State(app): State<SharedApp>, Body(request): Body<GitPull>) -> Result<Json<GitPulled>> {
    in_own_task(async move { pull::pull(&app.repos, &request).await }).await.map(Json)
}

async fn git_synchronize(
    State(app): State<SharedApp>,
    Body(request): Body<GitSynchronize>,
) -> Result<Json<GitSynchronized>> {
    app.permissions.may_push(&request.repo, &request.branch)?;
    in_own_task(async move { pull::synchronize(&app.repos, &request).await }).await.map(Json)
}

async fn merge_status(
    State(app): State<SharedApp>,
    Parameters(query): Parameters<GitMergeQuery>,
) -> Result<Json<GitMergeStatus>> {
    pull::merge_status(&app.repos, &query).await.map(Json)
}

async fn git_abandon(State(app): State<SharedApp>, Body(request): Body<GitAbandon>) -> Result<Json<GitAbandoned>> {
    in_own_task(async move { abandon::abandon(&app.repos, &request).await }).await.map(Json)
}

async fn git_commit(State(app): State<SharedApp>, Body(request): Body<GitCommit>) -> Result<Json<GitCommitted>> {
    in_own_task(async move { operations::commit(&app.repos, &request).await }).await.map(Json)
}

async fn git_push(State(app): State<SharedApp>, Body(request): Body<GitPush>) -> Result<Json<GitPushed>> {
    app.permissions.may_push(&request.repo, &request.branch)?;
    in_own_task(async move { push::push(&app.repos, &request).await }).await.map(Json)
}

async fn read_pack(State(app): State<SharedApp>, Text(id): Text) -> Result<Response> {
    packs::read(&app.repos, &id).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettleQuery {
    end: PackEnd,
}

async fn settle_pack(
    State(app): State<SharedApp>,
    Text(id): Text,
    Parameters(query): Parameters<SettleQuery>,
) -> Result<StatusCode> {
    packs::settle(&app.repos, &id, query.end)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathQuery {
    #[serde(default)]
    path: String,
}

async fn list_content(State(app): State<SharedApp>, Parameters(query): Parameters<PathQuery>) -> Result<Json<Listing>> {
    content::list(app, query.path).await.map(Json)
}

async fn read_content(State(app): State<SharedApp>, headers: HeaderMap, Text(path): Text) -> Result<Response> {
    content::read(app, path, &headers).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    #[serde(default)]
    path: String,
    #[serde(default)]
    sha256: bool,
}

async fn content_status(
    State(app): State<SharedApp>,
    Parameters(query): Parameters<StatusQuery>,
) -> Result<Json<FileStatus>> {
    content::status(app, query.path, query.sha256).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteQuery {
    #[serde(default)]
    parents: bool,
    executable: Option<bool>,
}

async fn write_content(
    State(app): State<SharedApp>,
    Text(path): Text,
    Parameters(WriteQuery { parents, executable }): Parameters<WriteQuery>,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<(StatusCode, Json<FileStatus>)> {
    let how = changes::Write { parents, executable, condition: condition(&headers)? };
    let (created, status) = in_own_task(changes::write(app, path, how, body)).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(status)))
}

/// `If-None-Match: *`, or `If-Match` with `*` or the SHA-256 of the content, as an entity tag.
fn condition(headers: &HeaderMap) -> Result<Condition> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::None),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tags), None) => {
            Ok(Condition::Content(tags.split(',').map(|tag| tag.trim().trim_matches('"').to_owned()).collect()))
        }
        (None, Some(_)) => Err(Error::bad("If-None-Match", "must be *")),
        (Some(_), Some(_)) => Err(Error::bad("If-None-Match", "excludes If-Match")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    #[serde(default)]
    recursive: bool,
}

async fn remove_content(
    State(app): State<SharedApp>,
    Text(path): Text,
    Parameters(query): Parameters<RemoveQuery>,
) -> Result<StatusCode> {
    in_own_task(changes::remove(app, path, query.recursive)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn move_content(State(app): State<SharedApp>, Body(request): Body<FileMove>) -> Result<Json<FileStatus>> {
    in_own_task(changes::relocate(app, request)).await.map(Json)
}

/// A JSON body; its faults become our own errors.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let bytes = tokio::time::timeout(BODY, Bytes::from_request(request, state)).await;
        let bytes = bytes.map_err(|_| Error::bad("body", format!("did not arrive within {} s", BODY.as_secs())))?;
        let bytes = bytes.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Error::TooLarge(format!("the body is larger than {MAX_BODY} bytes"))
            }
            other => Error::bad("body", other.to_string()),
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| bad_json("body", &e.to_string()))
    }
}

/// Query parameters; their faults become our own errors.
struct Parameters<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> axum::extract::FromRequestParts<S> for Parameters<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|rejection| bad_json("query", &rejection.body_text()))
    }
}

/// The one path parameter, which must be UTF-8.
struct Text(String);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Text {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|rejection| Error::bad("path", rejection.body_text()))
    }
}

/// Names the field if the parser did ("unknown field `x`", "missing field `x`").
fn bad_json(whole: &str, reason: &str) -> Error {
    let named = reason.contains("unknown field `") || reason.contains("missing field `");
    let field = reason.split('`').nth(1).filter(|_| named).unwrap_or(whole);
    Error::bad(field, reason)
}
