//! One run's rows, changed as `store::commit` changes them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use futures::{FutureExt, future::BoxFuture};
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes as A};
use tonic::Status;
use uuid::Uuid;

use crate::{
    model::{Activity, Circumstances, Loaded, Run, Start, Target, TaskState, Transition},
    recorded::decoded,
    store::{CommitError, tables::Tables},
};

/// What identifies one attempt of a task: the event that scheduled it, the attempt, and when it was started.
pub(super) type Attempt = (i64, i32, Option<DateTime<Utc>>);

#[derive(Default)]
pub(super) struct Database(Mutex<State>);

#[derive(Default)]
struct State {
    /// None once it is closed.
    run: Option<Run>,
    history: Vec<HistoryEvent>,
    activities: BTreeMap<i64, Activity>,
    last_time: DateTime<Utc>,
    /// Attempts that nobody need have: started by commits whose responses did not arrive, or given back (and if that failed, timed out).
    let_go: HashSet<Attempt>,
    /// Attempts that a worker has been given.
    given: HashSet<Attempt>,
}

pub(super) fn attempt(run: &Run) -> Attempt {
    (run.task_scheduled_id(), run.wft_attempt, run.wft_started_at)
}

pub(super) fn attempt_of(activity: &Activity) -> Attempt {
    (activity.scheduled_event_id, activity.attempt, activity.started_at)
}

/// In whose name an event was caused; every request in a simulation has its own name.
fn cause(event: &HistoryEvent) -> &str {
    match event.attributes.as_ref() {
        Some(A::ActivityTaskCompletedEventAttributes(a)) => &a.identity,
        Some(A::WorkflowTaskCompletedEventAttributes(a)) => &a.identity,
        Some(A::WorkflowTaskFailedEventAttributes(a)) => &a.identity,
        Some(A::WorkflowExecutionSignaledEventAttributes(a)) => &a.identity,
        _ => "",
    }
}

impl Database {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clock that never gives the same reading twice.
    fn now(&self) -> DateTime<Utc> {
        let mut state = self.state();
        state.last_time = Utc::now().trunc_subsecs(6).max(state.last_time + TimeDelta::microseconds(1));
        state.last_time
    }

    pub(super) fn start(&self, start: &Start) {
        let mut state = self.state();
        state.run = Some(start.run.clone());
        state.history = decoded(&start.events).unwrap();
    }

    /// A look at the open run.
    pub(super) fn run<T>(&self, look: impl FnOnce(&Run) -> T) -> Option<T> {
        self.state().run.as_ref().map(look)
    }

    /// A look at the whole history.
    pub(super) fn history<T>(&self, look: impl FnOnce(&[HistoryEvent]) -> T) -> T {
        look(&self.state().history)
    }

    pub(super) fn activities(&self) -> Vec<Activity> {
        self.state().activities.values().cloned().collect()
    }

    /// A worker is given this attempt.
    pub(super) fn give(&self, attempt: Attempt) {
        assert!(self.state().given.insert(attempt), "{attempt:?} is given to two workers");
    }

    /// Nobody need have this attempt any more.
    pub(super) fn let_go(&self, attempt: Attempt) {
        self.state().let_go.insert(attempt);
    }

    pub(super) fn is_let_go(&self, attempt: Attempt) -> bool {
        self.state().let_go.contains(&attempt)
    }

    /// How often a request is in the history, or waits for the task in flight to end.
    pub(super) fn count(&self, name: &str) -> usize {
        let state = self.state();
        let buffered = state.run.as_ref().map(|run| run.buffered_events().unwrap()).unwrap_or_default();
        state.history.iter().chain(&buffered).filter(|event| cause(event) == name).count()
    }

    pub(super) fn loaded(&self) -> Option<Loaded> {
        let now = self.now();
        self.run(|run| Loaded { run: run.clone(), now, wall: now })
    }

    /// Writes a change unless there is a conflict.
    pub(super) fn commit(&self, t: &Transition) -> Result<(), CommitError> {
        let mut state = self.state();
        let expected = (t.expected_revision, t.expected_last_event_id);
        if state.run.as_ref().map(|run| (run.revision, run.last_event_id)) != Some(expected) {
            return Err(CommitError::Conflict);
        }
        let keys = t.ended_activities.iter().chain(t.retried_activities.iter().map(|retry| &retry.key));
        for key in keys {
            let row = state.activities.get(&key.scheduled_event_id);
            if row.is_none_or(|row| (row.attempt, row.state) != (key.attempt, key.state)) {
                return Err(CommitError::Conflict);
            }
        }
        let new = decoded(&t.events).unwrap();
        let ids = new.iter().map(|event| event.event_id);
        assert!(ids.eq(t.expected_last_event_id + 1..=t.run.last_event_id), "event ids are dense");
        state.history.extend(new);
        for key in &t.ended_activities {
            state.activities.remove(&key.scheduled_event_id);
        }
        for retry in &t.retried_activities {
            let row = state.activities.get_mut(&retry.key.scheduled_event_id).unwrap();
            (row.state, row.attempt, row.started_at, row.process) = (0, row.attempt + 1, None, None);
        }
        state.activities.extend(t.new_activities.iter().map(|new| (new.scheduled_event_id, new.clone())));
        state.run = Some(Loaded::after(t).run).filter(|_| !t.is_closed());
        if t.is_closed() {
            state.activities.clear();
        }
        Ok(())
    }

    /// Like [`Self::commit`], but the response does not arrive.
    pub(super) fn commit_unheard(&self, t: &Transition) {
        if self.commit(t).is_err() {
            return;
        }
        let mut state = self.state();
        if t.run.wft_state == TaskState::Started {
            state.let_go.insert(attempt(&t.run));
        }
        state.let_go.extend(t.new_activities.iter().filter(|new| new.is_started()).map(attempt_of));
    }

    /// A change by another process, which read, decided and wrote in one go. False: there was nothing to do.
    pub(super) fn elsewhere(&self, process: Uuid, decide: impl FnOnce(&mut Transition) -> bool) -> bool {
        let Some(loaded) = self.loaded() else { return false };
        let mut t = Transition::new(loaded, Circumstances { process, sticky_alive: true });
        decide(&mut t) && self.commit(&t).is_ok()
    }

    /// As the statement that gives a workflow task to a poller.
    pub(super) fn claim_task(&self, queue: &str, process: Uuid) -> Option<Run> {
        let now = self.now();
        let mut state = self.state();
        let waits = |run: &&mut Run| run.wft_state == TaskState::Scheduled && run.wft_queue == queue;
        let run = state.run.as_mut().filter(waits)?;
        run.revision += 1;
        (run.wft_state, run.wft_process, run.wft_started_at) = (TaskState::Started, Some(process), Some(now));
        if run.task_is_transient() && run.last_event_id > run.wft_base_id {
            run.wft_attempt = 1;
        }
        Some(run.clone())
    }

    /// As the statement that gives an activity to a poller.
    pub(super) fn claim_activity(&self, process: Uuid) -> Option<Activity> {
        let now = self.now();
        let mut state = self.state();
        let activity = state.activities.values_mut().find(|activity| !activity.is_started())?;
        activity.start("worker".to_owned(), now, process);
        Some(activity.clone())
    }
}

impl Tables for Database {
    fn load<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Option<Loaded>, Status>> {
        async move {
            tokio::task::yield_now().await;
            let loaded = self.loaded();
            tokio::task::yield_now().await;
            Ok(loaded.filter(|loaded| match target {
                Target::Run(run) => loaded.run.run_id == *run,
                Target::Current(workflow) => loaded.run.workflow_id == *workflow,
                Target::Exact(workflow, run) => loaded.run.workflow_id == *workflow && loaded.run.run_id == *run,
            }))
        }
        .boxed()
    }

    fn activity(&self, _: Uuid, scheduled_event_id: i64) -> BoxFuture<'_, Result<Option<Activity>, Status>> {
        async move {
            tokio::task::yield_now().await;
            let found = self.state().activities.get(&scheduled_event_id).cloned();
            tokio::task::yield_now().await;
            Ok(found)
        }
        .boxed()
    }
}
