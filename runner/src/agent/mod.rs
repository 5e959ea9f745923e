//! Agents this build can host.

mod acp;
mod blocks;
mod output;
mod script;
mod setup;
mod shell;

use ambient_runner_protocol::LaunchSpec;

pub(crate) use setup::Setup;

use crate::{
    app::SharedApp,
    log::LogError,
    turn::{Turn, TurnEnd},
};

/// The agent that is built in.
const SCRIPT: &str = "script";

/// What works on an attempt's messages.
pub(crate) enum Agent {
    Script,
    Acp(Box<acp::Host>),
}

/// Whether this build can host an attempt's agent.
///
/// # Errors
/// In words, if not.
pub(crate) fn check(spec: &LaunchSpec) -> Result<(), String> {
    if spec.agent_command.is_some() || spec.agent == SCRIPT {
        return Ok(());
    }
    Err(format!("agent '{}' has no command, and is not built in, as {SCRIPT} is", spec.agent))
}

impl Agent {
    pub(crate) fn new(app: &SharedApp) -> Self {
        if app.attempt.spec.agent_command.is_some() {
            Self::Acp(Box::new(acp::Host::new(app.clone())))
        } else {
            Self::Script
        }
    }

    /// Works on one message.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn work(&mut self, turn: &Turn) -> Result<TurnEnd, LogError> {
        match self {
            Self::Script => script::work(turn).await,
            Self::Acp(host) => host.work(turn).await,
        }
    }
}
