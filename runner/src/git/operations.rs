//! Status, diff and commit, and the pushes at the end of a turn.

use std::{path::Path, time::Duration};

use ambient_wire::{
    custom,
    git::{GitCommit, GitCommitted, GitPush, GitStatus, LeftOut},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    check_object,
    command::{Git, GitError},
    patch, push, renames,
    repos::{self, Repos},
    status,
    working_tree::{Place, WorkingTree, terminated},
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    event,
};

const MAX_MESSAGE: usize = 64 * 1024;
/// Largest diff, bytes.
const MAX_DIFF: usize = 24 * 1024 * 1024;
/// A status or diff, and each git command for it: the server waits for 60 s, so a git that hangs is named before that.
const LOOK: Duration = Duration::from_secs(50);
const STEP: Duration = Duration::from_secs(40);
/// Timeout for each git command of a commit.
const COMMIT_STEP: Duration = Duration::from_secs(60);

/// `GET /git/diff`.
pub(crate) struct Diff {
    pub(crate) patch: Vec<u8>,
    /// The patch is only the start of a longer one.
    pub(crate) truncated: bool,
    pub(crate) left_out: Vec<LeftOut>,
}

/// `GET /git/status`.
///
/// # Errors
/// Not found; git's.
pub(crate) async fn status(repos: &Repos, repo: &str) -> Result<GitStatus> {
    let (directory, known) = repos.directory(repo)?;
    in_time(repo, async {
        let (branch, head) = repos::position(&repos.attempt, &directory).await?;
        let place = Place::new(&directory, &known);
        let tree = WorkingTree::outline(&repos.attempt, place, STEP).await?;
        let listed = ["status", "--porcelain=v2", "-z", "--untracked-files=all", "--ignore-submodules=dirty"];
        let listed = match renames::status(&tree, &listed).await {
            Some(paired) => paired,
            None => tree.git().run(&[&listed[..], &["--no-renames"]].concat()).await?,
        };
        let files = status::changed_files(&listed);
        let (files, truncated) = files.ok_or_else(|| Error::Git("git status gave malformed output".to_owned()))?;
        let ahead = match (&head, &known.base) {
            (None, _) => 0,
            (Some(_), None) => count(&repos.attempt, &directory, "HEAD").await?,
            (Some(_), Some(base)) => count(&repos.attempt, &directory, &format!("{base}..HEAD")).await?,
        };
        Ok(GitStatus { repo: repo.to_owned(), branch, head, ahead, files, truncated, left_out: tree.left_out.clone() })
    })
    .await
}

/// Within [`LOOK`], after which the server would no longer be listening.
async fn in_time<T>(repo: &str, look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::Conflict(format!("examining repository '{repo}' takes longer than {} s", LOOK.as_secs()));
    timeout(LOOK, look).await.unwrap_or_else(|_| Err(late()))
}

async fn count(attempt: &Attempt, directory: &Path, range: &str) -> Result<u64> {
    let text =
        Git::repository(attempt, directory).maybe(&["rev-list", "--count", "--end-of-options", range, "--"]).await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// `GET /git/diff`: from `base` to the working tree, including new files.
///
/// # Errors
/// Bad input; not found; too large; git's.
pub(crate) async fn diff(repos: &Repos, repo: &str, base: Option<&str>) -> Result<Diff> {
    let (directory, known) = repos.directory(repo)?;
    in_time(repo, async {
        let from = match base {
            None => known.base.clone(),
            Some(base) => Some(commit_named(&repos.attempt, &directory, base).await?),
        };
        let place = Place::new(&directory, &known);
        let tree = WorkingTree::look(&repos.attempt, place, STEP).await?;
        let (patch, truncated) = patch::since(tree.git(), from.as_deref(), (&["--cached"], &[]), MAX_DIFF).await?;
        Ok(Diff { patch, truncated, left_out: tree.left_out.clone() })
    })
    .await
}

/// The single commit that is meant, by any name git accepts.
async fn commit_named(attempt: &Attempt, directory: &Path, base: &str) -> Result<String> {
    if base.is_empty() || base.chars().count() > 255 || base.starts_with('-') || base.contains(['\0', '\n']) {
        return Err(Error::bad("base", "is not a commit"));
    }
    let name = format!("{base}^{{commit}}");
    let found = Git::repository(attempt, directory)
        .text(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name])
        .await;
    match found {
        Ok(commit) if check_object(&commit).is_ok() => Ok(commit),
        Ok(_) | Err(GitError::Failed { code: 1 | 128, .. }) => {
            Err(Error::NotFound(format!("the repository has no commit '{base}'")))
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /git/commit`: everything that has changed.
///
/// # Errors
/// Bad input; not found; git's.
pub(crate) async fn commit(repos: &Repos, request: &GitCommit) -> Result<GitCommitted> {
    let (directory, known) = repos.directory(&request.repo)?;
    if request.message.trim().is_empty() || request.message.contains('\0') || request.message.len() > MAX_MESSAGE {
        return Err(Error::bad("message", format!("1 to {MAX_MESSAGE} bytes without NUL")));
    }
    let place = Place::new(&directory, &known);
    let tree = WorkingTree::whole(&repos.attempt, place, COMMIT_STEP).await?;
    let left_out = tree.left_out.clone();
    let object = tree.git().text(&["write-tree"]).await?;
    check_object(&object)?;
    let before = match &tree.head {
        Some(head) => tree.git().text(&["rev-parse", &format!("{head}^{{tree}}")]).await?,
        None => tree.git().text(&["hash-object", "-t", "tree", "/dev/null"]).await?,
    };
    if object == before {
        return Ok(GitCommitted { commit: None, left_out });
    }
    // The agent's index, whatever flags it had except those of a sparse checkout: it lets git finish what the agent has started (a merge).
    let agents = Git::repository(&repos.attempt, &directory).patience(COMMIT_STEP);
    agents.clone().run(&["read-tree", &object]).await?;
    if !tree.not_checked_out.is_empty() {
        let paths = terminated(&tree.not_checked_out);
        agents.clone().input(paths).run(&["update-index", "--skip-worktree", "-z", "--stdin"]).await?;
    }
    let arguments = ["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--cleanup=strip", "--file=-"];
    agents.clone().input(request.message.as_str()).run(&arguments).await?;
    let commit = agents.text(&["rev-parse", "HEAD"]).await?;
    Ok(GitCommitted { commit: Some(check_object(&commit)?.to_owned()), left_out })
}

/// Pushes what should be pushed at the end of a successful turn; returns the events that report it.
///
/// # Errors
/// In words, for the first push that failed.
pub(crate) async fn push_all(repos: &Repos) -> std::result::Result<Vec<Value>, String> {
    let mut events = Vec::new();
    for (repo, branch) in repos.to_push() {
        let pushed = push::push(repos, &GitPush { repo: repo.clone(), branch: branch.clone() }).await;
        let pushed = pushed.map_err(|e| format!("repository '{repo}' cannot be pushed to branch '{branch}': {e}"))?;
        let mut value = serde_json::to_value(pushed).map_err(|e| e.to_string())?;
        value["repo"] = repo.into();
        events.push(event::custom(custom::PUSHED, value));
    }
    Ok(events)
}
