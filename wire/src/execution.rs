//! Workflow executions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// An execution of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkflowExecution {
    /// `WorkflowExecution`.
    pub kind: String,
    /// Workflow id; in paths percent-encoded.
    pub id: String,
    /// Address of the execution.
    pub href: String,
    /// Run of the execution (Temporal's run id); empty while its start is pending dispatch.
    pub run_id: String,
    /// Workflow type.
    pub workflow: String,
    /// `PendingDispatch`, `Running`, `Completed`, `Failed`, `Canceled`, `Terminated`, `ContinuedAsNew`, `TimedOut`.
    pub status: String,
    /// When it started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub closed_at: Option<DateTime<Utc>>,
    /// Number of events in its history.
    pub history_length: i64,
    /// Activities that are scheduled or running; only when a single execution is requested.
    #[serde(default)]
    pub pending_activities: Vec<PendingActivity>,
}

/// An activity in progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PendingActivity {
    /// Activity type.
    pub activity: String,
    /// `Scheduled` or `Started`.
    pub state: String,
    /// Attempt, from 1.
    pub attempt: i32,
    /// The last failure, in words.
    pub last_failure: Option<String>,
    /// Next attempt.
    pub next_retry_at: Option<DateTime<Utc>>,
}

/// An event in a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryEvent {
    /// Event id, from 1.
    pub event_id: i64,
    /// `WorkflowExecutionStarted`, …
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was recorded.
    pub at: Option<DateTime<Utc>>,
    /// Attributes as Temporal's JSON.
    pub attributes: Value,
}

/// `POST /workflow_executions/{id}/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Signal name.
    pub signal: String,
    /// Input, as JSON.
    #[serde(default)]
    pub input: Value,
}

/// `POST /workflow_executions/{id}/terminate` and `/cancel`; the body may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndRequest {
    /// Reason, for people.
    #[serde(default)]
    pub reason: String,
}
