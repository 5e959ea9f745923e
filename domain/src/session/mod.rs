//! A session: one agent with a workspace, through runs, attempts and generations.
//!
//! Invariants: every way out of Pending, Creating and Running goes through Stopping with a recorded outcome, and only
//! that run's `TornDown` leaves Stopping; so a terminal phase proves that nothing of the run is left. Run, attempt and
//! generation only grow.

mod agent_command;
mod apply;
mod attachment;
mod columns;
mod command;
mod condition;
mod decide;
mod effects;
mod event;
mod fact;
mod feedback;
mod interrupt;
mod output;
mod playbook;
mod resources;
mod spec;
mod state;

pub use crate::agent_launch::{AgentCommand, AgentEndpoint, AgentLaunch, AgentSettings, DefinitionVersion};
pub(crate) use agent_command::validate_command;
pub use attachment::Attachment;
pub use command::{Command, Message, SessionPatch, StopReason};
pub use condition::{Condition, ConditionStatus, ConditionType};
pub use event::Event;
pub use fact::{Fact, RUNNER_UNRESPONSIVE, TurnOutcome};
pub use feedback::{Feedback, Rating};
pub use interrupt::{
    ClosedInterrupt, GivenAnswer, Interrupt, InterruptOutcome, MAX_CLOSED, MAX_OPEN, PermissionRequest,
    WAITING_FOR_ANSWER,
};
pub use output::{PushTo, Repo, RepoOutput, Submodules, default_branch, same_destination, validate_output};
pub use playbook::{PLAYBOOK_FAILED, Playbook, ReconciledPlaybook};
pub use resources::{ResourceOverrides, ResourcePatch};
pub use spec::Spec;
pub(crate) use spec::launch;
pub use state::{Lifecycle, Phase, ReconciledRepo, RepoPosition, RepoProblem, Run, RunOutcome, Session, StatusDetail};

/// Most launches per run.
pub const MAX_ATTEMPTS: i32 = 3;
/// Timeout of a batch session that sets none, seconds.
pub const DEFAULT_BATCH_TIMEOUT: i64 = 300;
/// Inactivity timeout if neither session, project nor server sets one, seconds.
pub const DEFAULT_INACTIVITY_TIMEOUT: i64 = 24 * 3600;

/// Ids of a session's workflow executions.
pub mod workflow_id {
    /// `session-supervise` of a run.
    #[must_use]
    pub fn supervise(session_id: &str, run: i64) -> String {
        format!("session-supervise/{session_id}/{run}")
    }
    /// `session-start` of an attempt.
    #[must_use]
    pub fn start(session_id: &str, run: i64, attempt: i32) -> String {
        format!("session-start/{session_id}/{run}.{attempt}")
    }
    /// `session-stop` of a run; a lost execution is followed by one with the next `stop_attempt`.
    #[must_use]
    pub fn stop(session_id: &str, run: i64, stop_attempt: i32) -> String {
        match stop_attempt {
            1 => format!("session-stop/{session_id}/{run}"),
            n => format!("session-stop/{session_id}/{run}.{n}"),
        }
    }
    /// `token-refresh` of a run.
    #[must_use]
    pub fn token_refresh(session_id: &str, run: i64) -> String {
        format!("token-refresh/{session_id}/{run}")
    }
    /// `session-delete`.
    #[must_use]
    pub fn delete(session_id: &str, operation_id: &str) -> String {
        format!("session-delete/{session_id}/{operation_id}")
    }
}
