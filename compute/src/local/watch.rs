//! Seeing runners come and go.
//!
//! Level-triggered: a subscriber gets everything known, then changes; one that lags gets everything again. An exit is seen at once
//! through the process's handle (pidfd), even if the runner is another server's child; records are re-read at a slow
//! safety interval, so that what another server launched is seen too.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::broadcast,
    time::{sleep, timeout},
};

use super::{
    host::{Local, run_blocking},
    hub::{Key, observation},
    state::latest,
    watchdog,
};
use crate::{ComputeError, Observation, RunnerState, SessionRef};

/// Between two checks of an attempt that is coming up.
const COMING_UP: Duration = Duration::from_millis(25);
/// Between two attempts to scan everything, for a subscriber that waits for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two scans of everything.
const SAFETY: Duration = Duration::from_secs(5);

/// Everything known, then every change.
pub(super) fn observe(local: &Arc<Local>) -> BoxStream<'static, Observation> {
    let changes = local.hub.subscribe();
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
                let local = self.local.upgrade().filter(|local| !local.hub.is_closed())?;
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

impl Local {
    /// Watches an attempt from now on.
    pub(super) fn watch(self: &Arc<Self>, session: &SessionRef, run: i64, attempt: i32) {
        self.follow((session.clone(), run, attempt));
    }

    fn follow(self: &Arc<Self>, key: Key) {
        if !self.hub.begin_to_follow(&key) {
            return;
        }
        let local = self.clone();
        tokio::spawn(async move {
            let mut closed = local.hub.end();
            tokio::select! {
                () = follow_to_the_end(&local, &key) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            local.hub.cease_to_follow(&key);
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
        if !self.hub.begin_to_scan() {
            return;
        }
        watchdog::start(self);
        let local = self.clone();
        tokio::spawn(async move {
            let mut closed = local.hub.end();
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
