//! The loop every change of a run goes through: read the run, decide, write; repeat if another write came first.
//!
//! A decision is based on what this process has cached, if anything, or on what is stored. The decision to change nothing (a refusal, too)
//! is only ever made on what is stored.
//!
//! | Decided on ([`Basis`]) | To write | Nothing to change, or refused |
//! |---|---|---|
//! | what is stored | it is written, or waits (`deferred`) | that is the answer |
//! | what is cached (first round only) | the same | decided again, on what is stored |
//! | a change that waits | both are one change: written, or waiting on | that change is written as it was; decided again |
//!
//! | The write ends | The run in the cache | Requests that waited with it | This request |
//! |---|---|---|---|
//! | committed | as it is now, and its tasks are handed over | answered | answered |
//! | conflict: another write came first | removed | decide again | decides again, at most [`MAX_ROUNDS`] times |
//! | the request was carried out before | removed | decide again | refused |
//! | failed, or outcome unknown | removed | fail (`Unavailable`: it may have happened) | fails |
//!
//! A decision takes the run out of the cache (`hot`), and only a commit puts it back: nothing is ever decided on a decision
//! that was not written.

use std::time::Duration;

use temporalio_common::protos::temporal::api::{
    common::v1::{Memo, SearchAttributes},
    history::v1::history_event::Attributes,
};
use tokio::sync::MutexGuard;
use tonic::Status;
use uuid::Uuid;

use crate::{
    engine::Engine,
    history::commands::{Activities, Ground, Needs, Pending},
    hot::Remembered,
    model::{Run, Target, Transition},
    proto::{self, db},
    shelf::{Change, Deferred, Unwritten},
    store::CommitError,
};

/// How often a decision is repeated after a conflict.
const MAX_ROUNDS: u32 = 50;

/// The outcome of a decision.
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
    /// The run has already taken in the request.
    Duplicate,
    Status(Status),
}

impl From<Status> for Unchanged {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Unchanged {
    /// For requests where "not open" is the caller's error.
    pub(crate) fn or_not_found(self) -> Status {
        match self {
            Self::NotOpen => Status::not_found("workflow execution not found or already completed"),
            Self::Duplicate => Status::already_exists("request was already carried out"),
            Self::Status(status) => status,
        }
    }
}

/// What a decision is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    /// The database, as read for this decision. Only then may the outcome be no change.
    Stored,
    /// What this process has cached.
    Remembered,
    /// A change that waits and is written together with this one.
    Waiting,
}

/// The outcome of one round.
enum Decided<T> {
    Write(T, Change),
    Keep(T, Box<Transition>),
    /// Read what is stored.
    Again,
}

/// One request's way through the loop.
struct Attempt<'a> {
    engine: &'a Engine,
    target: &'a Target,
    needs: Needs,
    /// Keeps this process from racing with itself on one run.
    turn: Option<MutexGuard<'a, ()>>,
    round: u32,
}

impl Engine {
    /// Changes one run. The decision must have no side effects. What follows from the change (wake-ups, effects on
    /// other runs) is triggered after the commit.
    pub(crate) async fn change<T>(
        &self,
        target: &Target,
        needs: Needs,
        mut decide: impl FnMut(&mut Transition, &Pending) -> Result<Decision<T>, Status>,
    ) -> Result<(T, Box<Transition>), Unchanged> {
        let mut attempt = Attempt::new(self, target, needs).await;
        loop {
            let (value, change) = match attempt.decide(&mut decide).await? {
                Decided::Write(value, change) => (value, change),
                Decided::Keep(value, transition) => return Ok((value, transition)),
                Decided::Again => continue,
            };
            let run = change.transition.run.run_id;
            match self.write(change).await {
                Ok(transition) => return Ok((value, transition)),
                Err(unwritten) => attempt.after(unwritten, run).await?,
            }
        }
    }

    /// Like [`Self::change`], for a change that may wait for the workflow task it causes: see [`crate::deferred`].
    pub(crate) async fn change_with_task(
        &self,
        target: &Target,
        needs: Needs,
        mut decide: impl FnMut(&mut Transition, &Pending) -> Result<Decision<()>, Status>,
    ) -> Result<(), Unchanged> {
        let mut attempt = Attempt::new(self, target, needs).await;
        loop {
            let change = match attempt.decide(&mut decide).await? {
                Decided::Write((), change) => change,
                Decided::Keep(..) => return Ok(()),
                Decided::Again => continue,
            };
            let run = change.transition.run.run_id;
            let deferred = if attempt.may_defer() { self.defer(change) } else { Err(change) };
            let written = match deferred {
                Ok(fate) => {
                    attempt.turn = None;
                    // Dropped without an answer: the outcome is unknown, so it is decided again.
                    fate.await.unwrap_or(Err(Unwritten::Conflict))
                }
                Err(change) => self.write(change).await.map(drop),
            };
            match written {
                Ok(()) => return Ok(()),
                Err(unwritten) => attempt.after(unwritten, run).await?,
            }
        }
    }

    /// Writes a change; it is cached, the tasks it has started are handed over, and what follows from it is triggered. Everyone else
    /// who waits for it is told.
    pub(crate) async fn write(&self, change: Change) -> Result<Box<Transition>, Unwritten> {
        let Change { transition, tail, waiters } = change;
        let written = match self.inner.store.writer.change(transition).await {
            (Some(transition), Ok(())) => {
                self.remember(&transition, tail);
                self.committed(&transition);
                Ok(transition)
            }
            (None, Ok(())) => Err(Unwritten::Failed(Status::internal("a change was lost"))),
            (_, Err(CommitError::Conflict)) => Err(Unwritten::Conflict),
            (_, Err(CommitError::Duplicate)) => Err(Unwritten::Duplicate),
            (_, Err(CommitError::Db(error))) => Err(Unwritten::Failed(db(error))),
        };
        if let Some(waiters) = waiters {
            waiters.tell(&written);
        }
        written
    }

    /// A run from this process's cache.
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

    async fn pending(&self, run: &Run, needs: Needs, basis: Basis) -> Result<Pending, Status> {
        let mut pending = Pending::default();
        let store = &self.inner.store;
        match needs.activities {
            Activities::None => {}
            Activities::All => pending.activities = store.activities(run.run_id).await?,
            Activities::Stored(scheduled) | Activities::Given(scheduled) => {
                let known = self.inner.hot.take_activity(run.run_id, scheduled);
                match known.filter(|_| basis != Basis::Stored && needs.activities == Activities::Given(scheduled)) {
                    Some(activity) => pending.activities.push(activity),
                    None => pending.activities.extend(store.activity(run.run_id, scheduled).await?),
                }
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
}

impl<'a> Attempt<'a> {
    async fn new(engine: &'a Engine, target: &'a Target, needs: Needs) -> Self {
        let turn = match target {
            Target::Run(run) | Target::Exact(_, run) => Some(engine.turn(*run).await),
            Target::Current(workflow_id) => {
                engine.flush_workflow(workflow_id).await;
                None
            }
        };
        Self { engine, target, needs, turn, round: 0 }
    }

    /// Only the holder of the run's turn may defer a change, and nothing is put on top of one that has to be written first.
    fn may_defer(&self) -> bool {
        self.needs.ground == Ground::Unwritten && self.turn.is_some()
    }

    /// Makes the decision on what is cached (in the first round) or stored.
    async fn decide<T>(
        &mut self,
        decide: &mut impl FnMut(&mut Transition, &Pending) -> Result<Decision<T>, Status>,
    ) -> Result<Decided<T>, Unchanged> {
        let first = self.round == 0;
        self.round += 1;
        if let Some(deferred) = self.deferred().await {
            return Ok(self.go_on(deferred, decide).await?);
        }
        let known = if first { self.engine.remembered(self.target) } else { None };
        let basis = if known.is_some() { Basis::Remembered } else { Basis::Stored };
        let known = match known {
            Some(known) => Some(known),
            None => self.engine.inner.store.load(self.target).await?.map(Remembered::from),
        };
        let Some(Remembered { loaded, tail }) = known else { return Err(Unchanged::NotOpen) };
        let pending = self.engine.pending(&loaded.run, self.needs, basis).await?;
        let circumstances = self.engine.circumstances(&loaded.run);
        let mut transition = Box::new(Transition::new(loaded, circumstances));
        match decide(&mut transition, &pending) {
            Ok(Decision::Write(value)) => {
                self.engine.start_directly(&mut transition);
                Ok(Decided::Write(value, Change { transition, tail, waiters: None }))
            }
            _ if basis != Basis::Stored => Ok(Decided::Again),
            Ok(Decision::Keep(value)) => Ok(Decided::Keep(value, transition)),
            Err(status) => Err(Unchanged::Status(status)),
        }
    }

    /// The run's deferred change, if this request can be decided on top of it; if not, that change is written first.
    async fn deferred(&self) -> Option<Deferred> {
        let (Target::Run(run) | Target::Exact(_, run)) = self.target else { return None };
        let deferred = self.engine.inner.deferred.take(*run)?;
        let fits = match self.target {
            Target::Exact(workflow, _) => *workflow == deferred.transition.run.workflow_id,
            _ => true,
        };
        let reads = self.needs.reads(&deferred.transition.run)
            || match self.needs.activities {
                Activities::None => false,
                Activities::All | Activities::Stored(_) => true,
                Activities::Given(scheduled) => !self.engine.inner.hot.has_activity(*run, scheduled),
            };
        if fits && self.needs.ground == Ground::Unwritten && !reads {
            return Some(deferred);
        }
        self.engine.write_deferred(deferred).await;
        None
    }

    /// Decides on top of a deferred change. If that yields nothing, the change is written as it was.
    async fn go_on<T>(
        &self,
        deferred: Deferred,
        decide: &mut impl FnMut(&mut Transition, &Pending) -> Result<Decision<T>, Status>,
    ) -> Result<Decided<T>, Status> {
        let (before, tail, waiters) = deferred.into_parts();
        let mut transition = before.clone();
        let (now, wall) = self.engine.inner.clock.both();
        transition.go_on(now, wall, self.engine.circumstances(&before.run));
        let decided = match self.engine.pending(&before.run, self.needs, Basis::Waiting).await {
            Ok(pending) => decide(&mut transition, &pending),
            Err(status) => Err(status),
        };
        if let Ok(Decision::Write(value)) = decided {
            self.engine.start_directly(&mut transition);
            return Ok(Decided::Write(value, Change { transition, tail, waiters: Some(waiters) }));
        }
        // Those who wait for it are told; this request is decided again whatever the outcome.
        let _ = self.engine.write(Change { transition: before, tail, waiters: Some(waiters) }).await;
        Ok(Decided::Again)
    }

    /// The change was not written: go to the next round, unless that would be pointless.
    async fn after(&mut self, unwritten: Unwritten, run: Uuid) -> Result<(), Unchanged> {
        match unwritten {
            Unwritten::Duplicate => return Err(Unchanged::Duplicate),
            Unwritten::Failed(status) => return Err(Unchanged::Status(status)),
            Unwritten::Conflict => {}
        }
        if self.round >= MAX_ROUNDS {
            metrics::counter!("engine_contention_total").increment(1);
            return Err(Unchanged::Status(Status::aborted("the workflow is changing too fast, try again")));
        }
        if self.turn.is_none() {
            self.turn = Some(self.engine.turn(run).await);
        }
        pause(self.round).await;
        Ok(())
    }
}

/// The first conflicts are retried at once, later ones after a short random wait.
async fn pause(round: u32) {
    if round > 3 {
        let longest = Duration::from_millis(u64::from(round.min(20)));
        tokio::time::sleep(longest.mul_f64(rand::random())).await;
    }
}
