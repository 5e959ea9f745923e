//! Tasks that go from a change straight to a poller in the same process.
//!
//! When a change schedules a task and its queue is polled here, the change itself starts the task: it is stored as started
//! by this process, in the same statement, and after the commit it is held in memory for the next poller. That saves the
//! statement that would have started it and the query that would have found it. Nothing is handed out before the commit,
//! and other processes see a started task like any other: its process holds it, by its lease.
//!
//! A task that no poller takes in time goes back, as does one whose poller has gone.
//!
//! | A workflow task is | What happens | Then |
//! |---|---|---|
//! | scheduled by a decision | a poller here waits or will be back, the lease is held, the engine is not stopping | started in that change ([`Handover::AfterCommit`]) |
//! | scheduled by a decision | otherwise | it waits in the database for anyone |
//! | started in the change | committed | it is held |
//! | started in the change | not written | it never existed |
//! | started in the change | the change waits ([`Handover::Ahead`]) | it is held; an answer counts only if the change is written |
//! | held | a poller comes | it is with its worker |
//! | held | its time is up, or its queue has gone | given back: it waits in the database |
//! | with its worker | the poller had gone before it received it | given back |
//! | started | this process dies | others release it, by its lease |

mod give_back;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use give_back::give_back;

use crate::{
    caller::Claim,
    engine::Engine,
    hot::{Remembered, Tail},
    matching::{Ahead, Kind, Task},
    model::{Activity, Handover, Loaded, Run, Start, TaskState, Transition},
    proto,
    shelf::Change,
    token::{TaskToken, TokenKind},
};

/// Longest time a task is held.
const PATIENCE: Duration = Duration::from_millis(2500);
/// After this time an activity that no poller was waiting for is taken back at the next look: another process may have a poller.
const MOMENT: Duration = Duration::from_millis(250);
/// How often to look for tasks that have been held too long.
const LOOK: Duration = Duration::from_millis(250);

/// A task may be held for a quarter of its worker's time for it.
fn patience(timeout_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms / 4).unwrap_or(0)).min(PATIENCE)
}

/// Milliseconds that a task must have to be held when no poller is waiting: it is taken back well before they are over.
pub(crate) const LEAST_MS: i64 = 2_000;
const _: () = assert!(LEAST_MS as u128 >= LOOK.as_millis() * 8);

/// Whether a task with this much time may wait for a poller.
fn may_lie(timeout_ms: i64) -> bool {
    timeout_ms >= LEAST_MS
}

/// The task a run has started, and how long it may be held.
fn workflow_task(run: &Run, revision: i64, tail: &Tail) -> (Task, Duration) {
    let sticky = run.wft_queue != run.task_queue;
    let events = tail.since(if sticky { run.previous_started_id } else { 0 });
    let mut patience = patience(run.wft_timeout_ms);
    if sticky {
        patience = patience.min(Duration::from_millis(u64::try_from(run.sticky_timeout_ms).unwrap_or(0)));
    }
    (Task::Workflow { run: Box::new(Run { revision, ..run.clone() }), events }, patience)
}

impl Activity {
    /// Milliseconds a worker has until the end or the next sign of life, if there is a limit.
    fn time(&self) -> Option<i64> {
        [self.start_to_close_ms, self.heartbeat_ms].into_iter().filter(|ms| *ms > 0).min()
    }
}

impl Run {
    /// The first attempt of the task has just been scheduled: a worker may have it.
    fn may_start(&self) -> bool {
        let written = !self.task_is_transient() || self.task_is_speculative();
        self.wft_state == TaskState::Scheduled && self.wft_attempt == 1 && written
    }
}

impl Engine {
    /// Whom this process may give the run's workflow task to right away.
    fn poller_for(&self, run: &Run) -> Option<String> {
        if !run.may_start() || !self.inner.lease.is_held() || self.is_stopping() {
            return None;
        }
        let ahead = if may_lie(run.wft_timeout_ms) { Ahead::Freely } else { Ahead::Awaited };
        self.inner.matching.accepts(Kind::Workflow, &run.wft_queue, ahead)
    }

    /// Starts the tasks a transition schedules, where pollers of this process wait for them.
    pub(crate) fn start_directly(&self, t: &mut Transition) {
        let scheduled = t.run.wft_scheduled_id > t.expected_last_event_id
            || (t.run.task_is_speculative() && t.run.wft_scheduled_at == Some(t.now));
        let fresh = scheduled && t.run.wft_ready_at <= Some(t.wall);
        if !t.is_closed()
            && fresh
            && let Some(identity) = self.poller_for(&t.run)
        {
            t.start_task(&identity);
            t.handover = Handover::AfterCommit;
        }
        if t.is_closed() || !self.inner.lease.is_held() || self.is_stopping() {
            return;
        }
        let (now, process) = (t.now, t.circumstances.process);
        // Those already started are for the worker being answered.
        for activity in t.new_activities.iter_mut().filter(|a| !a.is_started()) {
            let ahead = if activity.time().is_none_or(may_lie) { Ahead::AsTaken } else { Ahead::Awaited };
            let Some(identity) = self.inner.matching.accepts(Kind::Activity, &activity.task_queue, ahead) else {
                continue;
            };
            activity.start(identity, now, process);
            t.direct_activities.push(activity.scheduled_event_id);
        }
    }

    /// Like [`Self::start_directly`], for a run's first task.
    pub(crate) fn start_first_directly(&self, start: &mut Start) {
        let eager = start.new.attributes.eager_execution_accepted;
        let run = &mut start.run;
        let identity = if eager { Some(start.new.attributes.identity.clone()) } else { self.poller_for(run) };
        if let Some(identity) = identity {
            run.wft_state = TaskState::Started;
            run.wft_started_at = Some(start.now);
            run.wft_due_at = Some(proto::after(start.wall, run.wft_timeout_ms));
            run.wft_process = Some(self.inner.lease.process());
            run.wft_identity = identity;
            // The response to the start carries an eager one.
            start.handover = if eager { Handover::None } else { Handover::AfterCommit };
        }
    }

    /// Holds the tasks that a committed transition has started.
    pub(crate) fn hand_over(&self, t: &Transition, tail: &Tail) {
        if t.handover == Handover::AfterCommit {
            self.hand_over_task(&t.run, t.expected_revision + 1, tail);
        }
        for id in &t.direct_activities {
            if let Some(activity) = t.new_activities.iter().find(|a| a.scheduled_event_id == *id) {
                self.hand_over_activity(activity);
            }
        }
    }

    /// Caches a run that has just been created and holds its first task if it is started.
    pub(crate) fn created(&self, start: &Start) {
        let tail = Tail::new(0, start.events.clone());
        let loaded = Loaded { run: start.run.clone(), now: start.now, wall: start.wall };
        // First cached, then handed over: the worker's answer comes later.
        self.inner.hot.put(Remembered { loaded, tail: tail.clone() });
        if start.handover == Handover::AfterCommit {
            self.hand_over_task(&start.run, 0, &tail);
        }
    }

    /// Holds the task that a transition will have started once it is written. False: it has to wait for the write.
    pub(crate) fn hand_ahead(&self, change: &Change) -> bool {
        let t = &change.transition;
        let tail = &change.tail.clone().advanced(&t.events, t.run.previous_started_id);
        let (task, patience) = workflow_task(&t.run, t.expected_revision + 1, tail);
        // Events that are not cached would be read, and are not all stored yet.
        let complete = matches!(&task, Task::Workflow { events: Some(_), .. });
        complete && self.inner.matching.put(Kind::Workflow, &t.run.wft_queue, task, patience).is_none()
    }

    fn hand_over_task(&self, run: &Run, revision: i64, tail: &Tail) {
        let (task, patience) = workflow_task(run, revision, tail);
        let back = self.inner.matching.put(Kind::Workflow, &run.wft_queue, task, patience);
        self.take_back(back.into_iter().collect());
    }

    /// Holds an activity that has been started. One with little time goes back at once if no poller waits for it.
    pub(crate) fn hand_over_activity(&self, activity: &Activity) {
        let task = Task::Activity(Box::new(activity.clone()));
        let mut patience = activity.time().map_or(PATIENCE, patience);
        if !self.inner.matching.is_awaited(Kind::Activity, &activity.task_queue) {
            if !activity.time().is_none_or(may_lie) {
                return self.take_back(vec![task]);
            }
            patience = patience.min(MOMENT);
        }
        let back = self.inner.matching.put(Kind::Activity, &activity.task_queue, task, patience);
        self.take_back(back.into_iter().collect());
    }

    /// Tasks that reached no poller wait for one in the database.
    pub(crate) fn take_back(&self, tasks: Vec<Task>) {
        for task in tasks {
            let engine = self.clone();
            self.inner.runtime.spawn(async move { give_back(&engine, task.claim()).await });
        }
    }
}

impl Task {
    /// What identifies the attempt.
    pub(crate) fn claim(&self) -> Claim {
        match self {
            Self::Workflow { run, .. } => Claim::Workflow(run.task_token()),
            Self::Activity(a) => {
                Claim::Activity(TaskToken::of(TokenKind::Activity, a.run_id, a.scheduled_event_id, a.attempt))
            }
        }
    }
}

/// Takes back what has been held too long, until the engine stops.
pub(crate) async fn reclaim(engine: Engine) {
    loop {
        tokio::time::sleep(LOOK).await;
        engine.take_back(engine.inner.matching.overdue());
    }
}
