//! The runner's routes, over its Unix socket (HTTP/1.1). See [`ambient_runner_protocol`].
//!
//! Every wait has a timeout and every response a maximum size: a runner is not trusted.

mod events;
mod files;

use std::{fmt, path::PathBuf, time::Duration};

use ambient_runner_protocol::{
    Accepted, AgentSettings, AnswerTaken, DeliverMessage, Health, ModelBudget, PermissionPolicy, PlaybookStatus,
    ReaderHello, RepoSpec, RepoStatus, RunnerError,
};
use ambient_wire::{
    content::{FileMove, FileStatus, Listing},
    git::{GitCommit, GitCommitted, GitDiffQuery, GitPush, GitPushed, GitStatus, diff_header},
    git_history::{GitBranchCreate, GitBranchCreated, GitBranches, GitLog, GitLogQuery},
    git_merge::{
        GitAbandon, GitAbandoned, GitMergeQuery, GitMergeStatus, GitPull, GitPulled, GitSynchronize, GitSynchronized,
    },
    permission::InterruptAnswer,
    playbook::Playbook,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

pub use ambient_runner_protocol::PackEnd;
pub use events::RunnerEvents;
pub use files::{FileContent, NewFile};

/// Most routes.
const QUICK: Duration = Duration::from_secs(15);
/// Looks at a repository, for which a runner takes at most 50 s.
const LOOK: Duration = Duration::from_secs(60);
/// Clone, commit, push, diff: git and the network take their time.
const SLOW: Duration = Duration::from_secs(600);
/// The headers of a response with a long body, and each piece of the body.
const STEP: Duration = Duration::from_secs(30);
/// Largest response held in memory, bytes.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Characters that may appear unencoded in a path segment. Everything else, `%` and `\` included, is encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a runner did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunnerClientError {
    /// It is not there, or went away; whether it carried out the request is unknown.
    #[error("the runner cannot be reached: {0}")]
    Unreachable(String),
    /// It does not accept the token.
    #[error("the runner does not accept the token")]
    Unauthorized,
    /// It refused.
    #[error("{}", error.reason)]
    Refused {
        /// Its error body.
        error: RunnerError,
        /// HTTP status.
        status: u16,
    },
    /// It responded in a way that is not in the contract.
    #[error("unexpected response from the runner: {0}")]
    Protocol(String),
    /// It took too long; whether it carried out the request is unknown.
    #[error("the runner did not answer within {0:?}")]
    Timeout(Duration),
}

type Result<T> = std::result::Result<T, RunnerClientError>;

/// A diff of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitDiff {
    /// Unified diff.
    pub patch: Vec<u8>,
    /// It is only the start of a longer one.
    pub truncated: bool,
    /// What it does not show, as in [`diff_header::LEFT_OUT`].
    pub left_out: String,
}

/// Talks to one runner. Clones share its connections.
#[derive(Clone)]
pub struct RunnerClient {
    http: Client,
    socket: PathBuf,
    token: String,
}

impl fmt::Debug for RunnerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerClient").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl RunnerClient {
    /// For the runner that listens on `socket`, with the run's server-to-runner token. Connects on the first request.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(socket: impl Into<PathBuf>, token: impl Into<String>) -> Result<Self> {
        let (socket, token) = (socket.into(), token.into());
        let http = Client::builder()
            .unix_socket(socket.clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(4)
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| RunnerClientError::Protocol(e.to_string()))?;
        Ok(Self { http, socket, token })
    }

    /// Its health. Needs no token.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn health(&self) -> Result<Health> {
        self.json(self.request(Method::GET, "/health", &[]), Duration::from_secs(5)).await
    }

    /// Opens the event log after the hello's cursor.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn events(&self, hello: &ReaderHello) -> Result<RunnerEvents> {
        RunnerEvents::connect(&self.socket, &self.token, hello).await
    }

    /// Delivers a message; durably recorded when this returns. May be repeated.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn deliver(&self, message: &DeliverMessage) -> Result<Accepted> {
        self.json(self.request(Method::POST, "/messages", &[]).json(message), STEP).await
    }

    /// Hands over an answer to a permission request; durably recorded when this returns. May be repeated: the agent gets one answer.
    ///
    /// # Errors
    /// See [`RunnerClientError`]; status 404 if there was no such request.
    pub async fn answer_request(&self, interrupt_id: &str, answer: &InterruptAnswer) -> Result<AnswerTaken> {
        let request = self.request(Method::POST, &route("/interrupts/", interrupt_id)?, &[]);
        self.json(request.json(answer), STEP).await
    }

    /// What the agent may do without asking from now on.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn set_policy(&self, policy: &PermissionPolicy) -> Result<()> {
        self.nothing(self.request(Method::PUT, "/policy", &[]).json(policy), QUICK).await
    }

    /// How much of models the run may use from now on.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn set_model_budget(&self, budget: &ModelBudget) -> Result<()> {
        self.nothing(self.request(Method::PUT, "/model-budget", &[]).json(budget), QUICK).await
    }

    /// Replaces the agent's settings, as far as it can change them while it runs.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn set_settings(&self, settings: &AgentSettings) -> Result<()> {
        self.nothing(self.request(Method::PUT, "/settings", &[]).json(settings), QUICK).await
    }

    /// Ends the current turn; the next message's begins.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn interrupt(&self) -> Result<()> {
        self.nothing(self.request(Method::POST, "/interrupt", &[]), QUICK).await
    }

    /// Ends the current turn; no other begins.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn halt(&self) -> Result<()> {
        self.nothing(self.request(Method::POST, "/halt", &[]), QUICK).await
    }

    /// Asks it to shut down.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn shutdown(&self) -> Result<()> {
        self.nothing(self.request(Method::POST, "/shutdown", &[]), QUICK).await
    }

    /// Repositories it has.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn repos(&self) -> Result<Vec<RepoStatus>> {
        self.json(self.request(Method::GET, "/repos", &[]), QUICK).await
    }

    /// Clones a repository unless it is there. May be repeated.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn ensure_repo(&self, name: &str, repo: &RepoSpec) -> Result<RepoStatus> {
        self.json(self.request(Method::PUT, &route("/repos/", name)?, &[]).json(repo), SLOW).await
    }

    /// Removes a repository; succeeds if it is not there.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn remove_repo(&self, name: &str) -> Result<()> {
        self.nothing(self.request(Method::DELETE, &route("/repos/", name)?, &[]), SLOW).await
    }

    /// Has the agent go by a playbook, from its next turn on. May be repeated.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn ensure_playbook(&self, playbook: &Playbook) -> Result<PlaybookStatus> {
        self.json(self.request(Method::PUT, "/playbook", &[]).json(playbook), SLOW).await
    }

    /// Ends the effect of a playbook; succeeds if there is none.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn clear_playbook(&self) -> Result<()> {
        self.nothing(self.request(Method::DELETE, "/playbook", &[]), SLOW).await
    }

    /// What has changed in a repository.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_status(&self, repo: &str) -> Result<GitStatus> {
        self.json(self.request(Method::GET, "/git/status", &[("repo", repo)]), LOOK).await
    }

    /// A page of commits.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_log(&self, query: &GitLogQuery) -> Result<GitLog> {
        self.json(self.request(Method::GET, "/git/log", &[]).query(query), LOOK).await
    }

    /// Branches of a repository and of its origin.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_branches(&self, repo: &str) -> Result<GitBranches> {
        self.json(self.request(Method::GET, "/git/list-branches", &[("repo", repo)]), LOOK).await
    }

    /// Makes a branch.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn create_branch(&self, branch: &GitBranchCreate) -> Result<GitBranchCreated> {
        self.json(self.request(Method::POST, "/git/create-branch", &[]).json(branch), SLOW).await
    }

    /// Unified diff. Not always UTF-8.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_diff(&self, query: &GitDiffQuery) -> Result<GitDiff> {
        let request = self.request(Method::GET, "/git/diff", &[]).query(query);
        let diff = async {
            let response = self.answer(request).await?;
            let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let truncated = match text(diff_header::TRUNCATED) {
                Some("true") => true,
                Some("false") => false,
                _ => {
                    return Err(RunnerClientError::Protocol(
                        "a diff that does not say whether it is complete".to_owned(),
                    ));
                }
            };
            let left_out = text(diff_header::LEFT_OUT).unwrap_or_default().to_owned();
            Ok(GitDiff { truncated, left_out, patch: collect(response).await? })
        };
        within(SLOW, diff).await
    }

    /// Commits all changes of a repository.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_commit(&self, commit: &GitCommit) -> Result<GitCommitted> {
        self.json(self.request(Method::POST, "/git/commit", &[]).json(commit), SLOW).await
    }

    /// Pushes to a branch of the origin.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_push(&self, push: &GitPush) -> Result<GitPushed> {
        self.json(self.request(Method::POST, "/git/push", &[]).json(push), SLOW).await
    }

    /// Takes over commits of the origin.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_pull(&self, pull: &GitPull) -> Result<GitPulled> {
        self.json(self.request(Method::POST, "/git/pull", &[]).json(pull), SLOW).await
    }

    /// Pulls and pushes.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_synchronize(&self, request: &GitSynchronize) -> Result<GitSynchronized> {
        self.json(self.request(Method::POST, "/git/synchronize", &[]).json(request), SLOW).await
    }

    /// What merging the origin's branch would come to.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn merge_status(&self, query: &GitMergeQuery) -> Result<GitMergeStatus> {
        self.json(self.request(Method::GET, "/git/merge-status", &[]).query(query), LOOK).await
    }

    /// Goes back to the commit that was cloned.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn git_abandon(&self, request: &GitAbandon) -> Result<GitAbandoned> {
        self.json(self.request(Method::POST, "/git/abandon", &[]).json(request), SLOW).await
    }

    /// A pack of a snapshot that waits to be stored.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn pack(&self, id: &str) -> Result<FileContent> {
        let request = self.request(Method::GET, &route("/packs/", id)?, &[]);
        FileContent::of(within(STEP, self.answer(request)).await?, STEP)
    }

    /// A pack is stored, or is not going to be: the runner need not keep it. Succeeds if it is gone.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn settle_pack(&self, id: &str, end: PackEnd) -> Result<()> {
        let end = match end {
            PackEnd::Stored => "stored",
            PackEnd::NotStored => "not_stored",
            PackEnd::Anew => "anew",
        };
        let query = [("end", end)];
        self.nothing(self.request(Method::DELETE, &route("/packs/", id)?, &query), QUICK).await
    }

    /// Lists a directory of the workspace; empty = its root.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn list(&self, path: &str) -> Result<Listing> {
        self.json(self.request(Method::GET, "/content", &[("path", path)]), STEP).await
    }

    /// Reads a file of the workspace, or the part of it that a `Range` header names.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn read(&self, path: &str, range: Option<&str>) -> Result<FileContent> {
        let mut request = self.request(Method::GET, &route("/content/", path)?, &[]);
        if let Some(range) = range {
            request = request.header(reqwest::header::RANGE, range);
        }
        FileContent::of(within(STEP, self.answer(request)).await?, STEP)
    }

    /// What is known about something in the workspace; empty = the workspace itself.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn file_status(&self, path: &str, with_hash: bool) -> Result<FileStatus> {
        let query = [("path", path), ("sha256", if with_hash { "true" } else { "false" })];
        self.json(self.request(Method::GET, "/content-status", &query), STEP).await
    }

    /// Writes a file; whether it is new, and what it is now.
    ///
    /// # Errors
    /// See [`RunnerClientError`]; status 412 if a condition does not hold.
    pub async fn write(&self, path: &str, file: NewFile) -> Result<(bool, FileStatus)> {
        let query = file.query();
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let request = file.fill(self.request(Method::PUT, &route("/content/", path)?, &query));
        let written = async {
            let response = self.answer(request).await?;
            let created = response.status() == StatusCode::CREATED;
            Ok((created, decode(&collect(response).await?)?))
        };
        within(SLOW, written).await
    }

    /// Removes a file, or a directory with everything in it.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn remove_file(&self, path: &str, recursive: bool) -> Result<()> {
        let query = [("recursive", if recursive { "true" } else { "false" })];
        self.nothing(self.request(Method::DELETE, &route("/content/", path)?, &query), SLOW).await
    }

    /// Moves a file or directory.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn move_file(&self, request: &FileMove) -> Result<FileStatus> {
        self.json(self.request(Method::POST, "/content-move", &[]).json(request), SLOW).await
    }

    fn request(&self, method: Method, route: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let request = self.http.request(method, format!("http://runner{route}")).bearer_auth(&self.token);
        if query.is_empty() { request } else { request.query(query) }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder, limit: Duration) -> Result<T> {
        decode(&self.bytes(request, limit).await?)
    }

    async fn nothing(&self, request: RequestBuilder, limit: Duration) -> Result<()> {
        self.bytes(request, limit).await.map(|_| ())
    }

    async fn bytes(&self, request: RequestBuilder, limit: Duration) -> Result<Vec<u8>> {
        within(limit, async { collect(self.answer(request).await?).await }).await
    }

    /// The response, if it is a success.
    async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(RunnerClientError::Unauthorized);
        }
        let body = collect(response).await?;
        match serde_json::from_slice::<RunnerError>(&body) {
            Ok(error) => Err(RunnerClientError::Refused { error, status: status.as_u16() }),
            Err(_) => Err(RunnerClientError::Protocol(format!("status {status} without a reason"))),
        }
    }
}

/// A route with a name or path from the caller. URLs resolve `.` and `..`, even encoded ones: such a path would lead to
/// another route, so it is never sent.
fn route(prefix: &str, path: &str) -> Result<String> {
    let refuse = |reason: &str| {
        let error =
            RunnerError { code: "bad_input".to_owned(), reason: reason.to_owned(), field: Some("path".to_owned()) };
        Err(RunnerClientError::Refused { error, status: 400 })
    };
    if path.is_empty() {
        return refuse("must not be empty");
    }
    if path.starts_with('/') {
        return refuse("must be relative to the workspace");
    }
    if path.split('/').any(|part| part == "..") {
        return refuse("must not contain '..'");
    }
    let parts = path.split('/').filter(|part| !matches!(*part, "." | ""));
    let encoded: Vec<String> = parts.map(|part| utf8_percent_encode(part, SEGMENT).to_string()).collect();
    Ok(format!("{prefix}{}", encoded.join("/")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| RunnerClientError::Protocol(e.to_string()))
}

async fn collect(mut response: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(RunnerClientError::Protocol(format!("an answer of more than {MAX_ANSWER} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(RunnerClientError::Timeout(limit)),
    }
}

/// The innermost cause says what is wrong ("Connection refused"); the others only that there was a request.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreachable(error: reqwest::Error) -> RunnerClientError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    RunnerClientError::Unreachable(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leads_to_another_route() {
        assert_eq!(
            route("/content/", "src/ä b?#%2e%2e\\x.rs").unwrap(),
            "/content/src/%C3%A4%20b%3F%23%252e%252e%5Cx.rs"
        );
        assert_eq!(route("/content/", "./a//b/").unwrap(), "/content/a/b");
        for path in ["../health", "a/../../health", "..", "", "/etc/passwd"] {
            let refused = route("/content/", path);
            assert!(matches!(refused, Err(RunnerClientError::Refused { status: 400, .. })), "{path}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let client = RunnerClient::new("/run/s", "secret").unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }
}
