//! Files of a session's workspace. Names and paths are escaped as in [`file_name`](crate::file_name).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Largest file that can be written, bytes; larger ones are read, but without their hash.
pub const MAX_FILE: u64 = 100 * 1024 * 1024;
/// Header with the SHA-256 of a file's content, in hexadecimal digits.
pub const SHA256_HEADER: &str = "x-content-sha256";

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
    /// File name. Where it is not UTF-8, bytes are written `\xff`, and a backslash `\\`; so it can be sent back in a path.
    pub name: String,
    /// `file`, `directory`, `symlink` or `other`.
    pub kind: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it last changed.
    pub modified: DateTime<Utc>,
}

/// What is known about a file, a directory or whatever else has a path in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileStatus {
    /// Path, relative to the workspace; empty for its root.
    pub path: String,
    /// `file`, `directory`, `symlink` or `other`.
    pub kind: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its permissions as `chmod` takes them: `0644`.
    pub mode: String,
    /// When it last changed.
    pub modified: DateTime<Utc>,
    /// SHA-256 of a file's content in hexadecimal digits; null unless asked for, and for files of more than 100 MiB.
    pub sha256: Option<String>,
}

/// Moves a file or directory, or renames it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileMove {
    /// Path, relative to the workspace.
    pub from: String,
    /// Its new path, the name included.
    pub to: String,
    /// Replaces a file, or an empty directory, that has the new path. Otherwise that is a conflict.
    #[serde(default)]
    pub overwrite: bool,
    /// Creates the directories that the new path leads through.
    #[serde(default)]
    pub parents: bool,
}
