//! Live channels: a session's events, and the frames of WebSocket subprotocol `ambient.v1`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{agui::FeedbackRating, runner_event::PermissionAnswer, session::Attachment};

/// WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "ambient.v1";

/// An event in a session's live log: what a person said (`user.message`), what became of the session (`session.*`), and what its runner
/// recorded. A log may also hold AG-UI events, which runners of earlier releases recorded in place of a `RunnerEvent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Place in the session's log, from 1, without gaps.
    pub seq: i64,
    /// Type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Payload, by `type`: a `UserMessageEvent` of `user.message`, `FeedbackEvent` of `user.feedback`, `PhaseEvent` of `session.phase`, `Condition` of `session.condition`,
    /// `StatusDetail` of `session.blocked`, `MessagesNotRunEvent` of `session.messages_not_run`, else, unless it begins with `session.`, a
    /// `RunnerEvent`, whose `type` it also is.
    pub data: Value,
    /// When it was accepted.
    pub at: DateTime<Utc>,
}

/// Payload of `user.message`: a person's message was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserMessageEvent {
    /// Message id.
    pub message_id: String,
    /// Run it belongs to.
    pub run: i64,
    /// `user`.
    pub role: String,
    /// It is the prompt of the run.
    pub is_prompt: bool,
    /// Length of the text, bytes.
    pub bytes: u64,
    /// SHA-256 of the text, hex.
    pub sha256: String,
    /// Text.
    pub text: String,
    /// What comes with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// Payload of `user.feedback`: what a person thinks of what the agent has said or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedbackEvent {
    /// Good or bad.
    pub rating: FeedbackRating,
    /// Who says so.
    pub by: String,
    /// Message that it is about; the session as a whole when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Why, in a word or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Payload of `session.phase`: the session entered a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhaseEvent {
    /// The phase.
    pub phase: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// Exit code of the runner, if it failed with one.
    pub exit_code: Option<i32>,
    /// Run.
    pub run: Option<i64>,
    /// Attempt.
    pub attempt: Option<i32>,
}

/// Payload of `session.messages_not_run`: a run ended before the agent came to these messages. They are not worked on later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessagesNotRunEvent {
    /// The run.
    pub run: i64,
    /// Their ids, in order.
    pub message_ids: Vec<String>,
}

/// Response to `POST /live/tickets`: a ticket for `GET /live?token=` and `GET /sessions/{id}/ws?token=`, for clients that cannot send headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LiveTicket {
    /// `LiveTicket`.
    pub kind: String,
    /// The ticket; opens live channels on behalf of whoever requested it, and nothing else.
    pub token: String,
    /// When it stops being valid for connecting.
    pub expires_at: DateTime<Utc>,
}

/// Client -> server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientFrame {
    /// Follow a channel.
    Subscribe {
        /// Chosen by the client; identifies the subscription in every frame about it.
        id: String,
        /// `session:<id>`.
        channel: String,
        /// Deliver everything after this seq; 0 = from the first event on; absent = a snapshot, if there is one, and what follows it. Where
        /// events right after it are no longer kept, it is refused as `too_old`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_seq: Option<i64>,
    },
    /// Stop following.
    Unsubscribe {
        /// Subscription.
        id: String,
    },
    /// Send a user message to a session.
    Send {
        /// Chosen by the client; also the idempotency key.
        id: String,
        /// Session id.
        session: String,
        /// Text.
        text: String,
    },
    /// Answer a permission request of a session's agent.
    Answer {
        /// Chosen by the client; also the idempotency key.
        id: String,
        /// Session id.
        session: String,
        /// The request.
        interrupt_id: String,
        /// The answer.
        answer: PermissionAnswer,
        /// With `reject`: what the agent should do instead; it is told as the next message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Answered with pong.
    Ping {},
}

/// Server -> client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ServerFrame {
    /// Messages up to a place in the log, sent before `subscribed` to a subscription without `after_seq`. Replaces all events
    /// up to `covers_seq`; has no seq of its own.
    Snapshot {
        /// Subscription.
        id: String,
        /// Events start right after it.
        covers_seq: i64,
        /// `{type: "MESSAGES_SNAPSHOT", covers_seq, omitted, messages: [{id, role, content, …}]}`, the newest messages in order.
        data: Value,
    },
    /// The subscription is active; events follow after `seq`.
    Subscribed {
        /// Subscription.
        id: String,
        /// Cursor it starts at.
        seq: i64,
    },
    /// An event.
    Event {
        /// Subscription.
        id: String,
        /// The event.
        #[serde(flatten)]
        event: Event,
    },
    /// A send or an answer was accepted.
    Ack {
        /// Id of the send or answer.
        id: String,
        /// Message id; absent for an answer without a message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    /// Something went wrong; with `id`, about that subscription, send or answer.
    Error {
        /// Subscription or send.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// `not_found`, `too_old`, `bad_frame`, `refused`, `busy`.
        code: String,
        /// For people.
        reason: String,
        /// With `too_old`: the oldest event that is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oldest: Option<i64>,
        /// With `too_old`: what the snapshot covers to start from. A subscription without `after_seq` begins with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        covers_seq: Option<i64>,
    },
    /// The channel has ended (the session was deleted).
    Ended {
        /// Subscription.
        id: String,
        /// `deleted`.
        reason: String,
    },
    /// Answer to ping, and a keep-alive every 15 s.
    Pong {},
}
