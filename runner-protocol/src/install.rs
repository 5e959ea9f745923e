//! Installing an agent: `ambient-runner install --order JSON -- COMMAND`, started by whoever installs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Confinement;

/// What a package manager may do. It runs code of nobody's but its own; what it unpacks is the package's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallOrder {
    /// Where it may write: one folder.
    pub folder: PathBuf,
    /// Where it is itself, besides the system's folders.
    pub readable: Vec<PathBuf>,
    /// The user that it becomes; none if the caller has no right to change it.
    pub user: Option<u32>,
    /// What to do if the kernel lacks a part of the confinement.
    pub confinement: Confinement,
}
