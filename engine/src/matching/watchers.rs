//! Waiters for news of a run, for its end, or for a query.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::recorded::Recorded;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What waiters of one id share.
#[derive(Debug, Default)]
struct Watched {
    notify: Notify,
    /// The last event, once this process has closed the run.
    last: OnceLock<Recorded>,
}

/// Waiters for news of a run (or of a query).
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<HashMap<Uuid, (usize, Arc<Watched>)>>);

/// One waiter; gone when dropped.
pub(crate) struct Watch<'a> {
    watchers: &'a Watchers,
    id: Uuid,
    watched: Arc<Watched>,
}

impl Watch<'_> {
    /// Subscribe first, then read, then wait: what happens in between wakes the waiter.
    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.watched.notify.notified()
    }

    /// The event that closed the run, if this process closed it while someone was waiting.
    pub(crate) fn last(&self) -> Option<Recorded> {
        self.watched.last.get().cloned()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut map = lock(&self.watchers.0);
        if let Some((count, _)) = map.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                map.remove(&self.id);
            }
        }
    }
}

impl Watchers {
    pub(crate) fn watch(&self, id: Uuid) -> Watch<'_> {
        let mut map = lock(&self.0);
        let entry = map.entry(id).or_default();
        entry.0 += 1;
        Watch { watchers: self, id, watched: Arc::clone(&entry.1) }
    }

    pub(crate) fn wake(&self, id: Uuid) {
        if let Some((_, watched)) = lock(&self.0).get(&id) {
            watched.notify.notify_waiters();
        }
    }

    /// The run has been closed by this event.
    pub(crate) fn close(&self, id: Uuid, last: Option<&Recorded>) {
        if let Some((_, watched)) = lock(&self.0).get(&id) {
            if let Some(last) = last {
                let _ = watched.last.set(last.clone());
            }
            watched.notify.notify_waiters();
        }
    }

    pub(crate) fn wake_all(&self) {
        for (_, watched) in lock(&self.0).values() {
            watched.notify.notify_waiters();
        }
    }
}
