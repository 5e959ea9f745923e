//! Requests to a session's runner: it serves the workspace while it is alive, and looking never starts a session.

use ambient_compute::ComputeError;
use ambient_domain::session::{Phase, Session};
use ambient_live::{FileContent, GitDiff, RunnerClient};
use ambient_wire::{
    BASE,
    content::Listing,
    git::{GitCommit, GitCommitted, GitPush, GitPushed, GitStatus},
};

use super::{
    access::Authorized,
    right::{Edit, Right},
};
use crate::error::{ApiError, ApiResult, Number};

impl<R: Right> Authorized<Session, R> {
    /// Entries of a directory in the workspace.
    pub(crate) async fn list_directory(&self, path: &str) -> ApiResult<Listing> {
        Ok(self.runner().await?.list(path).await?)
    }

    /// A file in the workspace, or a part of it.
    pub(crate) async fn read_file(&self, path: &str, range: Option<&str>) -> ApiResult<FileContent> {
        Ok(self.runner().await?.read(path, range).await?)
    }

    /// What has changed in a repository.
    pub(crate) async fn git_status(&self, repo: Option<String>) -> ApiResult<GitStatus> {
        let repo = self.repo(repo)?;
        Ok(self.runner().await?.git_status(&repo).await?)
    }

    /// Unified diff of a repository.
    pub(crate) async fn git_diff(&self, repo: Option<String>, base: Option<&str>) -> ApiResult<GitDiff> {
        let repo = self.repo(repo)?;
        Ok(self.runner().await?.git_diff(&repo, base).await?)
    }

    /// The named repository, or the only one there is.
    fn repo(&self, given: Option<String>) -> ApiResult<String> {
        let names: Vec<&str> = self.target.spec.repos.iter().map(|repo| repo.name.as_str()).collect();
        match (given, names.as_slice()) {
            (Some(name), _) => Ok(name),
            (None, [only]) => Ok((*only).to_owned()),
            (None, []) => Err(ApiError::new(Number::NotFound, "the Session has no repository")),
            (None, several) => {
                let problem = format!("is required; there are {}", several.join(", "));
                Err(ApiError::new(Number::Conflict, format!("repo: {problem}")).at("repo", problem))
            }
        }
    }

    async fn runner(&self) -> ApiResult<RunnerClient> {
        let session = &self.target;
        let Some(run) = session.run_with_valid_tokens().map(|run| run.number) else { return Err(not_running(session)) };
        let parts = self.access.state.parts();
        let endpoint = match parts.compute.endpoint(&self.reference(), run).await {
            Err(ComputeError::NoRunner { .. }) => return Err(not_running(session)),
            endpoint => endpoint?,
        };
        Ok(RunnerClient::new(endpoint.socket, parts.tokens.server_to_runner(&session.id, run))?)
    }
}

impl Authorized<Session, Edit> {
    /// Commits all changes of a repository.
    pub(crate) async fn git_commit(&self, commit: &GitCommit) -> ApiResult<GitCommitted> {
        Ok(self.runner().await?.git_commit(commit).await?)
    }

    /// Pushes to a branch of the origin.
    pub(crate) async fn git_push(&self, push: &GitPush) -> ApiResult<GitPushed> {
        crate::given::branch("branch", &push.branch)?;
        Ok(self.runner().await?.git_push(push).await?)
    }
}

fn not_running(session: &Session) -> ApiError {
    match session.phase() {
        Some(phase @ (Phase::Pending | Phase::Creating)) => ApiError::new(
            Number::Conflict,
            format!("the Session is {phase}: its workspace can be used once it is Running"),
        )
        .retry(1),
        phase => {
            let phase = phase.map_or_else(|| "New".to_owned(), |phase| phase.to_string());
            let start = format!("POST {BASE}/sessions/{}/start", session.id);
            let reason =
                format!("the Session is {phase}: its workspace can be used while it is Running; start it with {start}");
            ApiError::new(Number::Conflict, reason)
        }
    }
}
