//! A playbook: a folder of a git repository with instructions, commands and agents for a session's agent. The API calls it a workflow.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{entity::Refusal, name};

/// Longest path, characters.
const MAX_PATH: usize = 1_000;

/// Reason of the conditions while the wanted playbook is not there.
pub const PLAYBOOK_FAILED: &str = "WorkflowFailed";

/// A playbook that a session is to go by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// Repository: `https://…` or `file:///…`.
    pub git_url: String,
    /// Branch; the remote's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Folder in the repository; empty: all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// The playbook that a session goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconciledPlaybook {
    /// As it was asked for.
    #[serde(flatten)]
    pub playbook: Playbook,
    /// Commit that was checked out.
    pub commit: String,
    /// When it came into effect.
    pub reconciled_at: DateTime<Utc>,
}

impl Playbook {
    /// Checks every field, named after `prefix`.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub fn validate(&self, prefix: &str) -> Result<(), Refusal> {
        name::git_url(&format!("{prefix}git_url"), &self.git_url)?;
        if let Some(branch) = &self.branch {
            name::branch(&format!("{prefix}branch"), branch)?;
        }
        let field = format!("{prefix}path");
        if self.path.contains(['\0', '\n', '\r']) || self.path.chars().count() > MAX_PATH {
            return Err(Refusal::invalid(
                field,
                format!("must be one line of at most {MAX_PATH} characters, without NUL"),
            ));
        }
        let is_odd = |part: &str| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git");
        if !self.path.is_empty() && self.path.split('/').any(is_odd) {
            let reason = "must be the path of a folder in the repository, such as workflows/triage, without '.', '..' and '.git'";
            return Err(Refusal::invalid(field, reason));
        }
        Ok(())
    }
}
