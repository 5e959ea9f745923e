//! Agents this build can host.

mod blocks;
mod output;
mod script;
mod shell;

use crate::{
    log::LogError,
    turn::{Turn, TurnEnd},
};

/// Names of the agents of this build.
pub(crate) const AVAILABLE: [&str; 1] = ["script"];

/// Works on one message.
///
/// # Errors
/// When the log fails.
pub(crate) async fn work(turn: &Turn) -> Result<TurnEnd, LogError> {
    match turn.app.attempt.spec.agent.as_str() {
        "script" => script::work(turn).await,
        other => Ok(TurnEnd::failed("AgentError", format!("agent '{other}' is not in this build"), None)),
    }
}
