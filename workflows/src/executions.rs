//! Workflow executions for people: list, inspect, signal, cancel, terminate. The same on both engines.

use std::sync::Arc;

use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use async_trait::async_trait;

/// Workflows that work for an entity, which is the second part of their ids.
pub const ENTITY_WORKFLOWS: [&str; 8] = [
    "session-supervise",
    "session-start",
    "session-stop",
    "session-reconcile",
    "session-delete",
    "token-refresh",
    "project-provision",
    "project-delete",
];
/// Workflows that work for the platform as a whole.
pub const PLATFORM_WORKFLOWS: [&str; 1] = ["sweep"];

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
    /// The engine cannot be reached right now.
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
    /// Ids of projects, each once: executions that work for one of them or for something in it. `None` = all.
    pub project_ids: Option<Vec<String>>,
    /// Page number, from 1.
    pub page: i64,
    /// Items per page.
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
    /// Ends it without giving it a chance to react.
    async fn terminate(&self, workflow_id: &str, reason: &str) -> Result<(), ExecutionError>;
    /// Whether it works, else why not.
    fn readiness(&self) -> Result<(), String>;
}

/// Shared [`ExecutionService`].
pub type Executions = Arc<dyn ExecutionService>;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_workflow_that_there_is_is_listed() {
        let sources = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        let sources = sources.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let named = |path| -> Vec<String> {
            let source = fs::read_to_string(path).unwrap();
            let names = source.split("#[run(name = \"").skip(1).filter_map(|rest| rest.split_once('"'));
            names.map(|(name, _)| name.to_owned()).collect()
        };
        let there: BTreeSet<String> = sources.flat_map(named).collect();
        let listed = ENTITY_WORKFLOWS.into_iter().chain(PLATFORM_WORKFLOWS).map(str::to_owned).collect();
        assert_eq!(there, listed);
    }
}
