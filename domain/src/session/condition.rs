//! Conditions, as in Kubernetes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// The agent can work, or is idle.
    Ready,
    /// The workspace exists.
    WorkspaceReady,
    /// The run's tokens are written.
    SecretsReady,
    /// The runner's process or pod exists.
    RunnerCreated,
    /// It has a place to run.
    RunnerScheduled,
    /// It answers.
    RunnerStarted,
    /// The workspace has the wanted repositories.
    ReposReconciled,
    /// The workspace has the wanted playbook.
    WorkflowReconciled,
    /// The wanted generation is in effect.
    Reconciled,
    /// The session's processes are confined as configured.
    Confined,
    /// Nothing of the last run is left; proven.
    TornDown,
    /// A stop takes unusually long; the message says what is left.
    StopIncomplete,
}

/// Truth value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It is true.
    True,
    /// It is false.
    False,
    /// Nobody can tell right now.
    Unknown,
}

/// An observation about a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What about.
    #[serde(rename = "type")]
    pub condition_type: ConditionType,
    /// Truth value.
    pub status: ConditionStatus,
    /// One CamelCase word for programs.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Last change of `status`.
    pub last_transition_time: DateTime<Utc>,
    /// Generation at which it was observed.
    pub observed_generation: i64,
}
