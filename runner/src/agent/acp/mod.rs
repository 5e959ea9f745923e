//! Agents that speak the Agent Client Protocol (version 1) over their standard input and output.
//!
//! One process works on message after message; what it says is recorded as it comes. It is started when the first message needs it, and again
//! when it was lost: then it loads its own records of the conversation, or is told what was said. Everything it sends is input: bounded, and
//! nothing of it is done with more rights than its own.

mod attachments;
mod connection;
mod content;
mod files;
mod lines;
mod mcp;
mod permission;
mod placeholders;
mod process;
mod retold;
mod settings;
mod start;
mod terminals;
mod tools;
mod turn;
mod updates;

use std::sync::Arc;

use crate::{
    app::SharedApp,
    log::LogError,
    process::Mark,
    turn::{INTERRUPT_PATIENCE, Turn, TurnEnd},
};
use start::{Agent, NotStarted};

/// The agent of an attempt.
pub(crate) struct Host {
    app: SharedApp,
    agent: Option<Arc<Agent>>,
    /// Processes started so far.
    incarnations: u32,
}

impl Host {
    pub(crate) fn new(app: SharedApp) -> Self {
        Self { app, agent: None, incarnations: 0 }
    }

    /// Works on one message.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn work(&mut self, turn: &Turn) -> Result<TurnEnd, LogError> {
        let agent = match self.agent.take() {
            Some(agent) if !agent.process.has_ended() => agent,
            earlier => {
                // It has ended between two turns.
                if let Some(earlier) = earlier {
                    earlier.end().await;
                }
                match self.start(turn).await {
                    Ok(Some(agent)) => agent,
                    Ok(None) => return Ok(TurnEnd::Stopped),
                    Err(NotStarted::Log(error)) => return Err(error),
                    Err(NotStarted::Agent(reason)) => {
                        let end = TurnEnd::failed("AgentError", "the agent does not begin".to_owned(), None);
                        return Ok(end.in_its_words(reason));
                    }
                }
            }
        };
        let ended = turn::work(&agent, turn).await;
        match ended {
            Ok((end, turn::After::Stays)) => {
                self.agent = Some(agent);
                Ok(end)
            }
            Ok((end, turn::After::Gone)) => {
                agent.end().await;
                Ok(end)
            }
            Err(error) => {
                agent.end().await;
                Err(error)
            }
        }
    }

    /// Starts the agent; none if the turn was stopped meanwhile, and then nothing of it is left.
    async fn start(&mut self, turn: &Turn) -> Result<Option<Arc<Agent>>, NotStarted> {
        self.incarnations += 1;
        tokio::select! {
            biased;
            () = turn.stopped() => {}
            started = start::start(&self.app, self.incarnations) => return started.map(Some),
        }
        let attempt = &self.app.attempt;
        let mark = Mark::Turn(process::mark(attempt, self.incarnations));
        attempt.processes.end(mark, INTERRUPT_PATIENCE).await;
        Ok(None)
    }
}
