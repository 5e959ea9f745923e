//! Who waits for what in this process.
//!
//! A queue is a semaphore: every task that becomes available adds one permit after its commit, every poller takes one
//! before it looks. So a wake-up reaches one poller of the right queue, none is lost, and a poll that finds nothing
//! costs no query. Hints (from other processes, from the safety poll) do not know how many tasks there are: a poller
//! that found one after a hint passes the hint on.
//!
//! A task whose queue is polled here is written as started by this process right away, and held in memory for
//! the next poller (`queue`); other tasks are found in the database. A task that is held too long goes back (`handoff`).

mod queue;
mod watchers;

pub(crate) use queue::Ahead;
use queue::Queue;
pub(crate) use watchers::Watchers;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    model::{Activity, Run},
    recorded::Recorded,
};

/// A sticky queue that nobody has polled for this long is considered dead.
const STICKY_IDLE: Duration = Duration::from_secs(10);
/// Queues without pollers are forgotten after this time.
const QUEUE_IDLE: Duration = Duration::from_secs(600);
/// Queried runs remembered; beyond that, their queries wait until no workflow task is in progress.
const MAX_ASKED: usize = 4096;

/// Pollers not seen for this long are not shown, as on Temporal's servers.
pub(crate) const SHOWN: Duration = Duration::from_secs(300);

/// What a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Workflow,
    Activity,
}

/// A task started by this process, not yet with a worker.
#[derive(Debug)]
pub(crate) enum Task {
    /// With the events its worker needs, if they are cached.
    Workflow {
        run: Box<Run>,
        events: Option<Vec<Recorded>>,
    },
    Activity(Box<Activity>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queues of this process.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    queues: Mutex<HashMap<(Kind, String), Arc<Queue>>>,
    /// Sticky queues whose workers have signed off; late polls do not bring them back.
    retired: Mutex<HashMap<String, Instant>>,
    /// Runs whose next workflow task should take queries along.
    asked: Mutex<HashSet<Uuid>>,
}

impl Matching {
    /// For a poller: the queue, created if necessary.
    pub(crate) fn queue(&self, kind: Kind, name: &str) -> Arc<Queue> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&(kind, name.to_owned())) {
            return Arc::clone(queue);
        }
        queues.retain(|_, q| !q.is_forgotten(QUEUE_IDLE));
        let queue = Arc::new(Queue::new());
        queues.insert((kind, name.to_owned()), Arc::clone(&queue));
        queue
    }

    /// A task is available. False if nobody in this process waits for it.
    pub(crate) fn wake(&self, kind: Kind, name: &str) -> bool {
        let queue = lock(&self.queues).get(&(kind, name.to_owned())).cloned();
        queue.is_some_and(|q| {
            q.wake();
            q.is_served()
        })
    }

    pub(crate) fn hint(&self, kind: Kind, name: &str) {
        let queue = lock(&self.queues).get(&(kind, name.to_owned())).cloned();
        if let Some(queue) = queue {
            queue.hint();
        }
    }

    /// A query is waiting.
    pub(crate) fn query(&self, name: &str) {
        self.hint(Kind::Workflow, name);
    }

    /// A run with a workflow task in progress is queried.
    pub(crate) fn asked(&self, run: Uuid) {
        let mut asked = lock(&self.asked);
        if asked.len() >= MAX_ASKED {
            asked.clear();
        }
        asked.insert(run);
    }

    /// Whether it is worth looking for queries to send with a task of this run.
    pub(crate) fn take_asked(&self, run: Uuid) -> bool {
        lock(&self.asked).remove(&run)
    }

    /// Whether it is worth looking for queries; the poller that looks clears the mark.
    pub(crate) fn has_queries(&self, name: &str) -> bool {
        let queue = lock(&self.queues).get(&(Kind::Workflow, name.to_owned())).cloned();
        queue.is_some_and(|q| q.take_queries())
    }

    pub(crate) fn hint_all(&self) {
        for queue in lock(&self.queues).values() {
            queue.hint();
        }
    }

    /// In whose name a task of this queue may be started here before a poller asks for it.
    pub(crate) fn accepts(&self, kind: Kind, name: &str, ahead: Ahead) -> Option<String> {
        lock(&self.queues).get(&(kind, name.to_owned()))?.accepts(ahead)
    }

    /// Whether a poller is waiting for one more task of this queue.
    pub(crate) fn is_awaited(&self, kind: Kind, name: &str) -> bool {
        lock(&self.queues).get(&(kind, name.to_owned())).is_some_and(|q| q.is_awaited())
    }

    /// Holds a task. It is returned if the queue has gone.
    pub(crate) fn put(&self, kind: Kind, name: &str, task: Task, patience: Duration) -> Option<Task> {
        match lock(&self.queues).get(&(kind, name.to_owned())) {
            Some(queue) => {
                queue.put(task, patience);
                None
            }
            None => Some(task),
        }
    }

    /// Takes out the tasks that have been held too long.
    pub(crate) fn overdue(&self) -> Vec<Task> {
        lock(&self.queues).values().flat_map(|q| q.overdue(false)).collect()
    }

    /// The worker of a sticky queue ends. Returns the tasks held for it.
    pub(crate) fn retire(&self, name: &str) -> Vec<Task> {
        let queue = lock(&self.queues).remove(&(Kind::Workflow, name.to_owned()));
        let mut retired = lock(&self.retired);
        retired.retain(|_, at| at.elapsed() < QUEUE_IDLE);
        retired.insert(name.to_owned(), Instant::now());
        queue.map(|q| q.overdue(true)).unwrap_or_default()
    }

    /// Whether a sticky queue of this process is still polled.
    pub(crate) fn sticky_alive(&self, name: &str) -> bool {
        if lock(&self.retired).contains_key(name) {
            return false;
        }
        lock(&self.queues).get(&(Kind::Workflow, name.to_owned())).is_some_and(|q| q.idle() < STICKY_IDLE)
    }

    /// Who has polled here within a time: kind, queue, name, how long ago.
    pub(crate) fn pollers(&self, within: Duration) -> Vec<(Kind, String, String, Duration)> {
        let queues = lock(&self.queues);
        let seen = queues.iter().flat_map(|((kind, name), queue)| {
            queue.pollers(within).into_iter().map(|(identity, ago)| (*kind, name.clone(), identity, ago))
        });
        seen.collect()
    }

    /// Names of the queues polled here.
    pub(crate) fn served(&self, kind: Kind) -> Vec<String> {
        lock(&self.queues).iter().filter(|((k, _), _)| *k == kind).map(|((_, name), _)| name.clone()).collect()
    }
}
