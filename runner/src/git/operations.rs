//! Status, diff and commit.

use std::time::Duration;

use ambient_wire::git::{GitChanges, GitCommit, GitCommitted, GitDiffQuery, GitStatus, LeftOut};

use super::{
    check_object,
    command::Git,
    look::{STEP, commit_named, count, in_time, named},
    patch, renames,
    repos::{self, Repos},
    status,
    working_tree::{Place, WorkingTree, terminated},
};
use crate::{
    error::{Error, Result},
    workspace_path,
};

const MAX_MESSAGE: usize = 64 * 1024;
/// Largest diff, bytes.
const MAX_DIFF: usize = 24 * 1024 * 1024;
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

/// `GET /git/diff`: from `base` to the working tree, including new files; or a part of the way from the checked-out commit to it.
///
/// # Errors
/// Bad input; not found; too large; a conflict if the agent's index cannot be read; git's.
pub(crate) async fn diff(repos: &Repos, query: &GitDiffQuery) -> Result<Diff> {
    let GitDiffQuery { repo, base, path, changes } = query;
    let (repo, changes) = (named("repo", repo.as_deref())?, changes.unwrap_or_default());
    if base.is_some() && changes != GitChanges::All {
        let reason = "base: is only for all changes: what is staged and what is not is compared with the index";
        return Err(Error::Conflict(reason.to_owned()));
    }
    let path = path.as_deref().map(|path| workspace_path::parse_beneath("path", path)).transpose()?;
    let (directory, known) = repos.directory(repo)?;
    in_time(repo, async {
        let from = match base {
            None => known.base.clone(),
            Some(base) => Some(commit_named(&repos.attempt, &directory, "base", base).await?),
        };
        let place = Place::new(&directory, &known);
        let tree = WorkingTree::look(&repos.attempt, place, STEP).await?;
        let staged = match changes {
            GitChanges::All => None,
            GitChanges::Staged | GitChanges::Unstaged => Some(tree.staged().await?),
        };
        let git = tree.git().paths(path).variable("GIT_LITERAL_PATHSPECS", "1");
        let (from, others) = match (changes, &staged) {
            (GitChanges::Staged, Some(staged)) => (tree.head.as_deref(), (&[][..], vec![staged.as_str()])),
            (_, Some(staged)) => (Some(staged.as_str()), (&["--cached"][..], Vec::new())),
            (_, None) => (from.as_deref(), (&["--cached"][..], Vec::new())),
        };
        let (patch, truncated) = patch::since(git, from, (others.0, &others.1), MAX_DIFF).await?;
        let left_out = if changes == GitChanges::Staged { Vec::new() } else { tree.left_out.clone() };
        Ok(Diff { patch, truncated, left_out })
    })
    .await
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
