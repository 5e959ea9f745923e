//! What every entity consists of.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    agent_launch::AgentLaunch,
    column::Column,
    effect::{Effect, LiveEvent, NameClaim},
};

/// Everything `decide` may use besides state and command. Stored with the operation, so that it can be decided again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Time of the decision, UTC, microseconds.
    pub now: DateTime<Utc>,
    /// Id of the operation (KSUID), assigned before the append so that a retry is recognised.
    pub operation_id: String,
    /// Who asks: user name, `session:<id>`, or `system:<part>`.
    pub principal: String,
    /// Values resolved from configuration.
    pub defaults: Defaults,
}

/// Values that a command leaves open, resolved from project settings and server configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<String>,
    /// Inactivity timeout, seconds; 0 = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// What the session's agent is started with, if the command starts a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<AgentLaunch>>,
}

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision<E> {
    /// At least one event.
    Events(Vec<E>),
    /// No event, no operation.
    NothingToDo(NothingToDo),
}

/// Why there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NothingToDo {
    /// It is already so; a repeated command or fact of the current run.
    Already,
    /// A fact from another run or attempt, or about a deleted entity: whoever reported it is out of date and ends.
    Superseded,
}

/// Machine-readable class of a refusal; the edge maps it to a status in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The phase does not allow it (409).
    Phase,
    /// The phase does not allow it now but will soon (409 with Retry-After).
    TryLater,
    /// The input is wrong (400, with the field).
    Invalid,
    /// It does not exist, or no longer does (404).
    NotFound,
    /// It exists already, or a rule such as "the last owner stays" forbids it (409).
    Conflict,
}

/// A command that cannot be carried out. Never used for facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Class.
    pub code: RefusalCode,
    /// The input field at fault, if there is one.
    pub field: Option<String>,
    /// For people: what is wrong, the current phase, and what is allowed.
    pub reason: String,
}

impl Refusal {
    /// A refusal without a field.
    #[must_use]
    pub fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { code, field: None, reason: reason.into() }
    }
    /// Wrong input.
    #[must_use]
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code: RefusalCode::Invalid, field: Some(field.into()), reason: reason.into() }
    }
    /// The same, of a field that is in another.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self { field: self.field.map(|field| format!("{outer}.{field}")), ..self }
    }
}

/// What must hold in the append's transaction, because it is not in the entity's own state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The project exists and is Active (its row is locked FOR SHARE).
    ProjectActive {
        /// Project id.
        project_id: String,
    },
    /// The session's live log has no event after `seq`.
    LogNotNewer {
        /// Session id.
        session_id: String,
        /// The last event the caller has seen.
        seq: i64,
    },
}

/// A Kind of the API that is kept in another one's stream: its history consists of these commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Name, like that of a kind with its own stream: `permission`.
    pub kind: &'static str,
    /// Commands of the stream that may change it.
    pub commands: &'static [&'static str],
}

/// A state machine with a stream of operations.
pub trait Entity: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the kind in the operation log: `session`, `project`.
    const KIND: &'static str;
    /// Name of the kind in the API and in messages: `Session`, `Project`.
    const TITLE: &'static str;
    /// Schema version of stored commands and events.
    const SCHEMA_VERSION: i32;
    /// What lists filter and order by, besides what every Kind has: id, project, version and times.
    const COLUMNS: &'static [Column<Self>];
    /// Kinds of the API without their own stream: commands of this one change them.
    const PARTS: &'static [Part] = &[];
    /// Whether it has a live log.
    const HAS_LIVE_LOG: bool = false;
    /// Whether what it says holds for the sessions below it, so that the readers of their runners look for changes.
    const RULES_SESSIONS: bool = false;
    /// Whether it belongs to a project, with which it is deleted. Only a project itself does not.
    const IN_PROJECT: bool = true;
    /// What can be asked.
    type Command: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What has happened.
    type Event: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Name of a command in the operation log.
    fn command_name(command: &Self::Command) -> &'static str;
    /// Decides a command.
    ///
    /// # Errors
    /// A [`Refusal`]; facts are never refused.
    fn decide(
        state: Option<&Self>,
        command: &Self::Command,
        context: &Context,
    ) -> Result<Decision<Self::Event>, Refusal>;
    /// Applies an event. Total: an event that was stored is always applicable to the state it was decided on.
    #[must_use]
    fn apply(state: Option<Self>, event: &Self::Event, at: DateTime<Utc>) -> Self;
    /// Called once after all events of an operation, with the operation's version.
    fn set_version(&mut self, version: i64, at: DateTime<Utc>);
    /// Id (KSUID).
    fn id(&self) -> &str;
    /// Version = number of operations.
    fn version(&self) -> i64;
    /// Project for tenancy.
    fn project_id(&self) -> &str;
    /// When it was created.
    fn created_at(&self) -> DateTime<Utc>;
    /// When its last operation was decided.
    fn updated_at(&self) -> DateTime<Utc>;
    /// When it was (softly) deleted.
    fn deleted_at(&self) -> Option<DateTime<Utc>>;
    /// Softly deleted.
    fn is_deleted(&self) -> bool {
        self.deleted_at().is_some()
    }
    /// The command that deletes it, as when its project is deleted.
    fn deletion() -> Self::Command;
    /// Whether its `spec`, which is stored separately, equals that of `other`; true for a Kind without one. A Kind whose spec
    /// can be long overrides this.
    fn has_spec_of(&self, other: &Self) -> bool {
        let spec = |entity: &Self| {
            serde_json::to_value(entity).ok().and_then(|mut value| value.get_mut("spec").map(serde_json::Value::take))
        };
        spec(self) == spec(other)
    }
    /// The run that its live events belong to, unless they say so themselves.
    fn live_run(&self) -> Option<i64> {
        None
    }
    /// Conditions outside the entity that the command needs.
    #[must_use]
    fn guards(state: Option<&Self>, command: &Self::Command) -> Vec<Guard>;
    /// What else is done for the events, in order: workflows.
    #[must_use]
    fn effects(&self, events: &[Self::Event], context: &Context) -> Vec<Effect>;
    /// Live log events that go with the operation. The append fills in a message's `body`.
    #[must_use]
    fn live(&self, events: &[Self::Event]) -> Vec<LiveEvent>;
    /// Unique names claimed or released.
    #[must_use]
    fn names(&self, events: &[Self::Event]) -> Vec<NameClaim>;
}
