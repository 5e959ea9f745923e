//! Seeing runners come and go.
//!
//! Level-triggered: a subscriber gets everything known, then changes; one that lags gets everything again. An exit is seen at once
//! through the process's handle (pidfd), even if the runner is another server's child; records are re-read at a slow
//! safety interval, so that what another server launched is seen too.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{broadcast, watch},
    time::{sleep, timeout},
};

use super::{Local, run_blocking, state::latest, watchdog};
use crate::{ComputeError, Observation, RunnerState, SessionRef};

/// Changes that a subscriber may lag behind before it gets everything again.
const CHANGES: usize = 1024;
/// Between two checks of an attempt that is coming up.
const COMING_UP: Duration = Duration::from_millis(25);
/// Between two attempts to scan everything, for a subscriber that waits for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two scans of everything.
const SAFETY: Duration = Duration::from_secs(5);

pub(super) type Key = (SessionRef, i64, i32);

/// Who watches what.
pub(super) struct Hub {
    changes: broadcast::Sender<Observation>,
    followed: Mutex<HashSet<Key>>,
    /// What was last reported for each session's last attempt.
    told: Mutex<HashMap<SessionRef, Observation>>,
    closed: watch::Sender<bool>,
    scanning: Mutex<bool>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            changes: broadcast::Sender::new(CHANGES),
            followed: Mutex::default(),
            told: Mutex::default(),
            closed: watch::Sender::new(false),
            scanning: Mutex::default(),
        }
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(super) fn tell(&self, observation: Observation) {
        let last = locked(&self.told).insert(observation.session.clone(), observation.clone());
        if last.as_ref() != Some(&observation) {
            // Without a subscriber nobody misses it: the next one gets everything.
            let _ = self.changes.send(observation);
        }
    }

    /// Whatever is seen of the session next is news, whatever was reported before.
    fn forget(&self, session: &SessionRef) {
        locked(&self.told).remove(session);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Attempts that are up or coming up.
    pub(super) fn followed(&self) -> Vec<Key> {
        locked(&self.followed).iter().cloned().collect()
    }

    /// What was reported about an attempt that exhausted a limit. Because it is reported before its agent is killed, it is known before the
    /// runner can say how that looked to it, and even when a full disk accepts no record.
    pub(super) fn told_exhausted(&self, session: &SessionRef, run: i64, attempt: i32) -> Option<RunnerState> {
        let told = self.told.lock().ok()?;
        let told = told.get(session).filter(|told| (told.run, told.attempt) == (run, attempt))?;
        matches!(told.state, RunnerState::Exhausted { .. }).then(|| told.state.clone())
    }

    fn is_over(&self, (session, run, attempt): &Key) -> bool {
        let over = |told: &Observation| {
            (told.run, told.attempt) == (*run, *attempt)
                && matches!(
                    told.state,
                    RunnerState::Exited { .. } | RunnerState::Lost { .. } | RunnerState::Exhausted { .. }
                )
        };
        locked(&self.told).get(session).is_some_and(over)
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything known, then every change.
pub(super) fn observe(local: &Arc<Local>) -> BoxStream<'static, Observation> {
    let changes = local.hub.changes.subscribe();
    local.scan_regularly();
    let state = Subscription { known: VecDeque::new(), behind: true, changes, local: Arc::downgrade(local) };
    stream::unfold(state, |mut state| async move { state.next().await.map(|observation| (observation, state)) }).boxed()
}

struct Subscription {
    known: VecDeque<Observation>,
    behind: bool,
    changes: broadcast::Receiver<Observation>,
    local: Weak<Local>,
}

impl Subscription {
    async fn next(&mut self) -> Option<Observation> {
        loop {
            if let Some(observation) = self.known.pop_front() {
                return Some(observation);
            }
            if self.behind {
                let local = self.local.upgrade().filter(|local| !*local.hub.closed.borrow())?;
                match everything(&local).await {
                    Ok(known) => (self.known, self.behind) = (known.into(), false),
                    Err(error) => {
                        tracing::warn!(%error, "sessions cannot be looked through; trying again");
                        drop(local);
                        sleep(LOOK_AGAIN).await;
                    }
                }
                continue;
            }
            match self.changes.recv().await {
                Ok(observation) => return Some(observation),
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// The last attempt of every session, and follows the live ones.
///
/// # Errors
/// When the sessions cannot be listed.
async fn everything(local: &Arc<Local>) -> Result<Vec<Observation>, ComputeError> {
    let scanned = local.clone();
    let keys = run_blocking(move || scanned.last_attempts()).await?;
    let mut all = Vec::new();
    for key in keys {
        let (session, run, attempt) = key.clone();
        let assessed = local.clone();
        match run_blocking(move || assessed.assess(&session, run, attempt)).await {
            Ok(known) => {
                if known.process.is_some() || known.coming_up {
                    local.follow(key.clone());
                }
                if known.state != RunnerState::Absent {
                    all.push(observation(key, known.state));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an attempt cannot be assessed; trying again");
                local.hub.forget(&key.0);
                local.follow(key);
            }
        }
    }
    Ok(all)
}

pub(super) fn observation((session, run, attempt): Key, state: RunnerState) -> Observation {
    Observation { session, run, attempt, state }
}

impl Local {
    /// Watches an attempt from now on.
    pub(super) fn watch(self: &Arc<Self>, session: &SessionRef, run: i64, attempt: i32) {
        self.follow((session.clone(), run, attempt));
    }

    fn follow(self: &Arc<Self>, key: Key) {
        if !locked(&self.hub.followed).insert(key.clone()) {
            return;
        }
        let local = self.clone();
        tokio::spawn(async move {
            let mut closed = local.hub.closed.subscribe();
            tokio::select! {
                () = follow_to_the_end(&local, &key) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            locked(&local.hub.followed).remove(&key);
        });
    }

    fn last_attempts(&self) -> Result<Vec<Key>, ComputeError> {
        let mut keys = Vec::new();
        for session in self.all_sessions()? {
            match latest(&self.paths(&session)) {
                Ok(last) => keys.extend(last.map(|(run, attempt)| (session, run, attempt))),
                Err(error) => {
                    tracing::warn!(%error, "attempts cannot be listed; trying again");
                    self.hub.forget(&session);
                }
            }
        }
        Ok(keys)
    }

    fn scan_regularly(self: &Arc<Self>) {
        if std::mem::replace(&mut *locked(&self.hub.scanning), true) {
            return;
        }
        watchdog::start(self);
        let local = self.clone();
        tokio::spawn(async move {
            let mut closed = local.hub.closed.subscribe();
            while timeout(SAFETY, closed.wait_for(|closed| *closed)).await.is_err() {
                let scanned = local.clone();
                match run_blocking(move || scanned.last_attempts()).await {
                    Ok(keys) => {
                        for key in keys.into_iter().filter(|key| !local.hub.is_over(key)) {
                            local.follow(key);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "sessions cannot be looked through; trying again"),
                }
            }
        });
    }
}

async fn follow_to_the_end(local: &Arc<Local>, key: &Key) {
    loop {
        let (assessed, (session, run, attempt)) = (local.clone(), key.clone());
        let known = match run_blocking(move || assessed.assess(&session, run, attempt)).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "an attempt cannot be assessed");
                sleep(SAFETY).await;
                continue;
            }
        };
        if known.state != RunnerState::Absent {
            local.hub.tell(observation(key.clone(), known.state));
        }
        match known.process {
            Some(process) => ended(process).await,
            None if known.coming_up => sleep(COMING_UP).await,
            None => return,
        }
    }
}

/// Waits until the process has ended.
#[allow(
    deprecated,
    reason = "deprecated because a descriptor could be closed under it; an OwnedFd that it owns cannot"
)]
pub(super) async fn ended(process: OwnedFd) {
    match AsyncFd::with_interest(process, Interest::READABLE) {
        Ok(process) => drop(process.readable().await),
        Err(error) => {
            tracing::warn!(%error, "a runner cannot be watched");
            sleep(SAFETY).await;
        }
    }
}
