//! Who waits for what in this process.
//!
//! A queue is a semaphore: every task that becomes available adds one permit after its commit, every poller takes one
//! before it looks. So a wake-up reaches one poller of the queue concerned, none is lost, and a poll that finds nothing to
//! do costs no query. Hints (from other processes, from the safety re-read) do not know how many tasks there are: a poller
//! that found one after a hint passes the hint on.
//!
//! A task whose queue is being polled here is written as started by this process right away, and lies ready in memory for
//! the next poller ([`Ready`]); other tasks are found in the database. A task that lies too long goes back (`handoff`).

mod watchers;

pub(crate) use watchers::Watchers;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::store::{Activity, Run};

/// A sticky queue nobody has polled for so long is taken for dead.
const STICKY_IDLE: Duration = Duration::from_secs(10);
/// Permits kept for a queue nobody polls; beyond that a hint does.
const MAX_PERMITS: usize = 1024;
/// Queues without pollers are forgotten after this time.
const QUEUE_IDLE: Duration = Duration::from_secs(600);

/// Names of pollers known of one queue, at most.
const MAX_SEEN: usize = 256;
/// A poller that left so recently is taken to come back at once: under load pollers are rarely found waiting.
const RECENT: Duration = Duration::from_millis(100);
/// Tasks that lie ready for one queue, at most.
const MAX_READY: usize = 1024;

/// Queried runs remembered; when there are more, their queries wait until no workflow task is under way.
const MAX_ASKED: usize = 4096;

/// What a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Workflow,
    Activity,
}

/// A task started by this process, not yet with a worker.
#[derive(Debug)]
pub(crate) enum Task {
    /// With the events its worker needs, if they are at hand.
    Workflow {
        run: Box<Run>,
        events: Option<Vec<HistoryEvent>>,
    },
    Activity(Box<Activity>),
}

/// A task that lies ready for the next poller.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) task: Task,
    /// When it goes back if no poller has come.
    until: Instant,
}

/// Pollers' names; tasks are started in the name of a poller before it is known which.
#[derive(Debug, Default)]
enum Identity {
    #[default]
    None,
    One(String),
    /// Workers of different names share the queue: only the database can tell who started what.
    Many,
}

/// One task queue, as seen by this process.
#[derive(Debug)]
pub(crate) struct Queue {
    permits: Semaphore,
    ready: Mutex<VecDeque<Ready>>,
    /// Pollers that have nothing to do.
    waiting: AtomicUsize,
    identity: Mutex<Identity>,
    /// When whom was seen polling; for people.
    seen: Mutex<HashMap<String, Instant>>,
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
            ready: Mutex::default(),
            waiting: AtomicUsize::new(0),
            identity: Mutex::default(),
            seen: Mutex::default(),
            hinted: AtomicBool::new(true),
            queries: AtomicBool::new(true),
            pollers: AtomicUsize::new(0),
            last_poll: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn enter(self: &Arc<Self>, identity: &str) -> Poller {
        let mut known = lock(&self.identity);
        match &*known {
            Identity::None => *known = Identity::One(identity.to_owned()),
            Identity::One(one) if one != identity => *known = Identity::Many,
            Identity::One(_) | Identity::Many => {}
        }
        drop(known);
        self.note(identity);
        self.pollers.fetch_add(1, Ordering::Relaxed);
        Poller(Arc::clone(self))
    }

    fn note(&self, identity: &str) {
        let mut seen = lock(&self.seen);
        if let Some(at) = seen.get_mut(identity) {
            *at = Instant::now();
            return;
        }
        if seen.len() >= MAX_SEEN {
            seen.retain(|_, at| at.elapsed() < crate::pollers::SHOWN);
        }
        if seen.len() < MAX_SEEN {
            seen.insert(identity.to_owned(), Instant::now());
        }
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
        let _waiting = Waiting::new(&self.waiting);
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        self.hinted.swap(false, Ordering::AcqRel)
    }

    /// The next task that lies ready.
    pub(crate) fn take(&self) -> Option<Task> {
        lock(&self.ready).pop_front().map(|ready| ready.task)
    }

    /// In whose name a task may be started for this queue: a poller waits for it, or (`soon`) will be back at once.
    fn accepts(&self, soon: bool) -> Option<String> {
        let lying = lock(&self.ready).len();
        let waits = self.waiting.load(Ordering::Relaxed) > lying;
        let soon = soon && lying < MAX_READY && self.idle() < RECENT;
        if !waits && !soon {
            return None;
        }
        match &*lock(&self.identity) {
            Identity::One(identity) => Some(identity.clone()),
            Identity::None | Identity::Many => None,
        }
    }

    fn put(&self, task: Task, patience: Duration) {
        lock(&self.ready).push_back(Ready { task, until: Instant::now() + patience });
        self.permits.add_permits(1);
    }

    /// Takes out what has lain too long, or everything.
    fn overdue(&self, all: bool) -> Vec<Task> {
        let now = Instant::now();
        let mut ready = lock(&self.ready);
        let (over, kept): (VecDeque<_>, VecDeque<_>) = ready.drain(..).partition(|r| all || r.until <= now);
        *ready = kept;
        over.into_iter().map(|r| r.task).collect()
    }

    fn is_served(&self) -> bool {
        self.pollers.load(Ordering::Relaxed) > 0
    }

    fn idle(&self) -> Duration {
        if self.is_served() { Duration::ZERO } else { lock(&self.last_poll).elapsed() }
    }
}

/// Counts a poller as waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queues of this process.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    queues: Mutex<HashMap<(Kind, String), Arc<Queue>>>,
    /// Sticky queues whose workers have said good-bye; late polls do not bring them back.
    retired: Mutex<HashMap<String, Instant>>,
    /// Runs whose next workflow task is to take queries along.
    asked: Mutex<HashSet<Uuid>>,
}

impl Matching {
    /// For a poller: the queue, made if need be.
    pub(crate) fn queue(&self, kind: Kind, name: &str) -> Arc<Queue> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&(kind, name.to_owned())) {
            return Arc::clone(queue);
        }
        queues.retain(|_, q| q.idle() < QUEUE_IDLE || !lock(&q.ready).is_empty());
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

    /// A run with a workflow task under way is queried.
    pub(crate) fn asked(&self, run: Uuid) {
        let mut asked = lock(&self.asked);
        if asked.len() >= MAX_ASKED {
            asked.clear();
        }
        asked.insert(run);
    }

    /// Whether looking for queries to go with a task of this run is worth it.
    pub(crate) fn take_asked(&self, run: Uuid) -> bool {
        lock(&self.asked).remove(&run)
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

    /// In whose name a task of this queue may be started here before a poller asks for it.
    pub(crate) fn accepts(&self, kind: Kind, name: &str, soon: bool) -> Option<String> {
        lock(&self.queues).get(&(kind, name.to_owned()))?.accepts(soon)
    }

    /// Lays a task ready. It comes back if the queue has gone.
    pub(crate) fn put(&self, kind: Kind, name: &str, task: Task, patience: Duration) -> Option<Task> {
        match lock(&self.queues).get(&(kind, name.to_owned())) {
            Some(queue) => {
                queue.put(task, patience);
                None
            }
            None => Some(task),
        }
    }

    /// Takes out the tasks that have lain too long.
    pub(crate) fn overdue(&self) -> Vec<Task> {
        lock(&self.queues).values().flat_map(|q| q.overdue(false)).collect()
    }

    /// The worker of a sticky queue ends. Returns the tasks that lie ready for it.
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
            let seen = lock(&queue.seen);
            let recent = seen.iter().map(|(identity, at)| (*kind, name.clone(), identity.clone(), at.elapsed()));
            recent.filter(|(.., ago)| *ago < within).collect::<Vec<_>>()
        });
        seen.collect()
    }

    /// Names of the queues polled here.
    pub(crate) fn served(&self, kind: Kind) -> Vec<String> {
        lock(&self.queues).iter().filter(|((k, _), _)| *k == kind).map(|((_, name), _)| name.clone()).collect()
    }
}
