//! What an agent may do without asking, and its requests that wait for an answer.
//!
//! A request is recorded before anybody can answer it, and its end before the agent gets the answer: whatever dies in between, an answer is
//! handed over at most once, to the request of the agent that made it.

mod policy;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ambient_runner_protocol::{AnswerTaken, LaunchSpec, PermissionPolicy};
use ambient_wire::runner_event::{PermissionAnswer, PermissionOutcome, PermissionRequest, RunnerEvent};
use tokio::sync::{Mutex, oneshot};

use crate::{
    error::{Error, Result},
    history::History,
    log::{EventLog, LogError},
};
pub(crate) use policy::{Asked, Verdict};

/// Most requests that wait at once; a further one is rejected.
const MAX_OPEN: usize = 64;

/// Requests of this attempt's agent.
pub(crate) struct Permissions {
    policy: RwLock<PermissionPolicy>,
    open: Mutex<Requests>,
    /// `{run}-{attempt}`.
    prefix: String,
    made: AtomicU32,
    log: EventLog,
}

#[derive(Default)]
struct Requests {
    waiting: HashMap<String, oneshot::Sender<PermissionAnswer>>,
    closed: HashSet<String>,
}

/// A request that waits.
pub(crate) struct Waiting {
    pub(crate) answer: oneshot::Receiver<PermissionAnswer>,
}

impl Permissions {
    pub(crate) fn new(spec: &LaunchSpec, history: &History, log: EventLog) -> Self {
        // What is open belongs to an agent that is gone.
        let closed = history.requests.keys().cloned().collect();
        Self {
            policy: RwLock::new(spec.permissions.clone()),
            open: Mutex::new(Requests { waiting: HashMap::new(), closed }),
            prefix: format!("{}-{}", spec.run, spec.attempt),
            made: AtomicU32::new(0),
            log,
        }
    }

    pub(crate) fn set_policy(&self, policy: PermissionPolicy) {
        if let Ok(mut current) = self.policy.write() {
            *current = policy;
        }
    }

    /// Seconds after which a request is rejected.
    pub(crate) fn timeout(&self) -> Option<i64> {
        self.policy.read().ok()?.timeout
    }

    /// What the rules say.
    pub(crate) fn judge(&self, asked: &Asked<'_>) -> Verdict {
        self.policy.read().map_or(Verdict::Ask, |policy| policy::judge(&policy, asked))
    }

    /// The name of the next request.
    pub(crate) fn next_id(&self) -> String {
        format!("{}-{}", self.prefix, self.made.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Records a request, which then waits for [`Permissions::answer`]; none if too many do.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn ask(&self, request: PermissionRequest) -> std::result::Result<Option<Waiting>, LogError> {
        let mut open = self.open.lock().await;
        if open.waiting.len() >= MAX_OPEN {
            return Ok(None);
        }
        let (sender, answer) = oneshot::channel();
        open.waiting.insert(request.interrupt_id.clone(), sender);
        let id = request.interrupt_id.clone();
        if let Err(error) = self.log.append(vec![RunnerEvent::PermissionRequested { request }]).await {
            open.waiting.remove(&id);
            return Err(error);
        }
        Ok(Some(Waiting { answer }))
    }

    /// Hands an answer to the request, if it still waits.
    ///
    /// # Errors
    /// If there was no such request; when the log fails.
    pub(crate) async fn answer(&self, id: &str, answer: PermissionAnswer) -> Result<AnswerTaken> {
        let mut open = self.open.lock().await;
        let Some(sender) = open.waiting.remove(id) else {
            let known = open.closed.contains(id);
            let taken = AnswerTaken { interrupt_id: id.to_owned(), taken: false };
            return if known { Ok(taken) } else { Err(Error::NotFound(format!("no request '{id}'"))) };
        };
        open.closed.insert(id.to_owned());
        let (interrupt_id, outcome) = (id.to_owned(), PermissionOutcome::Answered);
        let closed = RunnerEvent::PermissionClosed { interrupt_id, outcome, answer: Some(answer) };
        self.log.append(vec![closed]).await.map_err(|e| Error::Internal(e.to_string()))?;
        let _ = sender.send(answer);
        Ok(AnswerTaken { interrupt_id: id.to_owned(), taken: true })
    }

    /// Closes a request that nobody has answered; one that somebody has stays as it is.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn close(&self, id: &str, outcome: PermissionOutcome) -> std::result::Result<(), LogError> {
        let mut open = self.open.lock().await;
        if open.waiting.remove(id).is_none() {
            return Ok(());
        }
        open.closed.insert(id.to_owned());
        let closed = RunnerEvent::PermissionClosed { interrupt_id: id.to_owned(), outcome, answer: None };
        self.log.append(vec![closed]).await.map(drop)
    }

    /// Closes every request that waits.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn close_all(&self, outcome: PermissionOutcome) -> std::result::Result<(), LogError> {
        let waiting: Vec<String> = self.open.lock().await.waiting.keys().cloned().collect();
        for id in waiting {
            self.close(&id, outcome).await?;
        }
        Ok(())
    }
}
