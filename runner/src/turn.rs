//! A turn, as an agent works on it.

use std::{sync::Arc, time::Duration};

use ambient_runner_protocol::DeliverMessage;
use serde_json::Value;
use tokio::sync::watch;

use crate::{app::App, ending::Stop, log::LogError};

/// How long an agent that was asked to stop may take before it is killed.
pub(crate) const INTERRUPT_PATIENCE: Duration = Duration::from_millis(1500);

/// How an agent's work on a message ended.
#[derive(Debug)]
pub(crate) enum TurnEnd {
    Finished,
    Stopped,
    Failed { code: &'static str, message: String, exit_code: Option<i32> },
}

impl TurnEnd {
    pub(crate) fn failed(code: &'static str, message: String, exit_code: Option<i32>) -> Self {
        Self::Failed { code, message, exit_code }
    }
}

/// A turn in progress.
pub(crate) struct Turn {
    pub(crate) app: Arc<App>,
    pub(crate) run_id: String,
    pub(crate) number: u64,
    pub(crate) message: DeliverMessage,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
}

impl Turn {
    /// Records events of the agent, in order.
    ///
    /// # Errors
    /// When the log is full or fails.
    pub(crate) async fn emit(&self, events: Vec<Value>) -> Result<(), LogError> {
        self.app.log.push(events).await
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
