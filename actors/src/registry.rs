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
    residents: Mutex<HashMap<Key, ActorEntry>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, ActorEntry>> {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entity's actor, created by `spawn` if there is none that accepts messages.
    pub(crate) fn get_or_spawn<F, X>(&self, key: Key, queue: usize, spawn: F) -> Result<(ActorCell, Arc<Semaphore>), X>
    where
        F: FnOnce() -> Result<ActorCell, X>,
    {
        let mut residents = self.lock();
        if let Some(resident) = residents.get_mut(&key).filter(|resident| takes_messages(&resident.cell)) {
            resident.last_used = Instant::now();
            return Ok((resident.cell.clone(), resident.queue.clone()));
        }
        let resident = ActorEntry {
            cell: spawn()?,
            queue: Arc::new(Semaphore::new(queue)),
            capacity: queue,
            last_used: Instant::now(),
        };
        let found = (resident.cell.clone(), resident.queue.clone());
        residents.insert(key, resident);
        metrics::gauge!("ambient_actors_resident").set(count(residents.len()));
        Ok(found)
    }

    /// Removes an actor that has ended, unless another one has replaced it.
    pub(crate) fn remove(&self, ended: ActorId) {
        let mut residents = self.lock();
        residents.retain(|_, resident| resident.cell.get_id() != ended);
        metrics::gauge!("ambient_actors_resident").set(count(residents.len()));
    }

    /// Takes out actors that nobody has called for `idle_after` or that are too many, longest idle first.
    pub(crate) fn take_idle(&self, idle_after: Duration, max_resident: usize) -> Vec<ActorCell> {
        let mut residents = self.lock();
        // Every command waits meanwhile, so nothing is cloned or sorted.
        let now = Instant::now();
        let surplus = residents.len().saturating_sub(max_resident);
        let latest = now.checked_sub(idle_after).max(latest_of_oldest(&residents, surplus));
        let leaves = |resident: &ActorEntry| resident.is_idle() && Some(resident.last_used) <= latest;
        let leaving = residents.extract_if(|_, resident| leaves(resident));
        let cells = leaving.map(|(_, resident)| resident.cell).collect();
        metrics::gauge!("ambient_actors_resident").set(count(residents.len()));
        cells
    }

    pub(crate) fn take_all(&self) -> Vec<ActorCell> {
        self.lock().drain().map(|(_, resident)| resident.cell).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// When the last of the `n` longest-idle actors was used; working ones do not count, because one running beside its successor
/// would only run into conflicts.
fn latest_of_oldest(residents: &HashMap<Key, ActorEntry>, n: usize) -> Option<Instant> {
    let last = n.checked_sub(1)?;
    let mut used: Vec<_> = residents.values().filter(|one| one.is_idle()).map(|one| one.last_used).collect();
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
