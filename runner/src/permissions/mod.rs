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
    time::Duration,
};

use ambient_runner_protocol::{AnswerTaken, LaunchSpec, PermissionPolicy};
use ambient_wire::runner_event::{PermissionAnswer, PermissionOutcome, PermissionRequest, RunnerEvent};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Mutex, oneshot, watch},
    time::timeout,
};

use crate::{
    ending::Stop,
    error::{Error, Result},
    history::History,
    log::{EventLog, LogError},
};
pub(crate) use policy::{Asked, CUT, Verdict};

/// Most requests that wait at once; a further one is rejected.
const MAX_OPEN: usize = 64;
/// A wait without a limit.
const LONG: Duration = Duration::from_secs(400 * 86_400);

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

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Answered(PermissionAnswer),
    /// Nobody answered in time.
    Expired,
    /// The turn was stopped.
    Stopped,
    /// Too many others wait.
    TooMany,
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

    /// How long a request waits.
    fn patience(&self) -> Duration {
        let seconds = self.policy.read().ok().and_then(|policy| u64::try_from(policy.timeout?).ok());
        seconds.map_or(LONG, Duration::from_secs)
    }

    /// What the rules say.
    pub(crate) fn judge(&self, asked: &Asked<'_>) -> Verdict {
        self.policy.read().map_or(Verdict::Ask, |policy| policy::judge(&policy, asked))
    }

    /// What the rules say of a push, which somebody has asked for already: only those count that are about pushes.
    pub(crate) fn judge_push(&self, repo: &str, branch: &str) -> Verdict {
        self.policy.read().map_or(Verdict::Ask, |policy| policy::judge_push(&policy, &push_command(repo, branch)))
    }

    /// Whether a person may push by hand: who does so has been asked.
    ///
    /// # Errors
    /// A conflict that names the rule.
    pub(crate) fn may_push(&self, repo: &str, branch: &str) -> Result<()> {
        match self.judge_push(repo, branch) {
            Verdict::Decided { allowed: false, rule } => Err(denied(&rule)),
            Verdict::Decided { .. } | Verdict::Ask => Ok(()),
        }
    }

    /// The name of the next request.
    pub(crate) fn next_id(&self) -> String {
        format!("{}-{}", self.prefix, self.made.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Records a request, which then waits for [`Permissions::answer`], as long as the policy says or until its turn is stopped.
    ///
    /// # Errors
    /// When the log fails.
    pub(crate) async fn ask(
        &self,
        request: PermissionRequest,
        mut stop: watch::Receiver<Option<Stop>>,
    ) -> std::result::Result<Reply, LogError> {
        let id = request.interrupt_id.clone();
        let Some(mut answer) = self.open(request).await? else { return Ok(Reply::TooMany) };
        let reply = timeout(self.patience(), async {
            tokio::select! {
                biased;
                answer = &mut answer => answer.map_or(Reply::Stopped, Reply::Answered),
                _ = stop.wait_for(Option::is_some) => Reply::Stopped,
            }
        });
        let (reply, outcome) = match reply.await {
            Ok(Reply::Stopped) => (Reply::Stopped, PermissionOutcome::Cancelled),
            Ok(reply) => return Ok(reply),
            Err(_) => (Reply::Expired, PermissionOutcome::Expired),
        };
        self.close(&id, outcome).await?;
        // It may have been answered at the last moment.
        Ok(answer.try_recv().map_or(reply, Reply::Answered))
    }

    /// None if too many wait.
    async fn open(
        &self,
        request: PermissionRequest,
    ) -> std::result::Result<Option<oneshot::Receiver<PermissionAnswer>>, LogError> {
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
        Ok(Some(answer))
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
    async fn close(&self, id: &str, outcome: PermissionOutcome) -> std::result::Result<(), LogError> {
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

/// SHA-256 over parts, hex: the same for a request that is repeated.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a rule on commands sees of a push.
pub(crate) fn push_command(repo: &str, branch: &str) -> String {
    format!("git push {repo} {branch}")
}

/// Why a push does not happen.
pub(crate) fn denied(rule: &str) -> Error {
    Error::Conflict(format!("the permissions do not allow the push ({rule})"))
}
