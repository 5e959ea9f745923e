//! Which entities have an actor in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ractor::{ActorCell, ActorId, ActorStatus};
use tokio::sync::Semaphore;

pub(crate) type Key = (&'static str, String);

/// An actor in memory.
pub(crate) struct ActorEntry {
    pub(crate) cell: ActorCell,
    /// Bounds its mailbox.
    pub(crate) queue: Arc<Semaphore>,
    /// Free permits of an idle one.
    capacity: usize,
    last_used: Instant,
}

impl ActorEntry {
    /// No call is waiting or in progress.
    fn is_idle(&self) -> bool {
        self.queue.available_permits() == self.capacity
    }
}

/// Actors by entity. Never locked across an await.
#[derive(Default)]
pub(crate) struct Registry {
    entries: Mutex<HashMap<Key, ActorEntry>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, ActorEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entity's actor, created by `spawn` if there is none that accepts messages.
    pub(crate) fn get_or_spawn<F, X>(&self, key: Key, queue: usize, spawn: F) -> Result<(ActorCell, Arc<Semaphore>), X>
    where
        F: FnOnce() -> Result<ActorCell, X>,
    {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(&key).filter(|entry| takes_messages(&entry.cell)) {
            entry.last_used = Instant::now();
            return Ok((entry.cell.clone(), entry.queue.clone()));
        }
        let entry = ActorEntry {
            cell: spawn()?,
            queue: Arc::new(Semaphore::new(queue)),
            capacity: queue,
            last_used: Instant::now(),
        };
        let found = (entry.cell.clone(), entry.queue.clone());
        entries.insert(key, entry);
        metrics::gauge!("ambient_actors_resident").set(count(entries.len()));
        Ok(found)
    }

    /// Removes an actor that has ended, unless another one has replaced it.
    pub(crate) fn remove(&self, ended: ActorId) {
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.cell.get_id() != ended);
        metrics::gauge!("ambient_actors_resident").set(count(entries.len()));
    }

    /// Takes out actors that nobody has called for `idle_after` or that are too many, longest idle first.
    pub(crate) fn take_idle(&self, idle_after: Duration, max_resident: usize) -> Vec<ActorCell> {
        let mut entries = self.lock();
        // Every command waits meanwhile, so nothing is cloned or sorted.
        let now = Instant::now();
        let surplus = entries.len().saturating_sub(max_resident);
        let latest = now.checked_sub(idle_after).max(latest_of_oldest(&entries, surplus));
        let leaves = |entry: &ActorEntry| entry.is_idle() && Some(entry.last_used) <= latest;
        let leaving = entries.extract_if(|_, entry| leaves(entry));
        let cells = leaving.map(|(_, entry)| entry.cell).collect();
        metrics::gauge!("ambient_actors_resident").set(count(entries.len()));
        cells
    }

    pub(crate) fn take_all(&self) -> Vec<ActorCell> {
        self.lock().drain().map(|(_, entry)| entry.cell).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// When the last of the `n` longest-idle actors was used; working ones do not count, because one running beside its successor
/// would only run into conflicts.
fn latest_of_oldest(entries: &HashMap<Key, ActorEntry>, n: usize) -> Option<Instant> {
    let last = n.checked_sub(1)?;
    let mut used: Vec<_> = entries.values().filter(|entry| entry.is_idle()).map(|entry| entry.last_used).collect();
    let last = last.min(used.len().checked_sub(1)?);
    Some(*used.select_nth_unstable(last).1)
}

fn takes_messages(cell: &ActorCell) -> bool {
    cell.get_status() < ActorStatus::Draining
}

#[allow(clippy::cast_precision_loss, reason = "a gauge")]
fn count(n: usize) -> f64 {
    n as f64
}
