//! What agents ask of people.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    permission::PermissionRule,
    runner_event::{PermissionAnswer, PermissionOutcome, ToolKind},
};

/// A permission request of a session's agent. All of it but the ids is what the agent says; what is cut ends with `…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interrupt {
    /// `Interrupt`.
    pub kind: String,
    /// Unique in the session.
    pub id: String,
    /// Session id.
    pub session_id: String,
    /// `waiting` (for a person), `answered` (the answer is being handed over) or `closed`.
    pub status: InterruptStatus,
    /// How it ended, once it is closed.
    pub outcome: Option<PermissionOutcome>,
    /// What people are shown.
    pub title: String,
    /// Sort of the tool call; of a closed request this and what it was about are only in the live log.
    pub tool: Option<ToolKind>,
    /// The command, if it is one.
    pub command: Option<String>,
    /// Files it is about.
    pub paths: Vec<String>,
    /// The tool call.
    pub tool_call_id: Option<String>,
    /// The turn.
    pub turn_id: Option<String>,
    /// Answers that can be given.
    pub answers: Vec<PermissionAnswer>,
    /// The rule that `always` adds to the session's permissions, in front of the others.
    pub rule: Option<PermissionRule>,
    /// When it was recorded.
    pub raised_at: DateTime<Utc>,
    /// When it was closed.
    pub closed_at: Option<DateTime<Utc>>,
    /// The answer.
    pub answer: Option<GivenAnswer>,
    /// The answer to the same request of an earlier attempt, which was lost with the agent or its runner.
    pub earlier_answer: Option<GivenAnswer>,
}

/// State of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptStatus {
    /// It waits for a person.
    Waiting,
    /// It is answered, and the answer is being handed over.
    Answered,
    /// It is no longer open.
    Closed,
}

/// Somebody's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenAnswer {
    /// The answer.
    pub answer: PermissionAnswer,
    /// Who gave it.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Id of the message that goes with it.
    pub message_id: Option<String>,
}

/// Something that waits for the caller: at present always a permission request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InboxItem {
    /// `InboxItem`.
    pub kind: String,
    /// Project id.
    pub project_id: String,
    /// Its name.
    pub project_name: String,
    /// Session id.
    pub session_id: String,
    /// Its name.
    pub session_name: String,
    /// What is asked.
    pub interrupt: Interrupt,
}
