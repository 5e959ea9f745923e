//! Changes that are decided but not yet written, and who waits for them.
//!
//! Only the storage; `deferred` decides when a change is put here, joined or written.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};
use tonic::Status;
use uuid::Uuid;

use crate::{hot::Tail, model::Transition};

/// Why a transition was not written, as seen by those who wait for it.
#[derive(Clone, Debug)]
pub(crate) enum Unwritten {
    /// A conflict: decide again.
    Conflict,
    Duplicate,
    Failed(Status),
}

/// A decided change with the run's newest events before it and the requests that wait for it.
pub(crate) struct Change {
    pub(crate) transition: Box<Transition>,
    pub(crate) tail: Tail,
    pub(crate) waiters: Option<Waiters>,
}

/// The outcome of a deferred change, for those who requested it.
pub(crate) type Fate = oneshot::Receiver<Result<(), Unwritten>>;

/// A change decided but not yet written, with the run's newest events before it.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) transition: Box<Transition>,
    pub(crate) tail: Tail,
    pub(crate) waiters: Waiters,
}

/// Requests that are part of a change.
#[derive(Debug)]
pub(crate) struct Waiters {
    pub(crate) waiters: Vec<oneshot::Sender<Result<(), Unwritten>>>,
    until: Instant,
}

impl Deferred {
    pub(crate) fn into_parts(self) -> (Box<Transition>, Tail, Waiters) {
        (self.transition, self.tail, self.waiters)
    }
}

impl Waiters {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { waiters: Vec::new(), until: Instant::now() + patience }
    }

    pub(crate) fn tell(self, outcome: &Result<Box<Transition>, Unwritten>) {
        for waiter in self.waiters {
            // A request whose caller has gone is carried out all the same.
            let _ = waiter.send(match outcome {
                Ok(_) => Ok(()),
                // If there is a duplicate, it is what was put on top of the others.
                Err(Unwritten::Duplicate) => Err(Unwritten::Conflict),
                Err(unwritten) => Err(unwritten.clone()),
            });
        }
    }
}

/// The deferred changes of a process, by run.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    entries: Mutex<Entries>,
    pub(crate) added: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    runs: HashMap<Uuid, Deferred>,
    /// When to look at which run, in order.
    order: VecDeque<(Instant, Uuid)>,
}

impl Shelf {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, deferred: Deferred) {
        let (run, until) = (deferred.transition.run.run_id, deferred.waiters.until);
        let mut entries = self.entries();
        entries.runs.insert(run, deferred);
        entries.order.push_back((until, run));
        let alone = entries.order.len() == 1;
        drop(entries);
        if alone {
            self.added.notify_one();
        }
    }

    /// Takes a run's change; only for the holder of the run's turn.
    pub(crate) fn take(&self, run: Uuid) -> Option<Deferred> {
        self.entries().runs.remove(&run)
    }

    /// Whether a change of the run waits; the run is then open, and of this workflow.
    pub(crate) fn has(&self, run: Uuid, workflow_id: &str) -> bool {
        self.entries().runs.get(&run).is_some_and(|d| d.transition.run.workflow_id == workflow_id)
    }

    /// The run of a workflow id that has a change waiting.
    pub(crate) fn run_of(&self, workflow_id: &str) -> Option<Uuid> {
        let entries = self.entries();
        let mut waiting = entries.runs.values().map(|d| &d.transition.run);
        waiting.find(|run| run.workflow_id == workflow_id).map(|run| run.run_id)
    }

    pub(crate) fn runs(&self) -> Vec<Uuid> {
        self.entries().runs.keys().copied().collect()
    }

    /// Runs whose change has waited long enough, or when to look next.
    pub(crate) fn overdue(&self) -> Result<Vec<Uuid>, Option<Instant>> {
        let now = Instant::now();
        let mut entries = self.entries();
        let mut over = Vec::new();
        while let Some((at, run)) = entries.order.front().copied().filter(|(at, _)| *at <= now) {
            entries.order.pop_front();
            if entries.runs.get(&run).is_some_and(|d| d.waiters.until <= at) {
                over.push(run);
            }
        }
        if over.is_empty() { Err(entries.order.front().map(|(at, _)| *at)) } else { Ok(over) }
    }
}
