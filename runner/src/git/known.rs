//! What is recorded of a repository.

use std::collections::BTreeMap;

use ambient_wire::git::Submodules;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::submodules::Module;

/// What is known of a repository, as it was when it was cloned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) url: String,
    pub(crate) branch: Option<String>,
    #[serde(default)]
    pub(crate) push_to: Option<String>,
    pub(crate) base: Option<String>,
    pub(crate) cloned_at: DateTime<Utc>,
    /// What is to be known of it, in words.
    #[serde(default)]
    pub(crate) notices: Vec<String>,
    /// What large files have added to it in snapshots.
    #[serde(default)]
    pub(crate) snapshot_bytes: u64,
    /// What was fetched of its submodules.
    #[serde(default)]
    pub(crate) submodules: Submodules,
    /// Submodules that are there.
    #[serde(default)]
    pub(crate) modules: Vec<Module>,
    /// Newest commits that went to branches of the origin.
    #[serde(default)]
    pub(crate) pushed: BTreeMap<String, String>,
}
