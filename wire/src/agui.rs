//! AG-UI 1.0, as far as the edge takes it in: what a client asks for, and what it is told besides events. Names are AG-UI's, in its spelling;
//! what a client says beyond this is passed over, as the protocol demands.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::one_object;

/// Body of `POST /sessions/{id}/agui`: a `RunAgentInput`. `state`, `context`, `tools` and `forwardedProps` are passed over: tools of the
/// client are not supported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunAgentInput {
    /// The client's name of the conversation; repeated in its events.
    pub thread_id: String,
    /// The client's name of the run; repeated in its events.
    pub run_id: String,
    /// The conversation as the client has it. The newest message of role `user` is sent, unless there is `resume`.
    pub messages: Vec<InputMessage>,
    /// Answers to the interrupts of the run before.
    #[serde(default)]
    pub resume: Vec<ResumeEntry>,
}

/// A message of a conversation as a client has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InputMessage {
    /// Chosen by the client: the same message is sent once, however often it is in a request.
    pub id: String,
    /// Who speaks.
    pub role: String,
    /// Text, or a list of parts `{type: "text", text}`.
    #[serde(default)]
    pub content: Value,
}

/// An answer to an interrupt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeEntry {
    /// The interrupt.
    pub interrupt_id: String,
    /// Whether it was answered; a cancelled one is rejected.
    pub status: ResumeStatus,
    /// `{answer: once|always|reject, message?}`, or `{approved: true|false}`.
    #[serde(default)]
    pub payload: Value,
}

/// Whether an interrupt was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResumeStatus {
    /// With `payload`.
    Resolved,
    /// Without an answer.
    Cancelled,
}

/// Body of `POST /sessions/{id}/agui/feedback`: a `META` event. `type`, and what the payload says beyond this, are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "type": "META", "metaType": "thumbs_down", "payload": { "messageId": "m-1", "comment": "It broke the build." } }))]
pub struct Feedback {
    /// Good or bad.
    pub meta_type: FeedbackRating,
    /// What it is about, and why.
    #[serde(default, deserialize_with = "one_object")]
    pub payload: FeedbackPayload,
}

/// Good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackRating {
    /// Good.
    ThumbsUp,
    /// Bad.
    ThumbsDown,
}

/// What a person's feedback is about, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedbackPayload {
    /// Message that it is about; the session as a whole when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Why, in a word or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In words; at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A run of AG-UI: a turn, or the part of one up to a permission request or after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AguiRun {
    /// `AguiRun`.
    pub kind: String,
    /// Id: that of the turn, with `#2`, `#3`, … for its further runs.
    pub id: String,
    /// The turn.
    pub turn_id: String,
    /// The message it works on.
    pub message_id: String,
    /// `running`, `success`, `interrupt`, `cancelled` or `error`.
    pub status: String,
    /// What went wrong, in one word.
    pub code: Option<String>,
    /// What went wrong, in words.
    pub message: Option<String>,
    /// Interrupts that it ended with.
    pub interrupts: Vec<String>,
    /// Place in the session's log where it began.
    pub seq: i64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// The event `MESSAGES_SNAPSHOT`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessagesSnapshot {
    /// `MESSAGES_SNAPSHOT`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// AG-UI's messages, in order: `{id, role, content?, toolCalls?, toolCallId?, metadata?}`.
    #[schema(value_type = Vec<Object>)]
    pub messages: Vec<Value>,
    /// `{ambient: {coversSeq, omitted}}`: the events up to `coversSeq` are in it, except for those of the oldest messages, which are left out.
    #[schema(value_type = Object)]
    pub metadata: Value,
}

/// What an agent can do: AG-UI's `AgentCapabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentCapabilities {
    /// Who it is.
    pub identity: IdentityCapabilities,
    /// How it can be talked to.
    pub transport: TransportCapabilities,
    /// Tools.
    pub tools: ToolsCapabilities,
    /// What it remembers.
    pub state: StateCapabilities,
    /// What it tells of its thoughts.
    pub reasoning: ReasoningCapabilities,
    /// How it works.
    pub execution: ExecutionCapabilities,
    /// How people take part.
    pub human_in_the_loop: HumanInTheLoopCapabilities,
}

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdentityCapabilities {
    /// The session's name.
    pub name: String,
    /// Agent type.
    #[serde(rename = "type")]
    pub agent_type: String,
    /// `ambient`.
    pub provider: String,
    /// Version of the server.
    pub version: String,
}

/// How an agent can be talked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransportCapabilities {
    /// As Server-Sent Events.
    pub streaming: bool,
    /// A stream goes on where another stopped.
    pub resumable: bool,
}

/// Tools of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolsCapabilities {
    /// Of its own.
    pub supported: bool,
    /// Of the client: never.
    pub client_provided: bool,
}

/// What an agent remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateCapabilities {
    /// State as AG-UI means it: never.
    pub snapshots: bool,
    /// Likewise.
    pub deltas: bool,
    /// The conversation.
    pub memory: bool,
}

/// What an agent tells of its thoughts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReasoningCapabilities {
    /// They are told, if it tells them.
    pub supported: bool,
    /// As they come.
    pub streaming: bool,
}

/// How an agent works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionCapabilities {
    /// It runs programs.
    pub code_execution: bool,
    /// It is confined.
    pub sandboxed: bool,
}

/// How people take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HumanInTheLoopCapabilities {
    /// They do.
    pub supported: bool,
    /// They allow what it asks for.
    pub approvals: bool,
    /// A run may end with interrupts.
    pub interrupts: bool,
    /// What is asked for cannot be edited: it can be rejected with a message.
    pub approve_with_edits: bool,
}
