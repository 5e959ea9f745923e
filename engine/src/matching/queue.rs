//! One task queue, as seen by this process: its pollers, and the tasks held for them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{SHOWN, Task, lock};

/// Permits kept for a queue that nobody polls; beyond that a hint is enough.
const MAX_PERMITS: usize = 1024;
/// Most pollers' names known per queue.
const MAX_SEEN: usize = 256;
/// A poller that left this recently is expected back at once: under load pollers are rarely found waiting.
const RECENT: Duration = Duration::from_millis(100);
/// As many tasks as pollers took in this time may be held for them, which is about how long they are held.
const TURN: Duration = Duration::from_millis(100);
/// Most tasks that one statement starts for pollers besides the one that asks.
const MAX_AT_ONCE: usize = 64;
/// Most tasks held for one queue.
const MAX_READY: usize = 1024;

/// A task held for the next poller.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) task: Task,
    /// When it goes back if no poller has come.
    until: Instant,
}

/// Pollers' names; tasks are started in a poller's name before it is known which will take them.
#[derive(Debug, Default)]
enum Identity {
    #[default]
    None,
    One(String),
    /// Workers with different names share the queue: only the database can tell who started what.
    Many,
}

/// One task queue, as seen by this process.
#[derive(Debug)]
pub(crate) struct Queue {
    permits: Semaphore,
    ready: Mutex<VecDeque<Ready>>,
    /// Idle pollers.
    waiting: AtomicUsize,
    identity: Mutex<Identity>,
    /// When each poller was last seen; for people.
    seen: Mutex<HashMap<String, Instant>>,
    hinted: AtomicBool,
    /// Queries may be waiting.
    queries: AtomicBool,
    pollers: AtomicUsize,
    last_poll: Mutex<Instant>,
    turnover: Mutex<Turnover>,
}

/// How many tasks pollers take per [`TURN`].
#[derive(Debug)]
struct Turnover {
    began: Instant,
    taken: usize,
    before: usize,
}

impl Turnover {
    fn new() -> Self {
        Self { began: Instant::now(), taken: 0, before: 0 }
    }

    /// Begins a new turn if it is time; anything taken before the last turn does not count.
    fn turn(&mut self) {
        let age = self.began.elapsed();
        if age >= TURN {
            let before = if age < TURN * 2 { self.taken } else { 0 };
            *self = Self { began: Instant::now(), taken: 0, before };
        }
    }

    fn take(&mut self) {
        self.turn();
        self.taken += 1;
    }

    fn expected(&mut self) -> usize {
        self.turn();
        self.before.max(self.taken)
    }
}

/// How far ahead of pollers a queue's tasks may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// One for each waiting poller.
    Awaited,
    /// In addition, as many as pollers take per [`TURN`]: those who take them may spend long on each.
    AsTaken,
    /// All, as long as someone polls: tasks are short, and pollers are back at once.
    Freely,
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

impl Queue {
    pub(super) fn new() -> Self {
        // The first poller looks: work may have been waiting for it.
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
            turnover: Mutex::new(Turnover::new()),
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
            seen.retain(|_, at| at.elapsed() < SHOWN);
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

    /// Waits until looking is worthwhile. True: other pollers should look too if something is found.
    pub(crate) async fn ready(&self) -> bool {
        let _waiting = Waiting::new(&self.waiting);
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        self.hinted.swap(false, Ordering::AcqRel)
    }

    /// The next held task.
    pub(crate) fn take(&self) -> Option<Task> {
        let next = lock(&self.ready).pop_front().map(|ready| ready.task);
        if next.is_some() {
            self.taken();
        }
        next
    }

    /// A poller has received a task.
    pub(crate) fn taken(&self) {
        lock(&self.turnover).take();
    }

    /// Whether an idle poller is waiting for one more task.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.lying()
    }

    fn lying(&self) -> usize {
        lock(&self.ready).len()
    }

    /// Whether nobody has polled for this long, and nothing is left.
    pub(super) fn is_forgotten(&self, idle: Duration) -> bool {
        self.idle() >= idle && self.lying() == 0
    }

    /// Whether queries may be waiting; clears the mark.
    pub(super) fn take_queries(&self) -> bool {
        self.queries.swap(false, Ordering::AcqRel)
    }

    /// Who has polled within a time, and how long ago.
    pub(super) fn pollers(&self, within: Duration) -> Vec<(String, Duration)> {
        let seen = lock(&self.seen);
        let recent = seen.iter().map(|(identity, at)| (identity.clone(), at.elapsed()));
        recent.filter(|(_, ago)| *ago < within).collect()
    }

    /// In whose name a task may be started for this queue: a poller waits for it, or will be back in time.
    pub(super) fn accepts(&self, ahead: Ahead) -> Option<String> {
        let room = match ahead {
            Ahead::Awaited => 0,
            Ahead::AsTaken => lock(&self.turnover).expected().min(MAX_READY),
            Ahead::Freely => MAX_READY,
        };
        if !self.is_awaited() && (self.lying() >= room || self.idle() >= RECENT) {
            return None;
        }
        match &*lock(&self.identity) {
            Identity::One(identity) => Some(identity.clone()),
            Identity::None | Identity::Many => None,
        }
    }

    /// How many tasks may be started besides the one a poller has come for: others are waiting, or keep taking some.
    pub(crate) fn room(&self, identity: &str) -> usize {
        if !matches!(&*lock(&self.identity), Identity::One(one) if one == identity) {
            return 0;
        }
        let soon = self.waiting.load(Ordering::Relaxed) + lock(&self.turnover).expected();
        soon.min(MAX_AT_ONCE).saturating_sub(self.lying())
    }

    pub(super) fn put(&self, task: Task, patience: Duration) {
        lock(&self.ready).push_back(Ready { task, until: Instant::now() + patience });
        self.permits.add_permits(1);
    }

    /// Takes out what has been held too long, or everything.
    pub(super) fn overdue(&self, all: bool) -> Vec<Task> {
        let now = Instant::now();
        let mut ready = lock(&self.ready);
        let (over, kept): (VecDeque<_>, VecDeque<_>) = ready.drain(..).partition(|r| all || r.until <= now);
        *ready = kept;
        over.into_iter().map(|r| r.task).collect()
    }

    pub(super) fn is_served(&self) -> bool {
        self.pollers.load(Ordering::Relaxed) > 0
    }

    pub(super) fn idle(&self) -> Duration {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_lie_ready_for_busy_pollers_only_while_these_take_some() {
        let queue = Arc::new(Queue::new());
        drop(queue.enter("me"));
        assert_eq!(queue.accepts(Ahead::Awaited), None);
        assert_eq!(queue.accepts(Ahead::AsTaken), None, "nobody has taken any");
        queue.taken();
        assert_eq!(queue.accepts(Ahead::AsTaken).as_deref(), Some("me"));
        assert_eq!(queue.accepts(Ahead::Awaited), None);
        assert_eq!((queue.room("me"), queue.room("other")), (1, 0), "besides the one that is asked for");
        lock(&queue.turnover).began -= TURN * 3;
        assert_eq!(queue.accepts(Ahead::AsTaken), None, "long ago");
        assert_eq!(queue.room("me"), 0);
    }
}
