//! Status, diff and commit, and the pushes at the end of a turn.

use std::{path::PathBuf, time::Duration};

use ambient_wire::runner::{GitCommit, GitCommitted, GitFile, GitPush, GitStatus, custom};
use serde_json::{Value, json};

use super::{
    command::{Git, GitError},
    push, repos,
    snapshot::TemporaryIndex,
};
use crate::{
    agent::event,
    app::App,
    error::{Error, Result},
};

const MAX_MESSAGE: usize = 64 * 1024;
const MAX_FILES: usize = 10_000;
/// What git calls the tree of nothing.
pub(super) const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// `GET /git/status`.
///
/// # Errors
/// Not found; git's.
pub(crate) async fn status(app: &App, repo: &str) -> Result<GitStatus> {
    let (directory, known) = app.repos.directory(app, repo)?;
    let (branch, head) = repos::position(app, &directory).await?;
    let listed = ["status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignore-submodules=all"];
    let files = changed_files(&Git::agents(app, &directory).run(&listed).await?);
    let ahead = match (&head, &known.base) {
        (None, _) => 0,
        (Some(_), None) => count(app, &directory, "HEAD").await?,
        (Some(_), Some(base)) => count(app, &directory, &format!("{base}..HEAD")).await?,
    };
    Ok(GitStatus { repo: repo.to_owned(), branch, head, ahead, files })
}

async fn count(app: &App, directory: &PathBuf, range: &str) -> Result<u64> {
    let text = Git::agents(app, directory).maybe(&["rev-list", "--count", "--end-of-options", range, "--"]).await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn changed_files(porcelain: &[u8]) -> Vec<GitFile> {
    let mut files = Vec::new();
    let mut entries = porcelain.split(|byte| *byte == 0).filter(|entry| entry.len() > 3);
    while let Some(entry) = entries.next() {
        let status = String::from_utf8_lossy(&entry[..2]).into_owned();
        if status.contains(['R', 'C']) {
            // The next entry is the old name.
            entries.next();
        }
        if files.len() < MAX_FILES {
            files.push(GitFile { path: String::from_utf8_lossy(&entry[3..]).into_owned(), status });
        }
    }
    files
}

/// `GET /git/diff`: from `base` to the working tree, new files included.
///
/// # Errors
/// Bad input; not found; too large; git's.
pub(crate) async fn diff(app: &App, repo: &str, base: Option<&str>) -> Result<Vec<u8>> {
    let (directory, known) = app.repos.directory(app, repo)?;
    let from = match base {
        None => known.base.unwrap_or_else(|| EMPTY_TREE.to_owned()),
        Some(base) => {
            if base.is_empty() || base.len() > 255 || base.starts_with('-') || base.contains(['\0', '\n']) {
                return Err(Error::bad("base", "is not a commit"));
            }
            let name = format!("{base}^{{commit}}");
            let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &name];
            let commit = Git::agents(app, &directory).maybe(&arguments).await?;
            commit.ok_or_else(|| Error::bad("base", format!("the repository has no commit '{base}'")))?
        }
    };
    let index = TemporaryIndex::of_working_tree(app, &directory, Duration::from_secs(60)).await?;
    let arguments = ["diff", "--cached", "--no-ext-diff", "--no-textconv", "--no-color", &from, "--"];
    Ok(Git::agents(app, &directory).variable("GIT_INDEX_FILE", &index.path).run(&arguments).await?)
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
    Git::agents(app, &directory).run(&["add", "--all"]).await?;
    let staged = Git::agents(app, &directory).run(&["diff", "--cached", "--quiet", "--no-ext-diff"]).await;
    match staged {
        Ok(_) => return Ok(GitCommitted { commit: None }),
        Err(GitError::Failed { code: 1, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let arguments = ["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--cleanup=strip", "--file=-"];
    Git::agents(app, &directory).input(request.message.as_str()).run(&arguments).await?;
    Ok(GitCommitted { commit: Some(Git::agents(app, &directory).text(&["rev-parse", "HEAD"]).await?) })
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
