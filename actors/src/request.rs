//! What an actor is asked, and what it replies.

use ambient_domain::{Defaults, Entity, Refusal};

/// What identifies a repeatable request, together with the principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// HTTP method.
    pub method: String,
    /// Concrete path.
    pub path: String,
    /// Value of `Idempotency-Key`.
    pub key: String,
    /// Hash of the body: the same key with a different body is misuse.
    pub request_hash: Vec<u8>,
}

/// Who asks, and in what context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// User name, `session:<id>`, or `system:<part>`.
    pub principal: String,
    /// Follows a request through everything it causes; the operation's id when empty.
    pub correlation_id: String,
    /// Operation or workflow that causes this request.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub trace_parent: Option<String>,
}

/// A command with everything that goes with it.
#[derive(Debug, Clone)]
pub struct Request<E: Entity> {
    /// The command.
    pub command: E::Command,
    /// Who requested it.
    pub caller: Caller,
    /// Only at this version.
    pub if_match: Option<i64>,
    /// Makes the request idempotent.
    pub idempotency: Option<IdempotencyKey>,
    /// Texts of messages; the command contains their hashes.
    pub bodies: Vec<String>,
    /// Values resolved from configuration.
    pub defaults: Defaults,
}

impl<E: Entity> Request<E> {
    /// A request without conditions.
    #[must_use]
    pub fn new(command: E::Command, caller: Caller) -> Self {
        Self { command, caller, if_match: None, idempotency: None, bodies: Vec::new(), defaults: Defaults::default() }
    }
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    /// An operation was written.
    Applied,
    /// It was so already.
    Already,
    /// A fact that is out of date: its reporter ends.
    Superseded,
}

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<E> {
    /// The entity afterwards.
    pub state: E,
    /// The outcome.
    pub outcome: CommandOutcome,
    /// The operation, if there is one.
    pub operation_id: Option<String>,
    /// The reply is that of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The command cannot be carried out. For a fact only if the entity never existed (code `NotFound`).
    #[error(transparent)]
    Refused(Refusal),
    /// `if_match` is not the current version (412).
    #[error("the current version is {current}")]
    Stale {
        /// Current version.
        current: i64,
    },
    /// The idempotency key was used for another request (422).
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The name belongs to another entity (409).
    #[error("the name '{name}' is taken")]
    NameTaken {
        /// Name space.
        scope: String,
        /// Name.
        name: String,
    },
    /// Too many calls are waiting (503 with Retry-After); nothing was done.
    #[error("too many requests are waiting")]
    Busy,
    /// No reply in time, or an outcome that could not be determined (503): repeat with the same idempotency key.
    #[error("no answer in time; operation {operation_id} may or may not be carried out")]
    Timeout {
        /// Id the operation has if it is carried out.
        operation_id: String,
    },
    /// It cannot be done right now (503); nothing was done.
    #[error("not available at present: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The server is shutting down (503); nothing was done.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl CallError {
    /// Class for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Stale { .. } => "stale",
            Self::KeyReused => "key_reused",
            Self::NameTaken { .. } => "name_taken",
            Self::Busy => "busy",
            Self::Timeout { .. } => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
