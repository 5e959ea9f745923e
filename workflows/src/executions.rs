//! Workflow executions for people: list, look, signal, cancel, terminate. The same on both engines.

use std::sync::Arc;

use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use async_trait::async_trait;

/// Why a request about an execution failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// No such execution.
    #[error("workflow execution '{0}' not found")]
    NotFound(String),
    /// It has ended.
    #[error("workflow execution '{0}' has ended")]
    Closed(String),
    /// Wrong input.
    #[error("{field}: {problem}")]
    Invalid {
        /// Field at fault.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The engine cannot be reached at present.
    #[error("the workflow engine cannot be reached: {0}")]
    Unavailable(String),
}

/// Which executions to list.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    /// Workflow type.
    pub workflow: Option<String>,
    /// `Running`, `Completed`, …
    pub status: Option<String>,
    /// Session or project id: the second part of the workflow id.
    pub entity_id: Option<String>,
    /// Page, from 1.
    pub page: i64,
    /// Items a page.
    pub size: i64,
}

/// Access to executions.
#[async_trait]
pub trait ExecutionService: Send + Sync {
    /// Executions, newest first, and how many there are.
    async fn list(&self, filter: &ExecutionFilter) -> Result<(Vec<WorkflowExecution>, i64), ExecutionError>;
    /// One, with its pending activities; `PendingDispatch` while its start is in the outbox.
    async fn get(&self, workflow_id: &str) -> Result<WorkflowExecution, ExecutionError>;
    /// Events of its newest run after `after`, at most `size`.
    async fn history(&self, workflow_id: &str, after: i64, size: i64) -> Result<Vec<HistoryEvent>, ExecutionError>;
    /// Signals it.
    async fn signal(&self, workflow_id: &str, signal: &str, input: &serde_json::Value) -> Result<(), ExecutionError>;
    /// Requests cancellation.
    async fn cancel(&self, workflow_id: &str, reason: &str) -> Result<(), ExecutionError>;
    /// Ends it without its doing.
    async fn terminate(&self, workflow_id: &str, reason: &str) -> Result<(), ExecutionError>;
    /// Fit for work, else why not.
    fn readiness(&self) -> Result<(), String>;
}

/// Shared [`ExecutionService`].
pub type Executions = Arc<dyn ExecutionService>;
