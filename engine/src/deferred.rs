//! Changes that wait briefly for the workflow task they cause.
//!
//! The end of an activity causes a workflow task, whose end is the run's next change. When a poller in this process
//! takes the task, the task is handed out ahead of the change, and the change is written together with the worker's answer: one
//! statement and one commit instead of two.
//!
//! Nothing is acknowledged before it is written: whoever reported the activity gets its response after the commit. If a task's
//! cause is never written (the process dies, another process changes the run first), the worker's answer is rejected as stale, and
//! the worker evicts the run. Activities, timers and children that a workflow asks for wait for the commit as always. A start is
//! not deferred: the database decides whether it is accepted, and until then nothing of the workflow may run.
//!
//! A change waits until the task ends, until another request concerns the run, or for [`crate::EngineOptions::deferral`].
//!
//! | Of a run | What happens | Then | Told |
//! |---|---|---|---|
//! | nothing waits | a change whose only consequence is its task, which goes to a poller here ([`Wait::Ahead`]) | it waits | nobody |
//! | nothing waits | any other change | it is being written | |
//! | a change waits | another end of an activity ([`Wait::Joining`]) | both wait, no longer than the first | nobody |
//! | a change waits | the answer to its task | both are being written | |
//! | a change waits | any other request, its time is up, the engine stops | it is being written | |
//! | being written | committed | nothing waits | everybody |
//! | being written | conflict, or what was put on top is a duplicate | nothing waits; the answer to its task is stale | all decide again |
//! | being written | failed, or outcome unknown | nothing waits; if it was not written, the answer to its task is stale | all fail |
//!
//! A task that was handed out ahead of a change that was never written may have the same id as one that another change schedules in its
//! place: the token tells them apart by their start times.

use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    engine::Engine,
    model::{Handover, TaskState, Transition},
    shelf::{Change, Deferred, Fate, Waiters},
};

/// Changes whose waits end this close together are written at the same time.
const COALESCE: Duration = Duration::from_millis(5);

/// How a change can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Together with one that already waits, whose task is with its worker.
    Joining,
    /// Once its task has gone to a poller.
    Ahead,
    /// Not at all.
    No,
}

impl Wait {
    fn of(Change { transition: t, waiters, .. }: &Change) -> Self {
        match (waiters, t.run.wft_state, t.handover) {
            (Some(_), TaskState::Started, Handover::None | Handover::Ahead) => Self::Joining,
            (_, TaskState::Started, Handover::AfterCommit) if is_only_its_task(t) => Self::Ahead,
            _ => Self::No,
        }
    }
}

/// Only the worker of its workflow task needs to know of the change.
fn is_only_its_task(t: &Transition) -> bool {
    t.new_activities.is_empty() && t.effects.is_empty() && !t.is_closed() && t.settles.is_none()
}

impl Engine {
    /// Defers a change and gives its workflow task to a poller. The change is returned if it has to be written at once.
    pub(crate) fn defer(&self, change: Change) -> Result<Fate, Change> {
        let waits = match Wait::of(&change) {
            Wait::Joining => true,
            Wait::Ahead => !self.is_stopping() && self.hand_ahead(&change),
            Wait::No => false,
        };
        if !waits {
            return Err(change);
        }
        let Change { mut transition, tail, waiters } = change;
        transition.handover = Handover::Ahead;
        let (sender, receiver) = oneshot::channel();
        let mut waiters = waiters.unwrap_or_else(|| Waiters::new(self.inner.options.deferral));
        waiters.waiters.push(sender);
        let run = transition.run.run_id;
        self.inner.deferred.put(Deferred { transition, tail, waiters });
        if self.is_stopping() {
            // Whoever writes the waiting changes at shutdown may have passed by already.
            let engine = self.clone();
            self.inner.runtime.spawn(async move { engine.flush(run).await });
        }
        Ok(receiver)
    }

    /// Writes a run's deferred change now. Those who wait for it get the outcome.
    pub(crate) async fn flush(&self, run: Uuid) {
        let _turn = self.turn(run).await;
        if let Some(deferred) = self.inner.deferred.take(run) {
            self.write_deferred(deferred).await;
        }
    }

    /// Like [`Self::flush`], for the run of a workflow id.
    pub(crate) async fn flush_workflow(&self, workflow_id: &str) {
        if let Some(run) = self.inner.deferred.run_of(workflow_id) {
            self.flush(run).await;
        }
    }

    /// Only for the holder of the run's turn.
    pub(crate) async fn write_deferred(&self, deferred: Deferred) {
        let (transition, tail, waiters) = deferred.into_parts();
        // Those who wait for it are told.
        let _ = self.write(Change { transition, tail, waiters: Some(waiters) }).await;
    }

    pub(crate) async fn flush_all(&self) {
        futures::future::join_all(self.inner.deferred.runs().into_iter().map(|run| self.flush(run))).await;
    }
}

/// Writes changes that have waited long enough, until the engine stops.
pub(crate) async fn run(engine: Engine) {
    let shelf = &engine.inner.deferred;
    loop {
        match shelf.overdue() {
            Ok(runs) => {
                for run in runs {
                    let engine = engine.clone();
                    engine.inner.runtime.clone().spawn(async move { engine.flush(run).await });
                }
            }
            Err(Some(at)) => tokio::time::sleep_until((at + COALESCE).into()).await,
            Err(None) => shelf.added.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use ambient_tests::TestDatabase;
    use temporalio_common::protos::temporal::api::{
        command::v1::{
            Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
            command::Attributes as C,
        },
        common::v1::WorkflowExecution,
        enums::v1::{EventType, TaskQueueKind},
        history::v1::HistoryEvent,
        taskqueue::v1::{StickyExecutionAttributes, TaskQueue},
        workflowservice::v1 as ws,
    };
    use tokio::task::JoinHandle;
    use tonic::{Code, Status};

    use super::*;
    use crate::{
        matching::{Ahead, Kind},
        options::EngineOptions,
        proto,
        testing::{NAMESPACE, activity, begun, call},
    };

    /// The worker's own queue, after its first task.
    const STICKY: &str = "sticky";

    fn queue(name: &str) -> TaskQueue {
        let kind = if name == STICKY { TaskQueueKind::Sticky } else { TaskQueueKind::Normal };
        TaskQueue { name: name.into(), kind: kind as i32, normal_name: "q".into() }
    }

    fn poll(engine: &Engine, name: &str) -> JoinHandle<ws::PollWorkflowTaskQueueResponse> {
        let (engine, name) = (engine.clone(), name.to_owned());
        tokio::spawn(async move {
            let task_queue = Some(queue(&name));
            let request =
                ws::PollWorkflowTaskQueueRequest { namespace: NAMESPACE.into(), task_queue, ..Default::default() };
            call(&engine, "PollWorkflowTaskQueue", request).await.unwrap()
        })
    }

    async fn complete(
        engine: &Engine,
        task_token: Vec<u8>,
        command: C,
    ) -> Result<ws::RespondWorkflowTaskCompletedResponse, Status> {
        let commands = vec![Command { attributes: Some(command), ..Default::default() }];
        let request = ws::RespondWorkflowTaskCompletedRequest {
            namespace: NAMESPACE.into(),
            task_token,
            commands,
            sticky_attributes: Some(StickyExecutionAttributes {
                worker_task_queue: Some(queue(STICKY)),
                schedule_to_start_timeout: Some(proto::duration(60_000)),
            }),
            ..Default::default()
        };
        call(engine, "RespondWorkflowTaskCompleted", request).await
    }

    fn end() -> C {
        C::CompleteWorkflowExecutionCommandAttributes(CompleteWorkflowExecutionCommandAttributes::default())
    }

    /// A run whose activity has just been reported as completed: the report, still unanswered, and the task that was handed out ahead.
    struct Reported {
        report: JoinHandle<Result<ws::RespondActivityTaskCompletedResponse, Status>>,
        task: ws::PollWorkflowTaskQueueResponse,
    }

    async fn reported(engine: &Engine) -> Reported {
        let first = begun(engine).await;
        let eager = ScheduleActivityTaskCommandAttributes { request_eager_execution: true, ..activity("1", 600_000) };
        let eager = C::ScheduleActivityTaskCommandAttributes(eager);
        // The worker's queue is alive only while it has a poller.
        let next = poll(engine, STICKY);
        while engine.inner.matching.accepts(Kind::Workflow, STICKY, Ahead::Awaited).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let token = complete(engine, first, eager).await.unwrap().activity_tasks[0].task_token.clone();
        let report = tokio::spawn({
            let engine = engine.clone();
            async move {
                let (namespace, task_token) = (NAMESPACE.into(), token);
                let request = ws::RespondActivityTaskCompletedRequest { namespace, task_token, ..Default::default() };
                call(&engine, "RespondActivityTaskCompleted", request).await
            }
        });
        Reported { report, task: next.await.unwrap() }
    }

    /// Stored appends, each with the kinds of its events.
    async fn stored(engine: &Engine) -> Vec<Vec<EventType>> {
        let sql = "select data from engine.history order by first_event_id";
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(sql).fetch_all(&engine.inner.store.pool).await.unwrap();
        rows.iter().map(|row| proto::events(&[row]).unwrap().iter().map(HistoryEvent::event_type).collect()).collect()
    }

    async fn count(engine: &Engine, kind: EventType) -> usize {
        stored(engine).await.concat().into_iter().filter(|k| *k == kind).count()
    }

    async fn signal(engine: &Engine) {
        let request = ws::SignalWorkflowExecutionRequest {
            namespace: NAMESPACE.into(),
            workflow_execution: Some(WorkflowExecution { workflow_id: "w".into(), ..Default::default() }),
            signal_name: "s".into(),
            ..Default::default()
        };
        let _: ws::SignalWorkflowExecutionResponse = call(engine, "SignalWorkflowExecution", request).await.unwrap();
    }

    async fn engine(database: &TestDatabase) -> Engine {
        Engine::start(database.pool().await, EngineOptions::patient()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_activity_s_end_is_written_and_acknowledged_with_the_task_it_causes() {
        let database = TestDatabase::new().await;
        let engine = engine(&database).await;
        let Reported { report, task } = reported(&engine).await;
        assert_eq!(count(&engine, EventType::ActivityTaskCompleted).await, 0);
        assert!(!report.is_finished(), "acknowledged before it is written");
        complete(&engine, task.task_token, end()).await.unwrap();
        report.await.unwrap().unwrap();
        let appends = stored(&engine).await;
        assert_eq!(appends.len(), 3, "{appends:?}");
        let (first, last) = (appends[2].first(), appends[2].last());
        assert_eq!(
            (first, last),
            (Some(&EventType::ActivityTaskStarted), Some(&EventType::WorkflowExecutionCompleted))
        );
        engine.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_whose_cause_lost_a_race_with_another_process_is_stale_and_nothing_is_lost() {
        let database = TestDatabase::new().await;
        let (one, other) = (engine(&database).await, engine(&database).await);
        let Reported { report, task } = reported(&one).await;
        signal(&other).await;
        assert_eq!(complete(&one, task.task_token, end()).await.unwrap_err().code(), Code::NotFound);
        // Decided again on what is stored: the signal has caused a task, which takes the activity's end along.
        let task = poll(&one, STICKY).await.unwrap();
        report.await.unwrap().unwrap();
        let ended = complete(&one, task.task_token, end()).await;
        if let Err(status) = ended {
            // The activity's end came after the task had been taken; anyone may take the next attempt.
            assert_eq!(status.message(), "UnhandledCommand");
            complete(&one, poll(&one, "q").await.unwrap().task_token, end()).await.unwrap();
        }
        for kind in [
            EventType::WorkflowExecutionSignaled,
            EventType::ActivityTaskCompleted,
            EventType::WorkflowExecutionCompleted,
        ] {
            assert_eq!(count(&one, kind).await, 1, "{kind:?}");
        }
        one.shutdown().await;
        other.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn another_request_has_what_waits_written_first() {
        let database = TestDatabase::new().await;
        let engine = engine(&database).await;
        let Reported { report, task } = reported(&engine).await;
        signal(&engine).await;
        report.await.unwrap().unwrap();
        assert_eq!(count(&engine, EventType::ActivityTaskCompleted).await, 1);
        let refused = complete(&engine, task.task_token, end()).await.unwrap_err();
        assert_eq!(refused.message(), "UnhandledCommand", "the signal is yet to be seen");
        complete(&engine, poll(&engine, "q").await.unwrap().task_token, end()).await.unwrap();
        assert_eq!(count(&engine, EventType::WorkflowExecutionSignaled).await, 1);
        engine.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stopping_engine_writes_what_waits() {
        let database = TestDatabase::new().await;
        let (engine, other) = (engine(&database).await, engine(&database).await);
        let Reported { report, .. } = reported(&engine).await;
        engine.shutdown().await;
        report.await.unwrap().unwrap();
        assert_eq!(count(&other, EventType::ActivityTaskCompleted).await, 1);
        other.shutdown().await;
    }
}
