//! From the origin to the workspace: commits are fetched into the mirror, as for a clone, brought together with the workspace's where nothing
//! is touched, and only then checked out, by git with the agent's rights. That does all or nothing.

use std::{collections::BTreeSet, path::Path, time::Duration};

use ambient_wire::{
    file_name::escape,
    git::GitPush,
    git_merge::{
        GitMergeQuery, GitMergeStatus, GitPull, GitPullOutcome, GitPulled, GitStrategy, GitSynchronize, GitSynchronized,
    },
};
use tokio::time::timeout;

use super::{
    check_branch,
    command::{Git, GitError, quoted},
    elsewhere::refuse_in_progress,
    known::Known,
    large_files,
    look::{in_time, named},
    merge::{Bench, Merged},
    mirror::Mirror,
    origin::{self, Origin},
    push,
    repos::{self, Repos},
    working_tree::WorkingTree,
};
use crate::error::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(240);
/// Timeout for each git command.
const STEP: Duration = Duration::from_secs(180);
/// Timeout for each git command of a look.
const LOOK_STEP: Duration = Duration::from_secs(40);
/// Most files in conflict that are told.
const MAX_CONFLICTS: usize = 1_000;

/// `POST /git/pull`.
///
/// # Errors
/// Bad input; not found; a conflict that leaves everything as it was; git's.
pub(crate) async fn pull(repos: &Repos, request: &GitPull) -> Result<GitPulled> {
    let branch = request.branch.as_deref().map(|branch| check_branch("branch", branch)).transpose()?;
    let pulled = pull_if_there(repos, &request.repo, branch, request.strategy).await?;
    pulled.map_err(|branch| Error::NotFound(format!("the origin has no branch '{branch}'")))
}

/// `POST /git/synchronize`.
///
/// # Errors
/// See [`pull`] and [`push::push`]; what was pulled stays if the push fails.
pub(crate) async fn synchronize(repos: &Repos, request: &GitSynchronize) -> Result<GitSynchronized> {
    let branch = check_branch("branch", &request.branch)?;
    push::destination(&request.repo, &repos.directory(&request.repo)?.1)?;
    let pulled = pull_if_there(repos, &request.repo, Some(branch), request.strategy).await?;
    let push = GitPush { repo: request.repo.clone(), branch: branch.to_owned() };
    let pulled = pulled.ok();
    Ok(GitSynchronized { pulled, pushed: push::push(repos, &push).await? })
}

/// `GET /git/merge-status`.
///
/// # Errors
/// Bad input; not found; git's.
pub(crate) async fn merge_status(repos: &Repos, query: &GitMergeQuery) -> Result<GitMergeStatus> {
    let repo = named("repo", query.repo.as_deref())?;
    let branch = query.branch.as_deref().map(|branch| check_branch("branch", branch)).transpose()?;
    let (directory, known) = repos.directory(repo)?;
    in_time(repo, async {
        let _one = repos.pushing.lock().await;
        let origin = origin::open(&repos.attempt, &known.url)?;
        let mirror = Mirror::ensure(&repos.attempt, repo, &origin).await?;
        let branch = branch_of(&mirror, &known, branch).await?;
        let theirs = mirror.fetch(&origin, &branch, LOOK_STEP).await?;
        let theirs = theirs.ok_or_else(|| Error::NotFound(format!("the origin has no branch '{branch}'")))?;
        let tree = WorkingTree::commits(&repos.attempt, &directory, LOOK_STEP).await?;
        let head = tree.head.clone();
        let bench = Bench::new(tree, &mirror);
        let (ahead, behind) = bench.apart(head.as_deref(), &theirs).await?;
        let files = match &head {
            Some(head) if ahead > 0 && behind > 0 => match bench.merge(head, &theirs).await? {
                Merged::Clean(_) => BTreeSet::new(),
                Merged::Conflicts(files) => files,
            },
            _ => BTreeSet::new(),
        };
        let truncated = files.len() > MAX_CONFLICTS;
        let conflicts = files.iter().take(MAX_CONFLICTS).map(|file| escape(file)).collect();
        let (repo, url) = (repo.to_owned(), origin.text.clone());
        Ok(GitMergeStatus { repo, url, branch, origin: theirs, head, ahead, behind, conflicts, truncated })
    })
    .await
}

/// The origin's branch that is meant: by default the one that was cloned.
async fn branch_of(mirror: &Mirror<'_>, known: &Known, branch: Option<&str>) -> Result<String> {
    if let Some(branch) = branch.or(known.branch.as_deref()) {
        return Ok(branch.to_owned());
    }
    let head = ["symbolic-ref", "--quiet", "--short", "HEAD"];
    let head = mirror.git(false, Vec::new()).maybe(&head).await?;
    head.ok_or_else(|| Error::bad("branch", "must be named: the origin has no default branch"))
}

/// The branch, if the origin does not have it.
async fn pull_if_there(
    repos: &Repos,
    repo: &str,
    branch: Option<&str>,
    strategy: GitStrategy,
) -> Result<std::result::Result<GitPulled, String>> {
    let attempt = &*repos.attempt;
    let _one = repos.pushing.lock().await;
    let (directory, known) = repos.directory(repo)?;
    // Opened again: what it was when it was cloned does not count.
    let origin = origin::open(attempt, &known.url)?;
    let work = async {
        let mirror = Mirror::ensure(attempt, repo, &origin).await?;
        let branch = branch_of(&mirror, &known, branch).await?;
        let Some(theirs) = mirror.fetch(&origin, &branch, STEP).await? else { return Ok(Err(branch)) };
        let pull = Pull { repos, directory: &directory, origin: &origin, mirror: &mirror };
        pull.carry_out(branch, &theirs, strategy).await.map(Ok)
    };
    let late = || Error::Git(format!("the pull took longer than {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(late()))
}

struct Pull<'a> {
    repos: &'a Repos,
    directory: &'a Path,
    origin: &'a Origin,
    mirror: &'a Mirror<'a>,
}

impl Pull<'_> {
    async fn carry_out(&self, branch: String, theirs: &str, strategy: GitStrategy) -> Result<GitPulled> {
        let attempt = &*self.repos.attempt;
        refuse_in_progress(attempt, self.directory).await?;
        let tree = WorkingTree::commits(attempt, self.directory, STEP).await?;
        let head = tree.head.clone();
        let bench = Bench::new(tree, self.mirror);
        let (ahead, commits) = bench.apart(head.as_deref(), theirs).await?;
        let told = |outcome, commit: &str, notices| GitPulled {
            url: self.origin.text.clone(),
            branch: branch.clone(),
            outcome,
            before: head.clone(),
            commit: commit.to_owned(),
            commits,
            notices,
        };
        if let (Some(head), 0) = (&head, commits) {
            return Ok(told(GitPullOutcome::UpToDate, head, Vec::new()));
        }
        let content = large_files::prepare(attempt, self.mirror, self.origin, Some(theirs)).await?;
        let mut notices = content.notices;
        if self.mirror.has_submodules(theirs).await? {
            notices.push("submodules stay at the commits that they are at".to_owned());
        }
        let (outcome, commit) = match (&head, strategy) {
            (Some(head), GitStrategy::Merge) if ahead > 0 => {
                let message = format!("Merge branch '{branch}' of {}\n", self.origin.text);
                let commit = bench.merge_commit(head, theirs, &message).await?;
                bench.keep(&commit, head, theirs).await?;
                (GitPullOutcome::Merged, commit)
            }
            (Some(head), GitStrategy::Rebase) if ahead > 0 => {
                let commit = bench.rebase(head, theirs).await?;
                bench.keep(&commit, head, theirs).await?;
                (GitPullOutcome::Rebased, commit)
            }
            (Some(_), GitStrategy::FastForward) if ahead > 0 => {
                let reason = format!(
                    "the workspace has {ahead} commits that branch '{branch}' of the origin lacks, which has {commits} that the \
                     workspace lacks: ask for a merge or a rebase"
                );
                return Err(Error::Conflict(reason));
            }
            _ => (GitPullOutcome::FastForward, theirs.to_owned()),
        };
        self.check_out(&commit, head.as_deref(), outcome).await?;
        // For people and their tools; no code of ours reads it.
        let reference = format!("refs/remotes/origin/{branch}");
        if let Err(error) = self.agents().run(&["update-ref", &reference, theirs]).await {
            notices.push(format!("the workspace's origin/{branch} is not up to date: {error}"));
        }
        Ok(told(outcome, &commit, notices))
    }

    fn agents(&self) -> Git<'_> {
        let objects = self.mirror.path().join("objects");
        Git::repository(&self.repos.attempt, self.directory)
            .patience(STEP)
            .variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", objects)
    }

    /// Moves the branch and the files to a commit. Changed files stay as they are; if the commit has others in their place, nothing happens.
    async fn check_out(&self, commit: &str, head: Option<&str>, outcome: GitPullOutcome) -> Result<()> {
        let done = if outcome == GitPullOutcome::Rebased {
            // What the agent has committed meanwhile must not be dropped.
            let (_, now) = repos::position(&self.repos.attempt, self.directory).await?;
            if now.as_deref() != head {
                return Err(Error::Conflict("another commit was checked out meanwhile".to_owned()));
            }
            self.agents().run(&["reset", "--quiet", "--keep", commit]).await
        } else {
            let forward = ["merge", "--ff-only", "--quiet", "--no-stat", "--no-autostash", "--no-verify-signatures"];
            self.agents().run(&[&forward[..], &[commit]].concat()).await
        };
        match done {
            Ok(_) => Ok(()),
            Err(GitError::Failed { stderr, .. }) if !stderr.is_empty() => {
                Err(Error::Conflict(format!("nothing was changed: {}", quoted(&stderr))))
            }
            Err(error) => Err(error.into()),
        }
    }
}
