//! Status, diff and commit, and the pushes at the end of a turn.

use std::{path::Path, time::Duration};

use ambient_wire::runner::{GitCommit, GitCommitted, GitPush, GitStatus, LeftOut, custom};
use serde_json::{Value, json};

use super::{
    check_object,
    command::{Git, GitError},
    patch, push, repos, status,
    working_tree::{self, WorkingTree},
};
use crate::{
    agent::event,
    app::App,
    error::{Error, Result},
};

const MAX_MESSAGE: usize = 64 * 1024;
/// Largest diff, bytes.
const MAX_DIFF: usize = 24 * 1024 * 1024;

/// `GET /git/diff`.
pub(crate) struct Diff {
    pub(crate) patch: Vec<u8>,
    /// The patch is the beginning of a longer one.
    pub(crate) truncated: bool,
    pub(crate) left_out: Vec<LeftOut>,
}

/// `GET /git/status`.
///
/// # Errors
/// Not found; git's.
pub(crate) async fn status(app: &App, repo: &str) -> Result<GitStatus> {
    let (directory, known) = app.repos.directory(app, repo)?;
    let (branch, head) = repos::position(app, &directory).await?;
    let git = Git::agents(app, &directory);
    let listed = ["status", "--porcelain=v2", "-z", "--untracked-files=all", "--ignore-submodules=all"];
    let files = status::changed_files(&git.clone().run(&listed).await?);
    let (files, truncated) = files.ok_or_else(|| Error::Git("git status said what is no status".to_owned()))?;
    let left_out = working_tree::passed_over(&git, app, &directory).await?;
    let ahead = match (&head, &known.base) {
        (None, _) => 0,
        (Some(_), None) => count(app, &directory, "HEAD").await?,
        (Some(_), Some(base)) => count(app, &directory, &format!("{base}..HEAD")).await?,
    };
    Ok(GitStatus { repo: repo.to_owned(), branch, head, ahead, files, truncated, left_out })
}

async fn count(app: &App, directory: &Path, range: &str) -> Result<u64> {
    let text = Git::agents(app, directory).maybe(&["rev-list", "--count", "--end-of-options", range, "--"]).await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// `GET /git/diff`: from `base` to the working tree, new files included.
///
/// # Errors
/// Bad input; not found; too large; git's.
pub(crate) async fn diff(app: &App, repo: &str, base: Option<&str>) -> Result<Diff> {
    let (directory, known) = app.repos.directory(app, repo)?;
    let from = match base {
        None => known.base,
        Some(base) => Some(commit_named(app, &directory, base).await?),
    };
    let tree = WorkingTree::look(app, &directory, Duration::from_secs(60)).await?;
    let (patch, truncated) = patch::since(tree.git(), from.as_deref(), (&["--cached"], &[]), MAX_DIFF).await?;
    Ok(Diff { patch, truncated, left_out: tree.left_out.clone() })
}

/// The one commit that is meant, by whatever git takes for a name.
async fn commit_named(app: &App, directory: &Path, base: &str) -> Result<String> {
    if base.is_empty() || base.len() > 255 || base.starts_with('-') || base.contains(['\0', '\n']) {
        return Err(Error::bad("base", "is not a commit"));
    }
    let name = format!("{base}^{{commit}}");
    let found =
        Git::agents(app, directory).text(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).await;
    match found {
        Ok(commit) if check_object(&commit).is_ok() => Ok(commit),
        Ok(_) | Err(GitError::Failed { code: 1 | 128, .. }) => {
            Err(Error::bad("base", format!("the repository has no commit '{base}'")))
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /git/commit`: everything that is changed.
///
/// # Errors
/// Bad input; not found; git's.
pub(crate) async fn commit(app: &App, request: &GitCommit) -> Result<GitCommitted> {
    let (directory, _) = app.repos.directory(app, &request.repo)?;
    if request.message.trim().is_empty() || request.message.contains('\0') || request.message.len() > MAX_MESSAGE {
        return Err(Error::bad("message", format!("1 to {MAX_MESSAGE} bytes without NUL")));
    }
    let left_out = add_all(app, &directory).await?;
    let staged = Git::agents(app, &directory).run(&["diff", "--cached", "--quiet", "--no-ext-diff"]).await;
    match staged {
        Ok(_) => return Ok(GitCommitted { commit: None, left_out }),
        Err(GitError::Failed { code: 1, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let arguments = ["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--cleanup=strip", "--file=-"];
    Git::agents(app, &directory).input(request.message.as_str()).run(&arguments).await?;
    let commit = Git::agents(app, &directory).text(&["rev-parse", "HEAD"]).await?;
    Ok(GitCommitted { commit: Some(check_object(&commit)?.to_owned()), left_out })
}

/// Stages all that can be read; what cannot.
async fn add_all(app: &App, directory: &Path) -> Result<Vec<LeftOut>> {
    let git = Git::agents(app, directory);
    match git.clone().run(&["add", "--all", "--ignore-errors"]).await {
        Ok(_) => working_tree::passed_over(&git, app, directory).await,
        Err(GitError::Failed { code: 1, .. }) => working_tree::refused(&git, app, directory).await,
        Err(error) => Err(error.into()),
    }
}

/// Pushes what is to be pushed at the end of a turn that went well; the events that tell of it.
///
/// # Errors
/// In words, of the first push that failed.
pub(crate) async fn push_all(app: &App) -> std::result::Result<Vec<Value>, String> {
    let mut events = Vec::new();
    for (repo, branch) in app.repos.to_push() {
        let pushed = push::push(app, &GitPush { repo: repo.clone(), branch: branch.clone() }).await;
        let pushed = pushed.map_err(|e| format!("repository '{repo}' cannot be pushed to branch '{branch}': {e}"))?;
        let value = json!({ "repo": repo, "url": pushed.url, "branch": pushed.branch, "commit": pushed.commit });
        events.push(event::custom(custom::PUSHED, value));
    }
    Ok(events)
}
