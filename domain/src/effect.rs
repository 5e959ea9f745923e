//! Consequences of an event outside the entity: carried out after the commit, from the outbox.

use serde::{Deserialize, Serialize};

/// Input of every workflow: only ids, state is read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowInput {
    /// Project id.
    pub project_id: String,
    /// Session id; empty for a project's workflow.
    #[serde(default)]
    pub session_id: String,
    /// Run, 0 if there is none.
    #[serde(default)]
    pub run: i64,
    /// Attempt, 0 if there is none.
    #[serde(default)]
    pub attempt: i32,
}

/// A change of a workflow execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Start; "already started" is success (id reuse policy REJECT_DUPLICATE).
    StartWorkflow {
        /// Workflow type: `session-start`, …
        workflow: String,
        /// Workflow id.
        workflow_id: String,
        /// Input.
        input: WorkflowInput,
    },
    /// Signal; a closed or unknown execution is success.
    SignalWorkflow {
        /// Workflow id.
        workflow_id: String,
        /// Signal name.
        signal: String,
    },
    /// Request cancellation; a closed or unknown execution is success.
    CancelWorkflow {
        /// Workflow id.
        workflow_id: String,
    },
}

impl Effect {
    /// The execution concerned.
    #[must_use]
    pub fn workflow_id(&self) -> &str {
        match self {
            Self::StartWorkflow { workflow_id, .. }
            | Self::SignalWorkflow { workflow_id, .. }
            | Self::CancelWorkflow { workflow_id } => workflow_id,
        }
    }
}

/// An event of a session's live log caused by an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveEvent {
    /// `user.message`, `session.phase`, `session.condition`, `session.interrupt`, `session.deleted`.
    pub event_type: String,
    /// Payload. The append inserts a message's text as `text`.
    pub data: serde_json::Value,
    /// Set for messages.
    pub message_id: Option<String>,
}

/// A unique name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameClaim {
    /// Claimed by this entity; taken by another one: conflict.
    Claim {
        /// Name space, such as `project`.
        scope: String,
        /// Name.
        name: String,
    },
    /// Released.
    Release {
        /// Name space.
        scope: String,
        /// Name.
        name: String,
    },
}
