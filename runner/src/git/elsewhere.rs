//! What a repository in the workspace contains besides the commit being pushed: commits on other branches, stashes, a merge in
//! progress. As claimed by the agent's repository, so bounded, and never a reason against a push.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use super::{command::Git, mirror::Mirror};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
};

/// Timeout for all of it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Timeout for each git command.
const STEP: Duration = Duration::from_secs(5);
/// Most branches that are counted; of the others only the number is given.
const MAX_BRANCHES: usize = 10;
/// Most branches that are listed, newest first.
const MAX_LISTED: &str = "--count=1000";
/// Most stash entries, and most commits of a branch, that are counted.
const MAX_COUNTED: u64 = 10_000;
/// What git has in its folder while something is in progress.
const IN_PROGRESS: [(&str, &str); 6] = [
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("BISECT_LOG", "bisect"),
];

/// A repository of which a commit is being pushed.
pub(super) struct Repository<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) directory: &'a Path,
    /// What goes to the origin.
    pub(super) commit: &'a str,
    /// What was pushed before, by branch.
    pub(super) pushed: &'a BTreeMap<String, String>,
}

impl Repository<'_> {
    /// What stays behind, in words.
    pub(super) async fn left_behind(&self, mirror: &Mirror<'_>) -> Vec<String> {
        let look = async {
            let (progress, stashes) = (self.in_progress().await?, self.stashes().await?);
            Ok::<_, Error>([progress, stashes, self.branches(mirror).await?].concat())
        };
        let unknown = "could not determine whether there is work on other branches, in a stash or in progress";
        timeout(PATIENCE, look).await.ok().and_then(Result::ok).unwrap_or_else(|| vec![unknown.to_owned()])
    }

    fn git(&self) -> Git<'_> {
        Git::repository(self.attempt, self.directory).patience(STEP)
    }

    /// Branches with commits that are neither in the push nor in the origin, as far as it was fetched.
    async fn branches(&self, mirror: &Mirror<'_>) -> Result<Vec<String>> {
        let not_merged = format!("--no-merged={}", self.commit);
        let format = "--format=%(objectname) %(refname:lstrip=2)";
        let list = ["for-each-ref", "--sort=-committerdate", MAX_LISTED, format, &not_merged, "refs/heads"];
        let list = self.git().text(&list).await?;
        if list.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.known(mirror).await?;
        let (mut told, mut more) = (Vec::new(), 0_usize);
        for (commit, branch) in list.lines().filter_map(|line| line.split_once(' ')) {
            if told.len() == MAX_BRANCHES {
                more += 1;
                continue;
            }
            match self.count(mirror, commit, &known).await? {
                0 => {}
                1 => told.push(format!("1 commit on branch {branch} is not pushed")),
                many if many >= MAX_COUNTED => {
                    told.push(format!("at least {many} commits on branch {branch} are not pushed"));
                }
                many => told.push(format!("{many} commits on branch {branch} are not pushed")),
            }
        }
        if more > 0 {
            told.push(format!(
                "up to {more} other branches may have commits that are not pushed: they were not counted"
            ));
        }
        Ok(told)
    }

    /// The ends of what the origin has, in the form `rev-list` takes.
    async fn known(&self, mirror: &Mirror<'_>) -> Result<String> {
        let tips = mirror.git(false, Vec::new()).text(&["for-each-ref", "--format=^%(objectname)"]).await?;
        let pushed = self.pushed.values().map(String::as_str).chain([self.commit]).map(|commit| format!("^{commit}\n"));
        Ok(format!("{tips}\n{}", pushed.collect::<String>()))
    }

    async fn count(&self, mirror: &Mirror<'_>, commit: &str, known: &str) -> Result<u64> {
        let git = self.git().input(format!("{commit}\n{known}"));
        let git = git.variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", mirror.path().join("objects"));
        let most = format!("--max-count={MAX_COUNTED}");
        let count = git.text(&["rev-list", "--count", "--ignore-missing", &most, "--stdin"]).await?;
        count.parse().map_err(|_| Error::Git(format!("git rev-list gave '{count}' for a number")))
    }

    async fn stashes(&self) -> Result<Vec<String>> {
        let there = self.git().maybe(&["rev-parse", "--verify", "--quiet", "refs/stash"]).await?;
        if there.is_none() {
            return Ok(Vec::new());
        }
        let most = format!("--max-count={MAX_COUNTED}");
        let list = self.git().text(&["rev-list", "--walk-reflogs", "--count", &most, "refs/stash", "--"]).await?;
        // Without its log there is only the newest.
        Ok(vec![match list.parse().unwrap_or(1_u64) {
            0 | 1 => "a stash with 1 entry is not in the push".to_owned(),
            many => format!("a stash with {many} entries is not in the push"),
        }])
    }

    async fn in_progress(&self) -> Result<Vec<String>> {
        let what = in_progress(self.git()).await?.into_iter();
        Ok(what.map(|what| format!("a {what} is in progress: what it has yet to do is not in the push")).collect())
    }
}

/// What is in progress in a repository of the workspace, such as a merge.
///
/// # Errors
/// Git's.
pub(super) async fn in_progress(git: Git<'_>) -> Result<BTreeSet<&'static str>> {
    let folder = PathBuf::from(git.text(&["rev-parse", "--absolute-git-dir"]).await?);
    let there = IN_PROGRESS.iter().filter(|(name, _)| folder.join(name).symlink_metadata().is_ok());
    Ok(there.map(|(_, what)| *what).collect())
}

/// Refuses a change while something is in progress.
///
/// # Errors
/// A conflict that names it; git's.
pub(super) async fn refuse_in_progress(attempt: &Attempt, directory: &Path) -> Result<()> {
    match in_progress(Git::repository(attempt, directory)).await?.first() {
        Some(what) => {
            Err(Error::Conflict(format!("a {what} is in progress in the workspace, and nothing was changed")))
        }
        None => Ok(()),
    }
}
