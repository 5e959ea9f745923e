//! The engine of one process: its parts, and what follows from a committed change.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::{Mutex, MutexGuard, mpsc, watch};
use uuid::Uuid;

use crate::{
    clock::Clock,
    due::Due,
    hint::Hint,
    history::children::Names,
    hot::{Hot, Remembered, Tail},
    lease::Lease,
    matching::{Kind, Matching, Watchers},
    model::{Circumstances, Loaded, Run, TaskState, Transition},
    options::EngineOptions,
    search_attributes::Registry,
    shelf::Shelf,
    store::Store,
};

/// A process's engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What clones share.
pub(crate) struct Inner {
    pub(crate) options: EngineOptions,
    pub(crate) store: Store,
    /// The engine's own connections: for listening and hints. A busy pool must not delay them.
    pub(crate) session: sqlx::PgPool,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) clock: Clock,
    pub(crate) lease: Lease,
    pub(crate) matching: Matching,
    pub(crate) hot: Hot,
    pub(crate) deferred: Shelf,
    pub(crate) runs: Watchers,
    /// Waiters for the end of a run, not woken until then.
    pub(crate) closed: Watchers,
    pub(crate) queries: Watchers,
    pub(crate) attributes: Registry,
    pub(crate) due: Due,
    pub(crate) effects: tokio::sync::Semaphore,
    /// Effects being carried out.
    pub(crate) effects_in_hand: std::sync::Mutex<std::collections::HashSet<Uuid>>,
    /// Identifies this engine's own hints.
    pub(crate) listener_id: Uuid,
    pub(crate) hints: mpsc::Sender<Hint>,
    pub(crate) stopped: watch::Sender<bool>,
    pub(crate) tasks: std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// Locks that keep this process from racing with itself on one run.
    pub(crate) stripes: Vec<Mutex<()>>,
    pub(crate) accepting: AtomicBool,
    /// Light calls in progress: see `service`.
    pub(crate) calls: Arc<AtomicUsize>,
}

impl Engine {
    pub(crate) fn names(&self) -> Names<'_> {
        Names { namespace: &self.inner.options.namespace }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        !self.inner.accepting.load(Ordering::Acquire)
    }

    /// A run's turn: held by whoever changes it in this process.
    pub(crate) async fn turn(&self, run: Uuid) -> MutexGuard<'_, ()> {
        let stripes = &self.inner.stripes;
        let bytes = run.as_bytes();
        stripes[usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % stripes.len()].lock().await
    }

    /// Caches what has been written, and hands over the tasks it has started.
    pub(crate) fn remember(&self, t: &Transition, tail: Tail) {
        for activity in t.new_activities.iter().filter(|a| a.is_started()) {
            self.inner.hot.put_activity(activity.clone());
        }
        let keys = t.ended_activities.iter().chain(t.retried_activities.iter().map(|r| &r.key));
        for id in keys.map(|k| k.scheduled_event_id).chain(t.cancelled_activities.iter().map(|(id, _)| *id)) {
            self.inner.hot.take_activity(t.run.run_id, id);
        }
        if !t.is_closed() {
            let tail = tail.advanced(&t.events, t.run.previous_started_id);
            // Whatever is handed over is answered after this change: its run is locked until then.
            self.hand_over(t, &tail);
            self.inner.hot.put(Remembered { loaded: Loaded::after(t), tail });
        }
    }

    pub(crate) fn circumstances(&self, run: &Run) -> Circumstances {
        let process = self.inner.lease.process();
        let sticky_alive = match (&run.sticky_queue, run.sticky_process) {
            (Some(queue), Some(owner)) if owner == process => self.inner.matching.sticky_alive(queue),
            (Some(_), Some(owner)) => self.inner.lease.is_live(owner),
            _ => false,
        };
        Circumstances { process, sticky_alive }
    }

    /// Triggers what follows from a committed change.
    pub(crate) fn committed(&self, t: &Transition) {
        let inner = &self.inner;
        if !t.is_closed() && t.run.wft_state == TaskState::Scheduled && t.run.wft_ready_at <= Some(t.wall) {
            self.wake_queue(Kind::Workflow, &t.run.wft_queue);
        }
        for activity in t.new_activities.iter().filter(|a| !a.is_started()) {
            self.wake_queue(Kind::Activity, &activity.task_queue);
        }
        if !t.events.is_empty() || !t.rejected_updates.is_empty() {
            self.wake_run(t.run.run_id);
        }
        if t.is_closed() {
            inner.closed.close(t.run.run_id, t.events.last());
        }
        if let Some(next) = &t.continued {
            let queue = next.attributes.task_queue.as_ref().map_or("", |q| q.name.as_str());
            self.wake_queue(Kind::Workflow, queue);
            inner.due.look();
        }
        let engine_time = (t.new_timers.iter().map(|(.., at)| *at))
            .chain(t.new_activities.iter().filter_map(|a| a.due_at))
            .chain(t.retried_activities.iter().filter_map(|a| a.due_at))
            .map(|at| at - t.now);
        let wall = t.run.wft_due_at.map(|at| at - t.wall);
        if let Some(soonest) = engine_time.chain(wall).min() {
            inner.due.within(soonest.to_std().unwrap_or_default());
        }
        for effect in &t.effects {
            self.spawn_effect(effect.clone());
        }
    }

    /// A task is available on a queue: tells a poller here, or the other processes.
    pub(crate) fn wake_queue(&self, kind: Kind, name: &str) {
        if !self.inner.matching.wake(kind, name) {
            self.hint(Hint::Queue(kind, name.to_owned()));
        }
    }

    /// A run has news.
    pub(crate) fn wake_run(&self, run: Uuid) {
        self.inner.runs.wake(run);
        self.hint(Hint::Run(run));
    }

    /// Tells the other processes, if there are any. A full queue drops the hint.
    pub(crate) fn hint(&self, hint: Hint) {
        if self.inner.lease.has_company() && self.inner.hints.try_send(hint).is_err() {
            metrics::counter!("engine_hints_dropped_total").increment(1);
        }
    }

    /// After a time without hints: anything may have news.
    pub(crate) fn hint_everything(&self) {
        self.inner.matching.hint_all();
        self.inner.runs.wake_all();
        self.inner.closed.wake_all();
        self.inner.queries.wake_all();
        self.inner.due.look();
    }

    /// Runs `task` until it ends or the engine stops.
    pub(crate) fn background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.inner.runtime.spawn(task);
        self.inner.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(handle);
    }
}
