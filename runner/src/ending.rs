//! How turns and the runner end: the first reason counts.

use std::{sync::Mutex, time::Duration};

use tokio::sync::watch;

/// Why a turn is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A person asked.
    Interrupted,
    /// Its budget is used up.
    BudgetExceeded,
    /// The run ends.
    Terminated,
    /// The runner is killed from outside; the next attempt continues.
    RunnerLost,
}

impl Stop {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Interrupted => "Interrupted",
            Self::BudgetExceeded => "BudgetExceeded",
            Self::Terminated => "Terminated",
            Self::RunnerLost => "RunnerLost",
        }
    }
}

/// Why and how the runner ends.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// Recorded, and the process's exit code.
    pub(crate) code: i32,
    /// In words.
    pub(crate) reason: String,
    /// How a turn in progress is ended.
    pub(crate) stop: Stop,
    /// How long to wait until the reader has everything.
    pub(crate) ack: Duration,
    /// False if the end was not requested: without a record the next attempt resumes the run.
    pub(crate) recorded: bool,
}

/// The first end wins. Clones share it.
#[derive(Clone)]
pub(crate) struct Ending(watch::Sender<Option<End>>);

impl Ending {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn begin(&self, end: End) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(end);
            }
            first
        });
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(crate) fn now(&self) -> Option<End> {
        self.0.borrow().clone()
    }

    pub(crate) async fn begun(&self) -> End {
        let mut watch = self.0.subscribe();
        loop {
            if let Some(end) = watch.borrow_and_update().clone() {
                return end;
            }
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The turn in progress, and the means to stop it.
#[derive(Default)]
pub(crate) struct CurrentTurn {
    turn: Mutex<Option<watch::Sender<Option<Stop>>>>,
    halted: watch::Sender<bool>,
}

impl CurrentTurn {
    /// None if no turn may begin any more.
    pub(crate) fn begin(&self) -> Option<watch::Receiver<Option<Stop>>> {
        let mut current = self.turn.lock().ok()?;
        // Under the lock: who halts it afterwards finds this turn.
        if self.is_halted() {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        *current = Some(sender);
        Some(receiver)
    }

    pub(crate) fn end(&self) {
        if let Ok(mut current) = self.turn.lock() {
            *current = None;
        }
    }

    pub(crate) fn is_working(&self) -> bool {
        self.turn.lock().is_ok_and(|current| current.is_some())
    }

    /// Stops the turn in progress; no other begins.
    pub(crate) fn halt(&self) {
        self.halted.send_replace(true);
        self.stop(Stop::Interrupted);
    }

    pub(crate) fn is_halted(&self) -> bool {
        *self.halted.borrow()
    }

    pub(crate) async fn halted(&self) {
        // The sender lives as long as this.
        let _ = self.halted.subscribe().wait_for(|halted| *halted).await;
    }

    /// Stops the turn in progress; the first reason is kept.
    pub(crate) fn stop(&self, stop: Stop) {
        if let Ok(current) = self.turn.lock()
            && let Some(sender) = current.as_ref()
        {
            sender.send_if_modified(|now| {
                let first = now.is_none();
                if first {
                    *now = Some(stop);
                }
                first
            });
        }
    }
}
