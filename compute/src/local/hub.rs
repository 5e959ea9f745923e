//! What watchers are told about attempts.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{broadcast, watch};

use crate::{Observation, RunnerState, SessionRef};

/// Changes that a subscriber may lag behind before it gets everything again.
const CHANGES: usize = 1024;

/// An attempt: session, run, attempt.
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
    pub(super) fn forget(&self, session: &SessionRef) {
        locked(&self.told).remove(session);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Becomes true when nobody is watching any more.
    pub(super) fn end(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Every change from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Observation> {
        self.changes.subscribe()
    }

    /// False if the attempt is already being followed.
    pub(super) fn begin_to_follow(&self, key: &Key) -> bool {
        locked(&self.followed).insert(key.clone())
    }

    pub(super) fn cease_to_follow(&self, key: &Key) {
        locked(&self.followed).remove(key);
    }

    /// False if someone is already scanning everything regularly.
    pub(super) fn begin_to_scan(&self) -> bool {
        !std::mem::replace(&mut *locked(&self.scanning), true)
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

    pub(super) fn is_over(&self, (session, run, attempt): &Key) -> bool {
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

pub(super) fn observation((session, run, attempt): Key, state: RunnerState) -> Observation {
    Observation { session, run, attempt, state }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
