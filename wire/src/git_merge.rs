//! What a session's repository takes over from its origin, and how it gets rid of its own changes.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::git::{GitPushed, LeftOut};

/// How commits of the origin come together with those of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GitStrategy {
    /// Only if the workspace has none of its own; otherwise that is a conflict.
    #[default]
    FastForward,
    /// In a merge commit.
    Merge,
    /// Those of the workspace are made again on top of the origin's; at most 100, and no merges among them.
    Rebase,
}

/// `POST /git/pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitPull {
    /// Repository.
    pub repo: String,
    /// Branch of the origin; when absent, the one that was cloned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// How, if both have commits that the other lacks.
    #[serde(default)]
    pub strategy: GitStrategy,
}

/// `POST /git/synchronize`: a pull and then a push, of the same branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitSynchronize {
    /// Repository.
    pub repo: String,
    /// Branch of the origin; made if it does not have it.
    pub branch: String,
    /// How, if both have commits that the other lacks.
    #[serde(default)]
    pub strategy: GitStrategy,
}

/// What a pull has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GitPullOutcome {
    /// Nothing: the origin has no commit that the workspace lacks.
    UpToDate,
    /// The origin's commits were taken over as they are.
    FastForward,
    /// A merge commit was made.
    Merged,
    /// The workspace's commits were made again.
    Rebased,
}

/// Response to a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitPulled {
    /// The origin.
    pub url: String,
    /// Branch of the origin.
    pub branch: String,
    /// What was done.
    pub outcome: GitPullOutcome,
    /// Commit checked out before; null if there was none.
    pub before: Option<String>,
    /// Commit checked out now.
    pub commit: String,
    /// Number of commits that came from the origin.
    pub commits: u64,
    /// Remarks, in words.
    pub notices: Vec<String>,
}

impl GitPulled {
    /// The result, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { url, branch, outcome, commit, commits, .. } = self;
        let short: String = commit.chars().take(7).collect();
        let commits = if *commits == 1 { "1 commit".to_owned() } else { format!("{commits} commits") };
        let how = match outcome {
            GitPullOutcome::UpToDate => return format!("nothing new in branch {branch} of {url}: still at {short}"),
            GitPullOutcome::FastForward => "taken over",
            GitPullOutcome::Merged => "merged",
            GitPullOutcome::Rebased => "put below those of the workspace",
        };
        format!("{commits} of branch {branch} of {url} {how}: now at {short}")
    }
}

/// Response to a synchronisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitSynchronized {
    /// What was pulled; null if the origin did not have the branch.
    pub pulled: Option<GitPulled>,
    /// What was pushed.
    pub pushed: GitPushed,
}

/// Which merge is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GitMergeQuery {
    /// Repository; may be absent if there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Branch of the origin; when absent, the one that was cloned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// `GET /git/merge-status`: what merging the origin's branch would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitMergeStatus {
    /// Repository.
    pub repo: String,
    /// The origin.
    pub url: String,
    /// Branch of the origin.
    pub branch: String,
    /// Commit that the branch is at.
    pub origin: String,
    /// Commit checked out; null if there is none.
    pub head: Option<String>,
    /// Number of commits that the branch lacks.
    pub ahead: u64,
    /// Number of commits that the workspace lacks.
    pub behind: u64,
    /// Files that both have changed, so that git cannot merge them by itself; at most 1,000. Uncommitted changes are not looked at.
    pub conflicts: Vec<String>,
    /// True if there are more.
    pub truncated: bool,
}

/// `POST /git/abandon`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitAbandon {
    /// Repository.
    pub repo: String,
}

/// Response to an abandonment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitAbandoned {
    /// Checked-out branch, which is back at the commit that was cloned.
    pub branch: Option<String>,
    /// That commit.
    pub commit: String,
    /// Number of commits that are no longer on the branch.
    pub commits: u64,
    /// Number of changed files that were not committed.
    pub files: u64,
    /// Commit with everything that was given up; its parent is the one that was checked out. Null if there was nothing to give up.
    pub kept: Option<String>,
    /// Reference of the repository that keeps it.
    pub reference: Option<String>,
    /// What is still in the folder as it was.
    pub left_out: Vec<LeftOut>,
}
