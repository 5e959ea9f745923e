//! Who waits for what in this process.
//!
//! A queue is a semaphore: every task that becomes available adds one permit after its commit, every poller takes one
//! before it looks into the database. So a wake-up reaches one poller of the queue concerned, none is lost, and a poll that
//! finds nothing to do costs no query. Hints (from other processes, from the safety re-read) do not know how many tasks
//! there are: a poller that found one after a hint passes the hint on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

/// A sticky queue nobody has polled for so long is taken for dead.
const STICKY_IDLE: Duration = Duration::from_secs(10);
/// Permits kept for a queue nobody polls; beyond that a hint does.
const MAX_PERMITS: usize = 1024;
/// Queues without pollers are forgotten after this time.
const QUEUE_IDLE: Duration = Duration::from_secs(600);

/// What a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Workflow,
    Activity,
}

/// One task queue, as seen by this process.
#[derive(Debug)]
pub(crate) struct Queue {
    permits: Semaphore,
    hinted: AtomicBool,
    /// Queries may be waiting.
    queries: AtomicBool,
    pollers: AtomicUsize,
    last_poll: Mutex<Instant>,
}

/// Presence of a poller.
#[derive(Debug)]
pub(crate) struct Poller(Arc<Queue>);

impl Drop for Poller {
    fn drop(&mut self) {
        self.0.pollers.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.0.last_poll) = Instant::now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn new() -> Self {
        // The first poller looks: work may have waited for it.
        Self {
            permits: Semaphore::new(1),
            hinted: AtomicBool::new(true),
            queries: AtomicBool::new(true),
            pollers: AtomicUsize::new(0),
            last_poll: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Poller {
        self.pollers.fetch_add(1, Ordering::Relaxed);
        Poller(Arc::clone(self))
    }

    /// One more task is available.
    pub(crate) fn wake(&self) {
        if self.permits.available_permits() < MAX_PERMITS {
            self.permits.add_permits(1);
        } else {
            self.hinted.store(true, Ordering::Release);
        }
    }

    /// Tasks may be available.
    pub(crate) fn hint(&self) {
        self.queries.store(true, Ordering::Release);
        if !self.hinted.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Waits until looking is worth it. True: other pollers should look too if something is found.
    pub(crate) async fn ready(&self) -> bool {
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        self.hinted.swap(false, Ordering::AcqRel)
    }

    fn is_served(&self) -> bool {
        self.pollers.load(Ordering::Relaxed) > 0
    }

    fn idle(&self) -> Duration {
        if self.is_served() { Duration::ZERO } else { lock(&self.last_poll).elapsed() }
    }
}

/// The queues of this process.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    queues: Mutex<HashMap<(Kind, String), Arc<Queue>>>,
    /// Sticky queues whose workers have said good-bye; late polls do not bring them back.
    retired: Mutex<HashMap<String, Instant>>,
}

impl Matching {
    /// For a poller: the queue, made if need be.
    pub(crate) fn queue(&self, kind: Kind, name: &str) -> Arc<Queue> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&(kind, name.to_owned())) {
            return Arc::clone(queue);
        }
        queues.retain(|_, q| q.idle() < QUEUE_IDLE);
        let queue = Arc::new(Queue::new());
        queues.insert((kind, name.to_owned()), Arc::clone(&queue));
        queue
    }

    /// A task is available. False when nobody in this process waits for it.
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

    /// Whether looking for queries is worth it; the poller that looks clears the mark.
    pub(crate) fn has_queries(&self, name: &str) -> bool {
        let queue = lock(&self.queues).get(&(Kind::Workflow, name.to_owned())).cloned();
        queue.is_some_and(|q| q.queries.swap(false, Ordering::AcqRel))
    }

    pub(crate) fn hint_all(&self) {
        for queue in lock(&self.queues).values() {
            queue.hint();
        }
    }

    /// The worker of a sticky queue ends.
    pub(crate) fn retire(&self, name: &str) {
        lock(&self.queues).remove(&(Kind::Workflow, name.to_owned()));
        let mut retired = lock(&self.retired);
        retired.retain(|_, at| at.elapsed() < QUEUE_IDLE);
        retired.insert(name.to_owned(), Instant::now());
    }

    /// Whether a sticky queue of this process is still polled.
    pub(crate) fn sticky_alive(&self, name: &str) -> bool {
        if lock(&self.retired).contains_key(name) {
            return false;
        }
        lock(&self.queues).get(&(Kind::Workflow, name.to_owned())).is_some_and(|q| q.idle() < STICKY_IDLE)
    }

    /// Names of the queues polled here.
    pub(crate) fn served(&self, kind: Kind) -> Vec<String> {
        lock(&self.queues).iter().filter(|((k, _), _)| *k == kind).map(|((_, name), _)| name.clone()).collect()
    }
}

/// Waiters for news of a run (or of a query).
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<HashMap<Uuid, (usize, Arc<Notify>)>>);

/// One waiter; gone when dropped.
pub(crate) struct Watch<'a> {
    watchers: &'a Watchers,
    id: Uuid,
    notify: Arc<Notify>,
}

impl Watch<'_> {
    /// Subscribe first, then read, then wait: what happens in between wakes the waiter.
    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
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
        let entry = map.entry(id).or_insert_with(|| (0, Arc::new(Notify::new())));
        entry.0 += 1;
        Watch { watchers: self, id, notify: Arc::clone(&entry.1) }
    }

    pub(crate) fn wake(&self, id: Uuid) {
        if let Some((_, notify)) = lock(&self.0).get(&id) {
            notify.notify_waiters();
        }
    }

    pub(crate) fn wake_all(&self) {
        for (_, notify) in lock(&self.0).values() {
            notify.notify_waiters();
        }
    }
}
