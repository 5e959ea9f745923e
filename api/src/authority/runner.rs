//! Requests to a session's runner: it serves the workspace while it is alive, and looking never starts a session.

use ambient_compute::ComputeError;
use ambient_domain::session::{Phase, Session};
use ambient_live::{FileContent, GitDiff, NewFile, RunnerClient};
use ambient_wire::{
    BASE,
    content::{FileMove, FileStatus, Listing},
    git::{GitCommit, GitCommitted, GitDiffQuery, GitPush, GitPushed, GitStatus},
    git_history::{GitBranchCreate, GitBranchCreated, GitBranches, GitLog, GitLogQuery},
    git_merge::{
        GitAbandon, GitAbandoned, GitMergeQuery, GitMergeStatus, GitPull, GitPulled, GitSynchronize, GitSynchronized,
    },
};

use super::{
    access::Authorized,
    retention::on,
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

    /// What is known about something in the workspace.
    pub(crate) async fn file_status(&self, path: &str, with_hash: bool) -> ApiResult<FileStatus> {
        Ok(self.runner().await?.file_status(path, with_hash).await?)
    }

    /// What has changed in a repository.
    pub(crate) async fn git_status(&self, repo: Option<String>) -> ApiResult<GitStatus> {
        let repo = self.repo(repo)?;
        Ok(self.runner().await?.git_status(&repo).await?)
    }

    /// Unified diff of a repository.
    pub(crate) async fn git_diff(&self, query: GitDiffQuery) -> ApiResult<GitDiff> {
        let repo = Some(self.repo(query.repo)?);
        Ok(self.runner().await?.git_diff(&GitDiffQuery { repo, ..query }).await?)
    }

    /// A page of a repository's commits.
    pub(crate) async fn git_log(&self, query: GitLogQuery) -> ApiResult<GitLog> {
        let repo = Some(self.repo(query.repo)?);
        Ok(self.runner().await?.git_log(&GitLogQuery { repo, ..query }).await?)
    }

    /// Branches of a repository and of its origin.
    pub(crate) async fn git_branches(&self, repo: Option<String>) -> ApiResult<GitBranches> {
        let repo = self.repo(repo)?;
        Ok(self.runner().await?.git_branches(&repo).await?)
    }

    /// What merging the origin's branch would come to.
    pub(crate) async fn merge_status(&self, query: GitMergeQuery) -> ApiResult<GitMergeStatus> {
        query.branch.as_deref().map_or(Ok(()), |branch| crate::given::branch("branch", branch))?;
        let repo = Some(self.repo(query.repo)?);
        Ok(self.runner().await?.merge_status(&GitMergeQuery { repo, ..query }).await?)
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

    /// Whether its workspace can be used.
    pub(crate) async fn check_running(&self) -> ApiResult<()> {
        self.runner().await.map(drop)
    }

    async fn runner(&self) -> ApiResult<RunnerClient> {
        let session = &self.target;
        let Some(run) = session.run_with_valid_tokens().map(|run| run.number) else {
            return Err(self.not_running().await);
        };
        let parts = self.access.state.parts();
        let endpoint = match parts.compute.endpoint(&self.reference(), run).await {
            Err(ComputeError::NoRunner { .. }) => return Err(self.not_running().await),
            endpoint => endpoint?,
        };
        Ok(RunnerClient::new(endpoint.socket, parts.tokens.server_to_runner(&session.id, run))?)
    }

    /// Why there is no workspace to look at.
    async fn not_running(&self) -> ApiError {
        let session = &self.target;
        match self.workspace_removed_at().await {
            Ok(Some(at)) => {
                let (when, start) = (on(at), start_of(session));
                let reason = format!(
                    "the Session's workspace was {when}; {start} makes a new one and clones its repositories again. What its turns have changed \
                     is kept in the snapshot store: turns/{{id}}/diff and turns/{{id}}/file"
                );
                ApiError::new(Number::Conflict, reason)
            }
            Ok(None) => not_running(session),
            Err(error) => error,
        }
    }
}

impl Authorized<Session, Edit> {
    /// Ends what the agent is doing; nothing if it does nothing.
    pub(crate) async fn interrupt_turn(&self) -> ApiResult<()> {
        Ok(self.runner().await?.interrupt().await?)
    }

    /// Writes a file in the workspace; whether it is new, and what it is now.
    pub(crate) async fn write_file(&self, path: &str, file: NewFile) -> ApiResult<(bool, FileStatus)> {
        Ok(self.runner().await?.write(path, file).await?)
    }

    /// Removes a file or directory of the workspace.
    pub(crate) async fn remove_file(&self, path: &str, recursive: bool) -> ApiResult<()> {
        Ok(self.runner().await?.remove_file(path, recursive).await?)
    }

    /// Moves a file or directory of the workspace.
    pub(crate) async fn move_file(&self, request: &FileMove) -> ApiResult<FileStatus> {
        Ok(self.runner().await?.move_file(request).await?)
    }

    /// Commits all changes of a repository.
    pub(crate) async fn git_commit(&self, commit: &GitCommit) -> ApiResult<GitCommitted> {
        Ok(self.runner().await?.git_commit(commit).await?)
    }

    /// Makes a branch in a repository.
    pub(crate) async fn create_branch(&self, branch: &GitBranchCreate) -> ApiResult<GitBranchCreated> {
        crate::given::branch("name", &branch.name)?;
        Ok(self.runner().await?.create_branch(branch).await?)
    }

    /// Takes over commits of the origin.
    pub(crate) async fn git_pull(&self, pull: &GitPull) -> ApiResult<GitPulled> {
        pull.branch.as_deref().map_or(Ok(()), |branch| crate::given::branch("branch", branch))?;
        Ok(self.runner().await?.git_pull(pull).await?)
    }

    /// Pulls and pushes.
    pub(crate) async fn git_synchronize(&self, request: &GitSynchronize) -> ApiResult<GitSynchronized> {
        crate::given::branch("branch", &request.branch)?;
        Ok(self.runner().await?.git_synchronize(request).await?)
    }

    /// Goes back to the commit that was cloned.
    pub(crate) async fn git_abandon(&self, request: &GitAbandon) -> ApiResult<GitAbandoned> {
        Ok(self.runner().await?.git_abandon(request).await?)
    }

    /// Pushes to a branch of the origin.
    pub(crate) async fn git_push(&self, push: &GitPush) -> ApiResult<GitPushed> {
        crate::given::branch("branch", &push.branch)?;
        Ok(self.runner().await?.git_push(push).await?)
    }
}

fn start_of(session: &Session) -> String {
    format!("POST {BASE}/sessions/{}/start", session.id)
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
            let start = start_of(session);
            let reason =
                format!("the Session is {phase}: its workspace can be used while it is Running; start it with {start}");
            ApiError::new(Number::Conflict, reason)
        }
    }
}
