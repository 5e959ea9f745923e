//! The playbook that a session's agent goes by.

use ambient_wire::playbook::{PlaybookMetadata, ReconciledPlaybook};
use serde::{Deserialize, Serialize};

/// Answer to `PUT /playbook`: what is in effect from the next turn on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaybookStatus {
    /// Which it is, and its commit.
    pub reconciled: ReconciledPlaybook,
    /// What it has.
    pub metadata: PlaybookMetadata,
}
