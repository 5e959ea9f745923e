//! Files that are handed in before a session runs: `/sessions/{id}/uploads`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Largest file, bytes.
pub const MAX_UPLOAD: usize = 10 << 20;

/// A file that waits for the session's next run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadedFile {
    /// Where it goes, relative to the workspace.
    pub path: String,
    /// Bytes.
    pub size: i64,
    /// SHA-256 of its content, hex.
    pub sha256: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// Who has handed it in.
    pub uploaded_by: String,
    /// When.
    pub uploaded_at: DateTime<Utc>,
}

/// `GET /sessions/{id}/uploads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadedFiles {
    /// By path; at most 200.
    pub items: Vec<UploadedFile>,
}
