//! Workflow tasks: polled, completed, failed.

use std::time::Duration;

use prost::Message;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowType,
    enums::v1::{TaskQueueKind, WorkflowTaskFailedCause as Cause},
    failure::v1::{Failure, ServerFailureInfo, failure::FailureInfo},
    history::v1::History,
    workflowservice::v1::{
        PollWorkflowTaskQueueRequest, PollWorkflowTaskQueueResponse, ResetStickyTaskQueueRequest,
        ResetStickyTaskQueueResponse, RespondWorkflowTaskCompletedRequest, RespondWorkflowTaskCompletedResponse,
        RespondWorkflowTaskFailedRequest, RespondWorkflowTaskFailedResponse,
    },
};
use tonic::Status;

use crate::{
    caller::{Caller, Claim},
    change::{Decision, Unchanged},
    engine::Engine,
    history::{
        commands::{self, Ground, Needs, Refused},
        updates,
        workflow_task::{events_in_flight, holds},
    },
    hot::{Remembered, Tail},
    matching::{Kind, Task},
    model::{Activity, Handover, Loaded, Run, Target, TaskState, Transition},
    proto,
    recorded::{self, RawHistory, Recorded},
    store::dispatch::{ClaimedTask, FIRST_PAGE},
    token::{HistoryToken, TaskToken, TokenKind},
};

/// How often pollers look again while the lease is not held.
const NO_LEASE_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn poll(
    engine: &Engine,
    caller: &Caller,
    request: PollWorkflowTaskQueueRequest,
) -> Result<WorkflowTask, Status> {
    let queue = request.task_queue.unwrap_or_default();
    proto::name(&queue.name, "task_queue")?;
    proto::optional_name(&request.identity, "identity")?;
    let sticky = queue.kind() == TaskQueueKind::Sticky;
    let waiting = engine.inner.matching.queue(Kind::Workflow, &queue.name);
    let _present = waiting.enter(&request.identity);
    let deadline = tokio::time::Instant::now() + super::LONG_POLL;
    let mut stopped = engine.inner.stopped.subscribe();
    loop {
        let hinted = tokio::select! {
            hinted = waiting.ready() => hinted,
            () = tokio::time::sleep_until(deadline) => return Ok(WorkflowTask::default()),
            () = caller.gone() => return Ok(WorkflowTask::default()),
            _ = stopped.wait_for(|s| *s) => return Ok(WorkflowTask::default()),
        };
        if !engine.inner.lease.is_held() {
            waiting.hint();
            tokio::time::sleep(NO_LEASE_PAUSE).await;
            continue;
        }
        let next = match waiting.take() {
            Some(task) => engine.ready_workflow_task(task, caller).await,
            None => engine.next_workflow_task(&queue.name, &request.identity, sticky, caller).await,
        };
        match next {
            Ok(Some(task)) => {
                if hinted {
                    waiting.hint();
                }
                return Ok(task);
            }
            Ok(None) => {}
            Err(status) => {
                waiting.hint();
                return Err(status);
            }
        }
    }
}

impl Engine {
    /// A task that was held.
    async fn ready_workflow_task(&self, task: Task, caller: &Caller) -> Result<Option<WorkflowTask>, Status> {
        caller.claimed(task.claim());
        let Task::Workflow { run, events } = task else {
            return Err(Status::internal("an activity lay on a queue of workflow tasks"));
        };
        if let Some(events) = events {
            return self.with_queries(&run, task_response(&run, events, true)).await.map(Some);
        }
        let after = if run.wft_queue == run.task_queue { 0 } else { run.previous_started_id };
        let page = FirstPage::of(&self.inner.store.history(run.run_id, after, FIRST_PAGE).await?, after)?;
        if !page.fits(after, run.last_event_id) {
            return Err(gap(run.run_id));
        }
        self.with_queries(&run, task_response(&run, page.events, page.complete)).await.map(Some)
    }

    async fn next_workflow_task(
        &self,
        queue: &str,
        identity: &str,
        sticky: bool,
        caller: &Caller,
    ) -> Result<Option<WorkflowTask>, Status> {
        if let Some(message) = self.next_query_task(queue).await? {
            return Ok(Some(WorkflowTask { message, events: Vec::new() }));
        }
        let process = self.inner.lease.process();
        let claimed = self.inner.store.claim_workflow_task(queue, process, identity, sticky).await?;
        let Some(claimed) = claimed else { return Ok(None) };
        let run = &claimed.run;
        caller.claimed(Claim::Workflow(run.task_token()));
        self.claimed_task(claimed, sticky).await.map(Some)
    }

    async fn claimed_task(&self, claimed: ClaimedTask, sticky: bool) -> Result<WorkflowTask, Status> {
        let ClaimedTask { run, batches } = claimed;
        let after = if sticky { run.previous_started_id } else { 0 };
        let mut page = FirstPage::of(&batches.unwrap_or_default(), after)?;
        if !page.fits(after, run.last_event_id) {
            // The locked row may be newer than the statement's snapshot, which the events came from.
            page = FirstPage::of(&self.inner.store.history(run.run_id, after, FIRST_PAGE).await?, after)?;
        }
        if !page.fits(after, run.last_event_id) {
            return Err(gap(run.run_id));
        }
        self.remember_claim(&run, after, &page);
        let response = task_response(&run, page.events, page.complete);
        self.with_queries(&run, response).await
    }

    async fn with_queries(&self, run: &Run, mut task: WorkflowTask) -> Result<WorkflowTask, Status> {
        task.message.queries = self.queries_with_task(run).await?;
        Ok(task)
    }
}

fn gap(run: uuid::Uuid) -> Status {
    Status::data_loss(format!("history of run {run} has a gap"))
}

/// The events handed out with a task, or as many of them as make a page.
struct FirstPage {
    events: Vec<Recorded>,
    complete: bool,
}

impl FirstPage {
    fn of(appends: &[Vec<u8>], after: i64) -> Result<Self, Status> {
        let complete = i64::try_from(appends.len()).is_ok_and(|n| n < FIRST_PAGE);
        let mut events = recorded::read(appends)?;
        events.retain(|e| e.event_id() > after);
        Ok(Self { events, complete })
    }

    /// Whether these are the events that follow `after`, up to `last` if that is not left for a later page.
    fn fits(&self, after: i64, last: i64) -> bool {
        match (self.events.first(), self.events.last()) {
            (Some(first), Some(end)) => first.event_id() == after + 1 && (!self.complete || end.event_id() == last),
            _ => false,
        }
    }
}

impl Engine {
    fn remember_claim(&self, run: &Run, after: i64, page: &FirstPage) {
        let (now, wall) = self.inner.clock.both();
        let now = run.wft_started_at.map_or(now, |at| at.max(now));
        let loaded = Loaded { run: run.clone(), now, wall };
        let tail = if page.complete {
            Tail::new(after, page.events.clone())
        } else {
            Tail::new(run.last_event_id, Vec::new())
        };
        self.inner.hot.put(Remembered { loaded, tail });
    }
}

/// A task for a worker: the message, and the events that belong in it as they were recorded.
#[derive(Debug, Default)]
pub(super) struct WorkflowTask {
    message: PollWorkflowTaskQueueResponse,
    events: Vec<Recorded>,
}

/// The history of a `PollWorkflowTaskQueueResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskHistory {
    #[prost(message, optional, tag = "8")]
    history: Option<RawHistory>,
}

impl WorkflowTask {
    /// The whole message as it is sent: two concatenated protobuf messages are both in one.
    pub(super) fn encode_to_vec(&self) -> Vec<u8> {
        let mut encoded = self.message.encode_to_vec();
        if !self.events.is_empty() {
            encoded.extend(TaskHistory { history: Some(self.events.iter().collect()) }.encode_to_vec());
        }
        encoded
    }

    /// The whole message, to become part of another one.
    pub(super) fn into_message(mut self) -> Result<PollWorkflowTaskQueueResponse, Status> {
        self.message.history = Some(History { events: recorded::decoded(&self.events)? });
        Ok(self.message)
    }
}

/// A task for a worker. `complete`: `events` go up to the last stored one.
pub(super) fn task_response(run: &Run, mut events: Vec<Recorded>, complete: bool) -> WorkflowTask {
    let next_page_token = if complete {
        events.extend(events_in_flight(run).iter().map(Recorded::new));
        Vec::new()
    } else {
        let next = events.last().map_or(1, |e| e.event_id() + 1);
        HistoryToken::encode(run.run_id, next, true)
    };
    let message = PollWorkflowTaskQueueResponse {
        task_token: run.task_token().encode_to_vec(),
        workflow_execution: Some(proto::execution(&run.workflow_id, run.run_id)),
        workflow_type: Some(WorkflowType { name: run.workflow_type.clone() }),
        previous_started_event_id: run.previous_started_id,
        started_event_id: run.task_started_id(),
        attempt: run.wft_attempt,
        next_page_token,
        // Workers reject a task without it.
        workflow_execution_task_queue: Some(proto::queue(&run.task_queue)),
        scheduled_time: run.wft_scheduled_at.map(proto::timestamp),
        started_time: run.wft_started_at.map(proto::timestamp),
        messages: updates::messages(run),
        ..Default::default()
    };
    WorkflowTask { message, events }
}

fn stale() -> Status {
    Status::not_found("workflow task not found: it has timed out or been answered before")
}

pub(super) async fn respond_completed(
    engine: &Engine,
    _caller: &Caller,
    mut request: RespondWorkflowTaskCompletedRequest,
) -> Result<RespondWorkflowTaskCompletedResponse, Status> {
    let token = TaskToken::read(&request.task_token, TokenKind::Workflow)?;
    if request.intermediate_page {
        return Err(Status::unimplemented("paged workflow task completions are not supported by this engine"));
    }
    proto::optional_name(&request.identity, "identity")?;
    let bad_attributes = engine.refused_search_attributes(&mut request.commands).await?;
    let needs = Needs { ground: Ground::Unwritten, ..Needs::of(&request.commands) };
    let target = Target::Run(token.run_id());
    let decided = engine
        .change(&target, needs, |t, pending| {
            if !holds(&t.run, &token) {
                return Err(stale());
            }
            let before = t.clone();
            let completed = match &bad_attributes {
                Some(message) => Err(Refused::task(Cause::BadSearchAttributes, message.as_str())),
                None => commands::complete(t, request.clone(), pending, &engine.names()),
            };
            match completed {
                Ok(()) => Ok(Decision::Write(Ok(()))),
                Err(Refused::Status(status)) => Err(status),
                Err(Refused::Task { cause, message }) => {
                    *t = before;
                    t.drop_delivered_updates();
                    t.fail_task(cause, Some(refusal(&message)), &request.identity)?;
                    Ok(Decision::Write(Err(Status::invalid_argument(message))))
                }
            }
        })
        .await;
    let (outcome, transition) = match decided {
        Ok(done) => done,
        Err(Unchanged::NotOpen | Unchanged::Duplicate) => return Err(stale()),
        Err(Unchanged::Status(status)) => return Err(status),
    };
    outcome?;
    engine.answer_queries(request.query_results).await?;
    let workflow_task = match inline_task(&transition) {
        Some(task) => Some(engine.with_queries(&transition.run, task).await?.into_message()?),
        None => None,
    };
    Ok(RespondWorkflowTaskCompletedResponse { workflow_task, ..completed_response(engine, &transition) })
}

fn refusal(message: &str) -> Failure {
    Failure {
        message: message.to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo { non_retryable: true })),
        ..Default::default()
    }
}

/// The next workflow task, if there already is one that nobody else gets.
fn inline_task(t: &Transition) -> Option<WorkflowTask> {
    let inline = !t.is_closed() && t.handover == Handover::None && t.run.wft_state == TaskState::Started;
    inline.then(|| {
        let events = t.events.iter().filter(|e| e.event_id() > t.run.previous_started_id).cloned();
        task_response(&t.run, events.collect(), true)
    })
}

/// Activities the worker takes at once.
fn completed_response(engine: &Engine, t: &Transition) -> RespondWorkflowTaskCompletedResponse {
    // A run that closed has left no activities behind.
    let own = |a: &Activity| a.is_started() && !t.direct_activities.contains(&a.scheduled_event_id);
    let eager = t.new_activities.iter().filter(|a| own(a) && !t.is_closed());
    let activity_tasks =
        eager.filter_map(|a| super::activity_task::task_response(a, &engine.inner.options.namespace).ok()).collect();
    let reset_history_event_id = if t.discarded_task { t.run.previous_started_id } else { 0 };
    RespondWorkflowTaskCompletedResponse { activity_tasks, reset_history_event_id, ..Default::default() }
}

pub(super) async fn respond_failed(
    engine: &Engine,
    _caller: &Caller,
    request: RespondWorkflowTaskFailedRequest,
) -> Result<RespondWorkflowTaskFailedResponse, Status> {
    let token = TaskToken::read(&request.task_token, TokenKind::Workflow)?;
    let cause = match request.cause() {
        Cause::Unspecified => Cause::WorkflowWorkerUnhandledFailure,
        cause => cause,
    };
    let failed = engine
        .change(&Target::Run(token.run_id()), Needs { ground: Ground::Unwritten, ..Needs::default() }, |t, _| {
            if !holds(&t.run, &token) {
                return Err(stale());
            }
            tracing::info!(
                workflow_id = %t.run.workflow_id, attempt = t.run.wft_attempt, ?cause,
                reason = request.failure.as_ref().map_or("", |f| f.message.as_str()), "workflow task failed"
            );
            t.fail_task(cause, request.failure.clone(), &request.identity)?;
            Ok(Decision::Write(()))
        })
        .await;
    match failed {
        Ok(_) => Ok(RespondWorkflowTaskFailedResponse::default()),
        Err(Unchanged::Status(status)) => Err(status),
        Err(_) => Err(stale()),
    }
}

/// The worker that has the run in its cache evicts it.
pub(super) async fn reset_sticky(
    engine: &Engine,
    _caller: &Caller,
    request: ResetStickyTaskQueueRequest,
) -> Result<ResetStickyTaskQueueResponse, Status> {
    let target = super::target(request.execution.as_ref())?;
    let reset = engine
        .change(&target, Needs::default(), |t, _| {
            let (queue, waits) = (t.run.wft_queue.clone(), t.run.wft_state == TaskState::Scheduled);
            if waits && queue != t.run.task_queue {
                t.reroute_task();
            } else if t.run.sticky_queue.is_some() {
                t.leave_sticky();
            } else {
                return Ok(Decision::Keep(()));
            }
            Ok(Decision::Write(()))
        })
        .await;
    if let Err(unchanged) = reset {
        return Err(super::refused(engine, &target, unchanged).await);
    }
    Ok(ResetStickyTaskQueueResponse::default())
}

#[cfg(test)]
mod tests {
    use ambient_tests::TestDatabase;
    use temporalio_common::protos::temporal::api::{
        history::v1::{WorkflowExecutionSignaledEventAttributes, history_event::Attributes as A},
        workflowservice::v1::StartWorkflowExecutionRequest,
    };

    use super::*;
    use crate::{model::StartPolicy, options::EngineOptions, rpc::start::new_run};

    /// A run with three appends whose task is claimed as by a statement that took its snapshot before the last ones.
    async fn claimed_behind(engine: &Engine, missing: usize) -> ClaimedTask {
        let request = StartWorkflowExecutionRequest {
            workflow_id: "w".to_owned(),
            workflow_type: Some(WorkflowType { name: "any".to_owned() }),
            task_queue: Some(proto::queue("q")),
            ..Default::default()
        };
        let policy = StartPolicy::Reuse(Default::default());
        Box::pin(engine.create(new_run(request, None).unwrap(), policy)).await.unwrap();
        for signal in ["a", "b"] {
            let event = A::WorkflowExecutionSignaledEventAttributes(WorkflowExecutionSignaledEventAttributes {
                signal_name: signal.to_owned(),
                ..Default::default()
            });
            engine.deliver_signal(&Target::Current("w".to_owned()), &event, "").await.unwrap();
        }
        let process = engine.inner.lease.process();
        let claimed = engine.inner.store.claim_workflow_task("q", process, "me", false).await.unwrap();
        let mut claimed = claimed.unwrap();
        let batches = claimed.batches.as_mut().unwrap();
        assert_eq!(batches.len(), 3);
        batches.truncate(3 - missing);
        claimed
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_claim_newer_than_its_snapshot_hands_out_every_event() {
        for missing in [1, 2, 3] {
            let database = TestDatabase::new().await;
            let engine = Engine::start(database.pool().await, EngineOptions::patient()).await.unwrap();
            let claimed = claimed_behind(&engine, missing).await;
            let task = engine.claimed_task(claimed, false).await.unwrap();
            let sent = PollWorkflowTaskQueueResponse::decode(task.encode_to_vec().as_slice()).unwrap();
            assert_eq!(sent, task.into_message().unwrap());
            let ids: Vec<i64> = sent.history.unwrap().events.iter().map(|e| e.event_id).collect();
            assert_eq!(ids, [1, 2, 3, 4, 5], "started, task scheduled, two signals, task started");
            engine.shutdown().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_history_with_a_gap_is_not_handed_out() {
        let database = TestDatabase::new().await;
        let engine = Engine::start(database.pool().await, EngineOptions::patient()).await.unwrap();
        let claimed = claimed_behind(&engine, 1).await;
        sqlx::query("delete from engine.history where first_event_id = 4")
            .execute(&engine.inner.store.pool)
            .await
            .unwrap();
        let refused = engine.claimed_task(claimed, false).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DataLoss, "{refused}");
        engine.shutdown().await;
    }
}
