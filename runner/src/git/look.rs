//! Looks at a repository in the workspace, each bounded in time.

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use super::{
    check_object,
    command::{Git, GitError},
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
};

/// A look, and each git command for it: the server waits for 60 s, so a git that hangs is named before that.
const LOOK: Duration = Duration::from_secs(50);
pub(super) const STEP: Duration = Duration::from_secs(40);

/// Within the time after which the server would no longer be listening.
pub(super) async fn in_time<T>(repo: &str, look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::Conflict(format!("examining repository '{repo}' takes longer than {} s", LOOK.as_secs()));
    timeout(LOOK, look).await.unwrap_or_else(|_| Err(late()))
}

/// How many commits a range has; 0 if that is not known.
pub(super) async fn count(attempt: &Attempt, directory: &Path, range: &str) -> Result<u64> {
    let text =
        Git::repository(attempt, directory).maybe(&["rev-list", "--count", "--end-of-options", range, "--"]).await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// The single commit that is meant, by any name git accepts.
///
/// # Errors
/// Bad input that names `field`; not found; git's.
pub(super) async fn commit_named(attempt: &Attempt, directory: &Path, field: &str, name: &str) -> Result<String> {
    if name.is_empty() || name.chars().count() > 255 || name.starts_with('-') || name.contains(['\0', '\n']) {
        return Err(Error::bad(field, "is not a commit"));
    }
    let commit = format!("{name}^{{commit}}");
    let found = Git::repository(attempt, directory)
        .text(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])
        .await;
    match found {
        Ok(commit) if check_object(&commit).is_ok() => Ok(commit),
        Ok(_) | Err(GitError::Failed { code: 1 | 128, .. }) => {
            Err(Error::NotFound(format!("the repository has no commit '{name}'")))
        }
        Err(error) => Err(error.into()),
    }
}

/// What a query must have, though the server's own may leave it out.
///
/// # Errors
/// Bad input that names `field`.
pub(super) fn named<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str> {
    value.ok_or_else(|| Error::bad(field, "is required"))
}
