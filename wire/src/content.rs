//! Files of a session's workspace.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /content`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listing {
    /// Directory, relative to the workspace; empty for its root.
    pub path: String,
    /// Entries, sorted by name, at most 10,000.
    pub entries: Vec<Entry>,
    /// True if there are more.
    pub truncated: bool,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// File name.
    pub name: String,
    /// `file`, `directory`, `symlink` or `other`.
    pub kind: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it last changed.
    pub modified: DateTime<Utc>,
}
