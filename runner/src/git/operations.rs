//! Status, diff, commit and push.

use std::{path::PathBuf, time::Duration};

use ambient_wire::runner::{GitCommit, GitCommitted, GitFile, GitPush, GitPushed, GitStatus, custom};
use serde_json::{Value, json};

use super::{
    check_branch,
    command::{Git, GitError},
    origin, repos,
    snapshot::TemporaryIndex,
};
use crate::{
    agent::event,
    app::App,
    error::{Error, Result},
};

const PUSH_PATIENCE: Duration = Duration::from_secs(300);
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
    let files = changed_files(&Git::new(app, &directory).run(&listed).await?);
    let ahead = match (&head, &known.base) {
        (None, _) => 0,
        (Some(_), None) => count(app, &directory, "HEAD").await?,
        (Some(_), Some(base)) => count(app, &directory, &format!("{base}..HEAD")).await?,
    };
    Ok(GitStatus { repo: repo.to_owned(), branch, head, ahead, files })
}

async fn count(app: &App, directory: &PathBuf, range: &str) -> Result<u64> {
    let text = Git::new(app, directory).maybe(&["rev-list", "--count", "--end-of-options", range, "--"]).await?;
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
            let commit = Git::new(app, &directory).maybe(&arguments).await?;
            commit.ok_or_else(|| Error::bad("base", format!("the repository has no commit '{base}'")))?
        }
    };
    let index = TemporaryIndex::of_working_tree(app, &directory, Duration::from_secs(60)).await?;
    let arguments = ["diff", "--cached", "--no-ext-diff", "--no-textconv", "--no-color", &from, "--"];
    Ok(Git::new(app, &directory).variable("GIT_INDEX_FILE", &index.path).run(&arguments).await?)
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
    Git::new(app, &directory).run(&["add", "--all"]).await?;
    let staged = Git::new(app, &directory).run(&["diff", "--cached", "--quiet", "--no-ext-diff"]).await;
    match staged {
        Ok(_) => return Ok(GitCommitted { commit: None }),
        Err(GitError::Failed { code: 1, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let arguments = ["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--cleanup=strip", "--file=-"];
    Git::new(app, &directory).input(&request.message).run(&arguments).await?;
    Ok(GitCommitted { commit: Some(Git::new(app, &directory).text(&["rev-parse", "HEAD"]).await?) })
}

/// Pushes what is to be pushed at the end of a turn that went well; the events that tell of it.
///
/// # Errors
/// In words, of the first push that failed.
pub(crate) async fn push_all(app: &App) -> std::result::Result<Vec<Value>, String> {
    let mut events = Vec::new();
    for (repo, branch) in app.repos.to_push() {
        let pushed = push(app, &GitPush { repo: repo.clone(), branch: branch.clone() }).await;
        let pushed = pushed.map_err(|e| format!("repository '{repo}' cannot be pushed to branch '{branch}': {e}"))?;
        events.push(event::custom(custom::PUSHED, json!({ "repo": repo, "branch": branch, "commit": pushed.commit })));
    }
    Ok(events)
}

/// `POST /git/push`: the checked-out commit to a branch of the origin it was cloned from; never forced.
///
/// # Errors
/// Bad input; not found; a conflict when the origin refuses; git's.
pub(crate) async fn push(app: &App, request: &GitPush) -> Result<GitPushed> {
    let (directory, known) = app.repos.directory(app, &request.repo)?;
    let branch = check_branch("branch", &request.branch)?;
    let origin = origin::check(app, &known.url)?;
    let (_, head) = repos::position(app, &directory).await?;
    let commit = head.ok_or_else(|| Error::Conflict("there is no commit to push".to_owned()))?;
    // To the recorded URL with the program named: the repository's own idea of its origin is the agent's.
    let refspec = format!("{commit}:refs/heads/{branch}");
    let pack = "--receive-pack=git-receive-pack";
    let arguments =
        ["push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags", pack, "--", &origin.url, &refspec];
    let git = Git::new(app, &directory).patience(PUSH_PATIENCE).writable(&origin.paths);
    match origin.open_to(app, &request.repo, git)?.run(&arguments).await {
        Ok(_) => Ok(GitPushed { branch: branch.to_owned(), commit }),
        Err(GitError::Failed { stderr, .. }) if stderr.contains("failed to push some refs") => {
            Err(Error::Conflict(format!("the origin refused the push: {stderr}")))
        }
        Err(error) => Err(error.into()),
    }
}
