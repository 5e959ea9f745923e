//! Commits and branches of a session's repository, as its workspace has them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Most commits of a page.
pub const MAX_LOG: usize = 200;

/// Which commits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GitLogQuery {
    /// Repository; may be absent if there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Commit to begin at, by any name git has for it; when absent, the one checked out.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Only commits that change this file or folder, relative to the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Most commits to return; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 200)]
    pub size: Option<usize>,
    /// `next` of the page before, asked for with the same `path`; `ref` then has no meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// `GET /git/log`: a page of commits, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitLog {
    /// Repository.
    pub repo: String,
    /// Commits.
    pub items: Vec<GitLogEntry>,
    /// Pass it as `after` for the next page; null at the end.
    pub next: Option<String>,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitLogEntry {
    /// Full name of its object.
    pub commit: String,
    /// Commits it was made from; of a merge, more than one.
    pub parents: Vec<String>,
    /// Who wrote it.
    pub author: GitSignature,
    /// Who committed it.
    pub committer: GitSignature,
    /// Its message; the first line is the subject. At most 16 KiB.
    pub message: String,
    /// True if the message is longer.
    pub message_truncated: bool,
}

impl GitLogEntry {
    /// The first line of the message.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

/// Who did something, and when, as the commit says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitSignature {
    /// Name.
    pub name: String,
    /// Email address.
    pub email: String,
    /// When; null if the commit gives no time that can be told.
    pub at: Option<DateTime<Utc>>,
}

/// `GET /git/list-branches`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitBranches {
    /// Repository.
    pub repo: String,
    /// Checked-out branch.
    pub branch: Option<String>,
    /// Branches in the workspace, the one with the newest commit first; at most 1,000.
    pub local: Vec<GitBranch>,
    /// Branches of the origin, as they were when it was cloned; at most 1,000.
    pub origin: Vec<GitBranch>,
    /// True if there are more.
    pub truncated: bool,
}

/// A branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitBranch {
    /// Its name.
    pub name: String,
    /// Commit it is at.
    pub commit: String,
    /// When that was committed, as it says.
    pub committed_at: Option<DateTime<Utc>>,
    /// First line of its message, at most 200 characters.
    pub subject: String,
}

/// `POST /git/create-branch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitBranchCreate {
    /// Repository.
    pub repo: String,
    /// Name of the branch.
    pub name: String,
    /// Commit to begin at, by any name git has for it, such as `origin/main`; when absent, the one checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Also checks it out. Changed files stay as they are; where that is not possible, nothing is done.
    #[serde(default)]
    pub switch: bool,
}

/// Response to the creation of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitBranchCreated {
    /// Its name.
    pub branch: String,
    /// Commit it is at.
    pub commit: String,
    /// False if it was there already, at this commit.
    pub created: bool,
    /// Whether it is checked out by this request.
    pub switched: bool,
}
