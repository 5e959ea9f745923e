//! Workflow tasks: polled, completed, failed.

use std::time::Duration;

use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowType,
    enums::v1::{TaskQueueKind, WorkflowTaskFailedCause as Cause},
    failure::v1::{Failure, ServerFailureInfo, failure::FailureInfo},
    history::v1::{History, HistoryEvent},
    workflowservice::v1::{
        PollWorkflowTaskQueueRequest, PollWorkflowTaskQueueResponse, RespondWorkflowTaskCompletedRequest,
        RespondWorkflowTaskCompletedResponse, RespondWorkflowTaskFailedRequest, RespondWorkflowTaskFailedResponse,
    },
};
use tonic::Status;

use crate::{
    engine::{Decision, Engine, Unchanged},
    history::{
        Transition,
        commands::{self, Needs, Refused},
        workflow_task::{events_in_flight, holds},
    },
    matching::Kind,
    proto,
    service::{Caller, Claim},
    store::{
        Run, Target, TaskState,
        dispatch::{ClaimedTask, FIRST_PAGE},
        load::Loaded,
    },
    token::{HistoryToken, TaskToken, TokenKind},
};

/// While the lease is not held, pollers look again so often.
const NO_LEASE_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn poll(
    engine: &Engine,
    caller: &Caller,
    request: PollWorkflowTaskQueueRequest,
) -> Result<PollWorkflowTaskQueueResponse, Status> {
    let queue = request.task_queue.unwrap_or_default();
    proto::name(&queue.name, "task_queue")?;
    proto::optional_name(&request.identity, "identity")?;
    let sticky = queue.kind() == TaskQueueKind::Sticky;
    let waiting = engine.inner.matching.queue(Kind::Workflow, &queue.name);
    let _present = waiting.enter();
    let deadline = tokio::time::Instant::now() + super::LONG_POLL;
    let mut stopped = engine.inner.stopped.subscribe();
    loop {
        let hinted = tokio::select! {
            hinted = waiting.ready() => hinted,
            () = tokio::time::sleep_until(deadline) => return Ok(PollWorkflowTaskQueueResponse::default()),
            () = caller.gone() => return Ok(PollWorkflowTaskQueueResponse::default()),
            _ = stopped.wait_for(|s| *s) => return Ok(PollWorkflowTaskQueueResponse::default()),
        };
        if !engine.inner.lease.is_held() {
            waiting.hint();
            tokio::time::sleep(NO_LEASE_PAUSE).await;
            continue;
        }
        match engine.next_workflow_task(&queue.name, &request.identity, sticky, caller).await {
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
    async fn next_workflow_task(
        &self,
        queue: &str,
        identity: &str,
        sticky: bool,
        caller: &Caller,
    ) -> Result<Option<PollWorkflowTaskQueueResponse>, Status> {
        if let Some(query) = self.next_query_task(queue).await? {
            return Ok(Some(query));
        }
        let process = self.inner.lease.process();
        let claimed = self.inner.store.claim_workflow_task(queue, process, identity, sticky).await?;
        let Some(ClaimedTask { run, batches }) = claimed else { return Ok(None) };
        let token = TaskToken::of(TokenKind::Workflow, run.run_id, run.task_scheduled_id(), run.wft_attempt);
        caller.claimed(Claim::Workflow(token));
        self.remember_claim(&run);
        let after = if sticky { run.previous_started_id } else { 0 };
        let mut page = FirstPage::of(&batches.unwrap_or_default(), after)?;
        if !page.fits(after, run.last_event_id) {
            // The row that was locked may be newer than the statement's snapshot, which is what the events came from.
            page = FirstPage::of(&self.inner.store.history(run.run_id, after, FIRST_PAGE).await?, after)?;
        }
        if !page.fits(after, run.last_event_id) {
            return Err(Status::data_loss(format!("history of run {} has a gap", run.run_id)));
        }
        Ok(Some(task_response(&run, page.events, page.complete)))
    }
}

/// The events handed out with a task, or as many of them as make a page.
struct FirstPage {
    events: Vec<HistoryEvent>,
    complete: bool,
}

impl FirstPage {
    fn of(batches: &[Vec<u8>], after: i64) -> Result<Self, Status> {
        let complete = i64::try_from(batches.len()).is_ok_and(|n| n < FIRST_PAGE);
        let events = proto::events(batches)?.into_iter().filter(|e| e.event_id > after).collect();
        Ok(Self { events, complete })
    }

    /// Whether these are the events that follow `after`, up to `last` if that is not for a later page.
    fn fits(&self, after: i64, last: i64) -> bool {
        match (self.events.first(), self.events.last()) {
            (Some(first), Some(end)) => first.event_id == after + 1 && (!self.complete || end.event_id == last),
            _ => false,
        }
    }
}

impl Engine {
    fn remember_claim(&self, run: &Run) {
        let (now, wall) = self.inner.clock.both();
        let now = run.wft_started_at.map_or(now, |at| at.max(now));
        self.inner.hot.put(Loaded { run: run.clone(), now, wall });
    }
}

/// A task for a worker. `complete`: `events` go up to the last stored one.
pub(super) fn task_response(run: &Run, mut events: Vec<HistoryEvent>, complete: bool) -> PollWorkflowTaskQueueResponse {
    let next_page_token = if complete {
        events.extend(events_in_flight(run));
        Vec::new()
    } else {
        let next = events.last().map_or(1, |e| e.event_id + 1);
        HistoryToken::encode(run.run_id, next, true)
    };
    PollWorkflowTaskQueueResponse {
        task_token: TaskToken::encode(TokenKind::Workflow, run.run_id, run.task_scheduled_id(), run.wft_attempt),
        workflow_execution: Some(proto::execution(&run.workflow_id, run.run_id)),
        workflow_type: Some(WorkflowType { name: run.workflow_type.clone() }),
        previous_started_event_id: run.previous_started_id,
        started_event_id: run.task_started_id(),
        attempt: run.wft_attempt,
        history: Some(History { events }),
        next_page_token,
        // Workers refuse a task without it.
        workflow_execution_task_queue: Some(proto::queue(&run.task_queue)),
        scheduled_time: run.wft_scheduled_at.map(proto::timestamp),
        started_time: run.wft_started_at.map(proto::timestamp),
        ..Default::default()
    }
}

fn stale() -> Status {
    Status::not_found("workflow task not found: it has timed out or been answered before")
}

pub(super) async fn respond_completed(
    engine: &Engine,
    _caller: &Caller,
    request: RespondWorkflowTaskCompletedRequest,
) -> Result<RespondWorkflowTaskCompletedResponse, Status> {
    let token = TaskToken::read(&request.task_token, TokenKind::Workflow)?;
    if request.intermediate_page {
        return Err(Status::unimplemented("paged workflow task completions are not supported by this engine"));
    }
    proto::optional_name(&request.identity, "identity")?;
    let needs = Needs::of(&request.commands);
    let target = Target::Run(token.run_id());
    let decided = engine
        .change(&target, needs, |t, pending| {
            if !holds(&t.run, &token) {
                return Err(stale());
            }
            let before = t.clone();
            match commands::complete(t, request.clone(), pending, &engine.names()) {
                Ok(()) => Ok(Decision::Write(Ok(()))),
                Err(Refused::Status(status)) => Err(status),
                Err(Refused::Task { cause, message }) => {
                    *t = before;
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
    Ok(completed_response(engine, &transition))
}

fn refusal(message: &str) -> Failure {
    Failure {
        message: message.to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo { non_retryable: true })),
        ..Default::default()
    }
}

/// Activities the worker takes at once, and the next workflow task if there is one already.
fn completed_response(engine: &Engine, t: &Transition) -> RespondWorkflowTaskCompletedResponse {
    // A run that closed has left no activities behind.
    let eager = t.new_activities.iter().filter(|a| a.is_started() && !t.is_closed());
    let activity_tasks =
        eager.filter_map(|a| super::activity_task::task_response(a, &engine.inner.options.namespace).ok()).collect();
    let inline = !t.is_closed() && t.run.wft_state == TaskState::Started;
    let workflow_task = inline.then(|| {
        let events = t.events.iter().filter(|e| e.event_id > t.run.previous_started_id).cloned().collect();
        task_response(&t.run, events, true)
    });
    RespondWorkflowTaskCompletedResponse { workflow_task, activity_tasks, ..Default::default() }
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
        .change(&Target::Run(token.run_id()), Needs::default(), |t, _| {
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

/// The poller went away before it got the task: offer it again, as if it had not been taken.
pub(super) async fn give_back(engine: &Engine, token: &TaskToken) -> Result<(), Status> {
    let given = engine
        .change(&Target::Run(token.run_id()), Needs::default(), |t, _| {
            if !holds(&t.run, token) {
                return Ok(Decision::Keep(()));
            }
            t.untake_task()?;
            Ok(Decision::Write(()))
        })
        .await;
    match given {
        Err(Unchanged::Status(status)) => Err(status),
        _ => Ok(()),
    }
}
