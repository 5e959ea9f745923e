//! What is recorded about a repository.

use std::collections::BTreeMap;

use ambient_wire::git::Submodules;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::submodules::Module;

/// What is known about a repository, as of when it was cloned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) url: String,
    pub(crate) branch: Option<String>,
    #[serde(default)]
    pub(crate) push_to: Option<String>,
    pub(crate) base: Option<String>,
    pub(crate) cloned_at: DateTime<Utc>,
    /// Remarks, in words.
    #[serde(default)]
    pub(crate) notices: Vec<String>,
    /// How much large files have added to it in snapshots.
    #[serde(default)]
    pub(crate) snapshot_bytes: u64,
    /// Which of its submodules were fetched.
    #[serde(default)]
    pub(crate) submodules: Submodules,
    /// Submodules that exist.
    #[serde(default)]
    pub(crate) modules: Vec<Module>,
    /// Latest commits pushed to branches of the origin.
    #[serde(default)]
    pub(crate) pushed: BTreeMap<String, String>,
    /// The snapshot of the last turn.
    #[serde(default)]
    pub(crate) last: Option<Last>,
}

/// Where a turn has left a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Last {
    /// The snapshot.
    pub(crate) commit: String,
    /// What was checked out.
    pub(crate) head: Option<String>,
}
