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
pub(crate) struct Resident {
    pub(crate) cell: ActorCell,
    /// Bounds its mailbox.
    pub(crate) queue: Arc<Semaphore>,
    /// Permits of an idle one.
    capacity: usize,
    last_used: Instant,
}

impl Resident {
    /// No call is waiting or under way.
    fn is_idle(&self) -> bool {
        self.queue.available_permits() == self.capacity
    }
}

/// Actors by entity. Never locked across an await.
#[derive(Default)]
pub(crate) struct Registry {
    residents: Mutex<HashMap<Key, Resident>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Resident>> {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entity's actor, made by `spawn` when there is none that takes messages.
    pub(crate) fn get_or_spawn<F, X>(&self, key: Key, queue: usize, spawn: F) -> Result<(ActorCell, Arc<Semaphore>), X>
    where
        F: FnOnce() -> Result<ActorCell, X>,
    {
        let mut residents = self.lock();
        if let Some(resident) = residents.get_mut(&key).filter(|resident| takes_messages(&resident.cell)) {
            resident.last_used = Instant::now();
            return Ok((resident.cell.clone(), resident.queue.clone()));
        }
        let resident = Resident {
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

    /// Forgets an actor that has ended, unless another one has taken its place.
    pub(crate) fn remove(&self, ended: ActorId) {
        let mut residents = self.lock();
        residents.retain(|_, resident| resident.cell.get_id() != ended);
        metrics::gauge!("ambient_actors_resident").set(count(residents.len()));
    }

    /// Takes out actors that nobody called for `idle_after` or that are too many, longest idle first.
    pub(crate) fn take_idle(&self, idle_after: Duration, max_resident: usize) -> Vec<ActorCell> {
        let mut residents = self.lock();
        // One that works stays: beside its successor it would only get into conflicts.
        let idle = residents.iter().filter(|(_, resident)| resident.is_idle());
        let mut ages: Vec<(Duration, Key)> =
            idle.map(|(key, resident)| (resident.last_used.elapsed(), key.clone())).collect();
        ages.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        let surplus = residents.len().saturating_sub(max_resident);
        let leaving = ages.into_iter().enumerate().filter(|(i, (age, _))| *i < surplus || *age >= idle_after);
        let cells = leaving.filter_map(|(_, (_, key))| residents.remove(&key)).map(|resident| resident.cell).collect();
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

fn takes_messages(cell: &ActorCell) -> bool {
    cell.get_status() < ActorStatus::Draining
}

#[allow(clippy::cast_precision_loss, reason = "a gauge")]
fn count(n: usize) -> f64 {
    n as f64
}
