//! Reading a stored snapshot where no session is: `ambient-runner read-stored --order JSON`, started by a server.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Confinement, RunnerError};

/// What to read. Packs are hostile: git sees the folder and nothing else, without a network, for a bounded time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOrder {
    /// A folder of the reader's own, with the packs in `objects/pack/`.
    pub folder: PathBuf,
    /// The server's folder, of which git sees nothing else.
    pub hidden: PathBuf,
    /// What to do if the kernel lacks a part of the confinement.
    pub confinement: Confinement,
    /// What is wanted.
    pub look: StoredLook,
    /// Most bytes of it that are given.
    pub most: u64,
}

/// What is wanted of a stored snapshot. Trees are ids of trees or of commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredLook {
    /// A unified diff between two trees.
    Diff {
        /// None: nothing at all.
        from: Option<String>,
        /// Where it leads.
        to: String,
        /// File or folder, as users write it; all if it is empty.
        path: String,
    },
    /// A file of a tree.
    File {
        /// The tree.
        tree: String,
        /// As users write it.
        path: String,
    },
}

/// The first line that the reader prints, as JSON; what was wanted follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredAnswer {
    /// Here it is.
    Found {
        /// There is more of it than was allowed.
        truncated: bool,
        /// Of a file: its mode as git has it, such as `100755`.
        mode: Option<String>,
    },
    /// It cannot be had.
    Refused(RunnerError),
}

/// What became of a pack that a runner offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackEnd {
    /// It is stored: later ones may build on it.
    Stored,
    /// It is not going to be.
    NotStored,
    /// Neither is it, because what it builds on is no longer there: the next one builds on the base alone.
    Anew,
}
