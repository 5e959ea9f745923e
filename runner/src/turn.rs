//! A turn, as an agent works on it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ambient_runner_protocol::DeliverMessage;
use ambient_wire::runner_event::RunnerEvent;
use tokio::sync::watch;

use crate::{app::App, ending::Stop, log::LogError, playbook::Expanded};

/// How long an agent that was asked to stop may take before it is killed.
pub(crate) const INTERRUPT_PATIENCE: Duration = Duration::from_millis(1500);

/// How an agent's work on a message ended.
#[derive(Debug)]
pub(crate) enum TurnEnd {
    Finished,
    Stopped,
    Failed {
        code: &'static str,
        /// In words of ours, which go into the runner's end and so into operations.
        message: String,
        /// In the agent's words, which may hold anything, secrets too: for the log only.
        words: String,
        exit_code: Option<i32>,
    },
}

impl TurnEnd {
    pub(crate) fn failed(code: &'static str, message: String, exit_code: Option<i32>) -> Self {
        Self::Failed { code, message, words: String::new(), exit_code }
    }

    /// The same, with what the agent says about it.
    pub(crate) fn in_its_words(self, told: String) -> Self {
        match self {
            Self::Failed { code, message, exit_code, .. } => Self::Failed { code, message, words: told, exit_code },
            other => other,
        }
    }
}

/// A turn in progress.
pub(crate) struct Turn {
    pub(crate) app: Arc<App>,
    pub(crate) run_id: String,
    pub(crate) number: u64,
    pub(crate) message: DeliverMessage,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
    /// Why the agent stopped, as it says.
    stop_reason: Mutex<Option<String>>,
}

impl Turn {
    pub(crate) fn new(
        app: Arc<App>,
        run_id: String,
        number: u64,
        message: DeliverMessage,
        stop: watch::Receiver<Option<Stop>>,
    ) -> Self {
        Self { app, run_id, number, message, stop, stop_reason: Mutex::default() }
    }

    pub(crate) fn stop_reason(&self) -> Option<String> {
        self.stop_reason.lock().ok()?.clone()
    }

    pub(crate) fn set_stop_reason(&self, reason: String) {
        if let Ok(mut current) = self.stop_reason.lock() {
            *current = Some(reason);
        }
    }

    /// Records events of the agent, in order.
    ///
    /// # Errors
    /// When the log is full or fails.
    pub(crate) async fn emit(&self, events: Vec<RunnerEvent>) -> Result<(), LogError> {
        self.app.log.push(events).await
    }

    /// What the message stands for, if it begins with a command of the playbook that is not the agent's own.
    pub(crate) fn expanded(&self, is_agents: impl Fn(&str) -> bool) -> Option<Expanded> {
        self.app.playbooks.current()?.expanded(&self.message.text, is_agents)
    }

    /// Waits until the turn should stop.
    pub(crate) async fn stopped(&self) {
        if self.stop.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }
}
