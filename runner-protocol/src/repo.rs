//! Repositories that a runner is told to have, and those it has.

use ambient_wire::{git::Submodules, repo::RepoOutput};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A repository that a session wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoSpec {
    /// `https://…` or `file:///…`, without credentials and options.
    pub url: String,
    /// Branch to check out; the remote's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Where its commits go. One that is pushed automatically has a `target_branch`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub output: RepoOutput,
    /// Whether the runner pushes HEAD there (never forced) at the end of every successful turn, before the turn's `turn.result`; a failed
    /// push fails the turn (code `PushFailed`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_push: bool,
    /// Whether the agent works in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub main: bool,
    /// Which submodules are fetched when it is cloned.
    #[serde(default, skip_serializing_if = "Submodules::is_none")]
    pub submodules: Submodules,
}

fn is_default(output: &RepoOutput) -> bool {
    *output == RepoOutput::default()
}

/// A repository that a session has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStatus {
    /// Directory in the workspace.
    pub name: String,
    /// Origin.
    pub url: String,
    /// Checked-out branch; none when detached.
    pub branch: Option<String>,
    /// Commit checked out; none in an empty repository.
    pub head: Option<String>,
    /// Commit that was cloned.
    pub base: Option<String>,
    /// When it was cloned.
    pub cloned_at: DateTime<Utc>,
    /// Its directory is gone, or something else is in its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// Remarks, in words: it is empty, parts of it were not fetched, it cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}
