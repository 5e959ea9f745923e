//! A cache of runs as this process last left them, so that the next change need not read them first and the next workflow task can be
//! handed out without reading the history.
//!
//! Only a shortcut: every change is compared with the database when it is written, a refusal decided on a cached
//! state is decided again on what is stored, and a change made by another process evicts the run (through a hint) or
//! makes the next change fail its comparison.
//!
//! | A run is | What happens | Then it is |
//! |---|---|---|
//! | cached | a decision takes it | unknown, until that decision is written |
//! | cached | another process has changed it (hint); the cache is full | unknown |
//! | unknown | a change is written, a run is created, a task is claimed | cached, in its new state |
//! | unknown | a change is not written, or the outcome is unknown | unknown |
//! | cached | something older arrives (a late response) | cached as before |

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prost::Message;
use uuid::Uuid;

use crate::{
    model::{Activity, Loaded},
    recorded::Recorded,
};

/// Most activities cached; beyond that, all are evicted.
const MAX_ACTIVITIES: usize = 4096;
/// Memory for runs and their latest events; beyond that, all are evicted.
const MAX_BYTES: usize = 48 * 1024 * 1024;
/// Approximate size of a run besides its events and buffered events.
const RUN_BYTES: usize = 1024;
/// Anything larger (buffered events, latest events, an activity's input) is not worth caching.
const MAX_EACH: usize = 64 * 1024;

/// A run's newest events, up to its last one, without a gap.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The event before the first cached one.
    pub(crate) after: i64,
    events: Vec<Recorded>,
    bytes: usize,
}

impl Tail {
    /// `events` follow `after` and go up to the run's last event.
    pub(crate) fn new(after: i64, events: Vec<Recorded>) -> Self {
        let bytes = events.iter().map(Recorded::bytes).sum();
        Self { after, events, bytes }
    }

    /// Adds a change's events; drops those that a worker with the run in its cache will not ask for again.
    pub(crate) fn advanced(mut self, new: &[Recorded], previous_started_id: i64) -> Self {
        self.bytes += new.iter().map(Recorded::bytes).sum::<usize>();
        self.events.extend_from_slice(new);
        if previous_started_id > self.after {
            let seen = self.events.partition_point(|e| e.event_id() <= previous_started_id);
            self.bytes -= self.events.drain(..seen).map(|e| e.bytes()).sum::<usize>();
            self.after = previous_started_id;
        }
        self
    }

    /// The events after `after`, if they are all here.
    pub(crate) fn since(&self, after: i64) -> Option<Vec<Recorded>> {
        (self.after <= after).then(|| self.events.iter().filter(|e| e.event_id() > after).cloned().collect())
    }
}

/// A run and its newest events.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) loaded: Loaded,
    pub(crate) tail: Tail,
}

impl From<Loaded> for Remembered {
    /// As read from the database: what comes from there is cached.
    fn from(loaded: Loaded) -> Self {
        let tail = Tail::new(loaded.run.last_event_id, Vec::new());
        Self { loaded, tail }
    }
}

impl Remembered {
    fn bytes(&self) -> usize {
        RUN_BYTES + self.loaded.run.buffered.len() + self.loaded.run.updates.encoded_len() + self.tail.bytes
    }
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Hot {
    runs: Mutex<Runs>,
    activities: Mutex<HashMap<(Uuid, i64), Activity>>,
}

#[derive(Debug, Default)]
struct Runs {
    known: HashMap<Uuid, Remembered>,
    bytes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hot {
    /// Takes a run out: until it is put back, nobody else decides on it.
    pub(crate) fn take(&self, run: Uuid) -> Option<Remembered> {
        let mut runs = lock(&self.runs);
        let taken = runs.known.remove(&run)?;
        runs.bytes = runs.bytes.saturating_sub(taken.bytes());
        Some(taken)
    }

    /// A look at a cached run.
    #[cfg(test)]
    pub(crate) fn peek(&self, run: Uuid, look: impl FnOnce(&Remembered)) {
        if let Some(known) = lock(&self.runs).known.get(&run) {
            look(known);
        }
    }

    /// Caches a run as just read or written.
    pub(crate) fn put(&self, run: Remembered) {
        let bytes = run.bytes();
        if bytes > MAX_EACH {
            return;
        }
        let id = run.loaded.run.run_id;
        let mut runs = lock(&self.runs);
        if runs.bytes + bytes > MAX_BYTES {
            *runs = Runs::default();
        }
        if runs.known.get(&id).is_some_and(|known| known.loaded.run.revision > run.loaded.run.revision) {
            return;
        }
        let replaced = runs.known.insert(id, run).map_or(0, |old| old.bytes());
        runs.bytes = (runs.bytes + bytes).saturating_sub(replaced);
    }

    /// Whether the run was open, and of this workflow, when this process last saw it.
    pub(crate) fn is_open(&self, run: Uuid, workflow_id: &str) -> bool {
        lock(&self.runs).known.get(&run).is_some_and(|known| known.loaded.run.workflow_id == workflow_id)
    }

    /// Caches an activity that a worker has just been given.
    pub(crate) fn put_activity(&self, activity: Activity) {
        if activity.attributes.len() > MAX_EACH {
            return;
        }
        let mut activities = lock(&self.activities);
        if activities.len() >= MAX_ACTIVITIES {
            activities.clear();
        }
        activities.insert((activity.run_id, activity.scheduled_event_id), activity);
    }

    pub(crate) fn has_activity(&self, run: Uuid, scheduled_event_id: i64) -> bool {
        lock(&self.activities).contains_key(&(run, scheduled_event_id))
    }

    pub(crate) fn take_activity(&self, run: Uuid, scheduled_event_id: i64) -> Option<Activity> {
        lock(&self.activities).remove(&(run, scheduled_event_id))
    }
}
