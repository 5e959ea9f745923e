//! Runs as this process last left them, so that the next change need not read them first.
//!
//! Only a short cut: every change is compared with the database when it is written, and a refusal decided on a remembered
//! state is decided again on what is stored.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use crate::store::{Activity, load::Loaded};

/// Runs remembered at most; when there are more, all are forgotten.
const MAX_RUNS: usize = 4096;
/// What is larger (buffered events, an activity's input) is not worth its memory.
const MAX_BUFFERED: usize = 64 * 1024;

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Hot {
    runs: Mutex<HashMap<Uuid, Loaded>>,
    activities: Mutex<HashMap<(Uuid, i64), Activity>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hot {
    /// Takes a run out: until it is put back, nobody else decides on it.
    pub(crate) fn take(&self, run: Uuid) -> Option<Loaded> {
        lock(&self.runs).remove(&run)
    }

    /// Remembers a run as just read or written.
    pub(crate) fn put(&self, loaded: Loaded) {
        if loaded.run.buffered.len() > MAX_BUFFERED {
            return;
        }
        let mut runs = lock(&self.runs);
        if runs.len() >= MAX_RUNS {
            runs.clear();
        }
        let newer = runs.get(&loaded.run.run_id).is_some_and(|known| known.run.revision > loaded.run.revision);
        if !newer {
            runs.insert(loaded.run.run_id, loaded);
        }
    }

    /// Remembers an activity that a worker has just been given.
    pub(crate) fn put_activity(&self, activity: Activity) {
        if activity.attributes.len() > MAX_BUFFERED {
            return;
        }
        let mut activities = lock(&self.activities);
        if activities.len() >= MAX_RUNS {
            activities.clear();
        }
        activities.insert((activity.run_id, activity.scheduled_event_id), activity);
    }

    pub(crate) fn take_activity(&self, run: Uuid, scheduled_event_id: i64) -> Option<Activity> {
        lock(&self.activities).remove(&(run, scheduled_event_id))
    }
}
