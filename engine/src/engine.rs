//! The engine of one process: its parts, and the loop every change of a run goes through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use temporalio_common::protos::temporal::api::{
    common::v1::{Memo, SearchAttributes},
    history::v1::history_event::Attributes,
};
use tokio::sync::{Mutex, mpsc, watch};
use tonic::Status;
use uuid::Uuid;

use crate::{
    EngineOptions,
    clock::Clock,
    history::{
        Circumstances, Transition,
        children::Names,
        commands::{Needs, Pending},
    },
    hot::{Hot, Remembered, Tail},
    lease::Lease,
    matching::{Kind, Matching, Watchers},
    proto::{self, db},
    search_attributes::Registry,
    store::{CommitError, Run, Store, Target, TaskState, load::Loaded},
    timers::Due,
    wake::Hint,
};

/// How often a decision is made anew after somebody else was faster.
const MAX_ROUNDS: u32 = 50;
/// Locks that keep this process from racing itself on one run.
const STRIPES: usize = 4096;

/// A process's engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What clones share.
pub(crate) struct Inner {
    pub(crate) options: EngineOptions,
    pub(crate) store: Store,
    /// Connections of the engine's own: listening, lease, hints. A busy pool must not cost the lease.
    pub(crate) session: sqlx::PgPool,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) clock: Clock,
    pub(crate) lease: Lease,
    pub(crate) matching: Matching,
    pub(crate) hot: Hot,
    pub(crate) runs: Watchers,
    /// Waiters for the end of a run, left alone until then.
    pub(crate) closed: Watchers,
    pub(crate) queries: Watchers,
    pub(crate) attributes: Registry,
    pub(crate) due: Due,
    pub(crate) effects: tokio::sync::Semaphore,
    /// Effects being carried out.
    pub(crate) effects_in_hand: std::sync::Mutex<std::collections::HashSet<Uuid>>,
    /// Marks this engine's own hints.
    pub(crate) listener_id: Uuid,
    pub(crate) hints: mpsc::Sender<Hint>,
    pub(crate) stopped: watch::Sender<bool>,
    pub(crate) tasks: std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    pub(crate) stripes: Vec<Mutex<()>>,
    pub(crate) accepting: AtomicBool,
}

impl Inner {
    pub(crate) fn stripes() -> Vec<Mutex<()>> {
        (0..STRIPES).map(|_| Mutex::new(())).collect()
    }
}

/// What a decision came to.
pub(crate) enum Decision<T> {
    /// Write the transition.
    Write(T),
    /// Nothing to change.
    Keep(T),
}

/// Why no change was made.
#[derive(Debug)]
pub(crate) enum Unchanged {
    /// No such open run.
    NotOpen,
    /// The run has taken in the request before.
    Duplicate,
    Status(Status),
}

impl From<Status> for Unchanged {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Unchanged {
    /// For requests where "not open" is an error of the caller.
    pub(crate) fn or_not_found(self) -> Status {
        match self {
            Self::NotOpen => Status::not_found("workflow execution not found or already completed"),
            Self::Duplicate => Status::already_exists("request has been carried out before"),
            Self::Status(status) => status,
        }
    }
}

impl Engine {
    pub(crate) fn names(&self) -> Names<'_> {
        Names { namespace: &self.inner.options.namespace }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        !self.inner.accepting.load(Ordering::Acquire)
    }

    /// Changes one run: reads it, decides, writes; again when somebody was faster. The decision must not have effects of
    /// its own. What follows from the change (wake-ups, effects on other runs) is set off after the commit.
    pub(crate) async fn change<T>(
        &self,
        target: &Target,
        needs: Needs,
        mut decide: impl FnMut(&mut Transition, &Pending) -> Result<Decision<T>, Status>,
    ) -> Result<(T, Transition), Unchanged> {
        let mut turn = match target {
            Target::Run(run) | Target::Exact(_, run) => Some(self.stripe(*run).lock().await),
            Target::Current(_) => None,
        };
        let mut remembered = self.remembered(target);
        for round in 0..MAX_ROUNDS {
            let guessed = remembered.is_some();
            let known = match remembered.take() {
                Some(known) => Some(known),
                None => self.inner.store.load(target).await?.map(Remembered::from),
            };
            let Some(Remembered { loaded, tail }) = known else { return Err(Unchanged::NotOpen) };
            let run_id = loaded.run.run_id;
            let pending = self.pending(&loaded, needs, guessed).await?;
            let circumstances = self.circumstances(&loaded.run);
            let mut transition = Transition::new(loaded, circumstances);
            let value = match decide(&mut transition, &pending) {
                Ok(Decision::Write(value)) => value,
                // Not to change anything is decided on what is stored, never on what is remembered.
                _ if guessed => continue,
                Ok(Decision::Keep(value)) => return Ok((value, transition)),
                Err(status) => return Err(Unchanged::Status(status)),
            };
            self.start_directly(&mut transition);
            match self.inner.store.writer.change(transition).await {
                (Some(transition), Ok(())) => {
                    self.remember(&transition, tail);
                    self.committed(&transition);
                    return Ok((value, transition));
                }
                (None, Ok(())) => return Err(Unchanged::Status(Status::internal("a change was lost"))),
                (_, Err(CommitError::Duplicate)) => return Err(Unchanged::Duplicate),
                (_, Err(CommitError::Db(error))) => return Err(Unchanged::Status(db(error))),
                (_, Err(CommitError::Conflict)) => {
                    if turn.is_none() {
                        turn = Some(self.stripe(run_id).lock().await);
                    }
                    pause(round).await;
                }
            }
        }
        metrics::counter!("engine_contention_total").increment(1);
        Err(Unchanged::Status(Status::aborted("the workflow is changing too fast, try again")))
    }

    fn stripe(&self, run: Uuid) -> &Mutex<()> {
        let stripes = &self.inner.stripes;
        let bytes = run.as_bytes();
        &stripes[usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % stripes.len()]
    }

    fn remembered(&self, target: &Target) -> Option<Remembered> {
        let (Target::Run(run) | Target::Exact(_, run)) = target else { return None };
        let mut known = self.inner.hot.take(*run)?;
        let loaded = &mut known.loaded;
        if matches!(target, Target::Exact(workflow, _) if *workflow != loaded.run.workflow_id) {
            return None;
        }
        let (now, wall) = self.inner.clock.both();
        (loaded.now, loaded.wall) = (loaded.now.max(now), loaded.wall.max(wall));
        Some(known)
    }

    /// Remembers what has been written, and hands over the tasks it has started.
    fn remember(&self, t: &Transition, tail: Tail) {
        for activity in t.new_activities.iter().filter(|a| a.is_started()) {
            self.inner.hot.put_activity(activity.clone());
        }
        let keys = t.ended_activities.iter().chain(t.retried_activities.iter().map(|r| &r.key));
        for id in keys.map(|k| k.scheduled_event_id).chain(t.cancelled_activities.iter().map(|(id, _)| *id)) {
            self.inner.hot.take_activity(t.run.run_id, id);
        }
        if !t.is_closed() {
            let mut run = t.run.clone();
            run.revision = t.expected_revision + 1;
            let tail = tail.advanced(&t.events, run.previous_started_id);
            // What is handed over is answered after this change: its run is locked until then.
            self.hand_over(t, &tail);
            self.inner.hot.put(Remembered { loaded: Loaded { run, now: t.now, wall: t.wall }, tail });
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

    async fn pending(&self, loaded: &Loaded, needs: Needs, guess: bool) -> Result<Pending, Status> {
        let mut pending = Pending::default();
        let (store, run) = (&self.inner.store, &loaded.run);
        if needs.activities {
            pending.activities = store.activities(run.run_id).await?;
        }
        if let Some(scheduled) = needs.activity {
            let known =
                self.inner.hot.take_activity(run.run_id, scheduled).filter(|_| guess && needs.activity_start_only);
            match known {
                Some(activity) => pending.activities.push(activity),
                None => pending.activities.extend(store.activity(run.run_id, scheduled).await?),
            }
        }
        if needs.timers {
            pending.timers = store.timers(run.run_id).await?;
        }
        if needs.children && run.open_children > 0 {
            pending.children = store.children(run.run_id).await?;
        }
        if needs.started {
            let first = proto::events(&store.history(run.run_id, 0, 1).await?)?.into_iter().next();
            if let Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) = first.and_then(|e| e.attributes) {
                pending.started = Some(Box::new(a));
            }
        }
        if needs.visibility {
            let row: (Vec<u8>, Vec<u8>) =
                sqlx::query_as("select memo, search_attributes from engine.executions where run_id = $1")
                    .bind(run.run_id)
                    .fetch_one(&store.pool)
                    .await
                    .map_err(db)?;
            pending.memo = proto::stored::<Memo>(&row.0)?;
            pending.search_attributes = proto::stored::<SearchAttributes>(&row.1)?;
        }
        Ok(pending)
    }

    /// Sets off what follows from a committed change.
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

    /// After a time without hints: everything may have news.
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

/// The first conflicts are retried at once, later ones after a short random wait.
async fn pause(round: u32) {
    if round >= 3 {
        let longest = Duration::from_millis(u64::from(round.min(20)));
        tokio::time::sleep(longest.mul_f64(rand::random())).await;
    }
}
