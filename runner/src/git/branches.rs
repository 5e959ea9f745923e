//! A new branch of a repository in the workspace, made by git with the agent's rights.

use std::time::Duration;

use ambient_wire::git_history::{GitBranchCreate, GitBranchCreated};

use super::{
    check_branch, check_object,
    command::{Git, GitError, quoted},
    look::commit_named,
    repos::{self, Repos},
};
use crate::error::{Error, Result};

/// Timeout for each git command: other files may have to be checked out.
const STEP: Duration = Duration::from_secs(120);

/// `POST /git/create-branch`.
///
/// # Errors
/// Bad input; not found; a conflict with another branch or with what has changed; git's.
pub(crate) async fn create(repos: &Repos, request: &GitBranchCreate) -> Result<GitBranchCreated> {
    let name = check_branch("name", &request.name)?;
    let (directory, _) = repos.directory(&request.repo)?;
    let attempt = &*repos.attempt;
    let git = || Git::repository(attempt, &directory).patience(STEP);
    let commit = match &request.from {
        Some(from) => commit_named(attempt, &directory, "from", from).await?,
        None => repos::position(attempt, &directory)
            .await?
            .1
            .ok_or_else(|| Error::Conflict("there is no commit to begin a branch at".to_owned()))?,
    };
    let reference = format!("refs/heads/{name}");
    let existing = git().maybe(&["rev-parse", "--verify", "--quiet", "--end-of-options", &reference]).await?;
    let created = existing.is_none();
    if let Some(existing) = existing.filter(|existing| *existing != commit) {
        let at = check_object(&existing)?;
        return Err(Error::Conflict(format!("branch '{name}' exists already, at commit {at}")));
    }
    let done = match (request.switch, created) {
        (true, true) => git().run(&["switch", "--quiet", "--no-track", "--create", name, &commit]).await,
        (true, false) => git().run(&["switch", "--quiet", "--no-guess", name]).await,
        (false, true) => git().run(&["branch", "--no-track", "--end-of-options", name, &commit]).await,
        (false, false) => Ok(Vec::new()),
    };
    match done {
        Ok(_) => {
            let branch = name.to_owned();
            Ok(GitBranchCreated { branch, commit, created, switched: request.switch })
        }
        Err(GitError::Failed { stderr, .. }) if !stderr.is_empty() => {
            if created {
                // What was refused leaves no branch; one that somebody has moved meanwhile stays.
                git().run(&["update-ref", "-d", &reference, &commit]).await.ok();
            }
            Err(Error::Conflict(format!("git refused the branch: {}", quoted(&stderr))))
        }
        Err(error) => Err(error.into()),
    }
}
