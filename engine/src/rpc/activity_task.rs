//! Activity tasks: polled, heartbeating, completed, failed, cancelled.

use std::time::Duration;

use prost::Message;
use temporalio_common::protos::temporal::api::{
    common::v1::{ActivityType, Payloads, WorkflowType},
    workflowservice::v1::{
        PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, RecordActivityTaskHeartbeatRequest,
        RecordActivityTaskHeartbeatResponse, RespondActivityTaskCanceledRequest, RespondActivityTaskCanceledResponse,
        RespondActivityTaskCompletedRequest, RespondActivityTaskCompletedResponse, RespondActivityTaskFailedRequest,
        RespondActivityTaskFailedResponse,
    },
};
use tonic::Status;

use crate::{
    engine::{Decision, Engine, Unchanged},
    history::{Transition, activities::ActivityEnd, commands::Needs},
    matching::{Kind, Task},
    proto,
    service::{Caller, Claim},
    store::{Activity, Target},
    token::{TaskToken, TokenKind},
};

/// While the lease is not held, pollers look again so often.
const NO_LEASE_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn poll(
    engine: &Engine,
    caller: &Caller,
    request: PollActivityTaskQueueRequest,
) -> Result<PollActivityTaskQueueResponse, Status> {
    let queue = request.task_queue.unwrap_or_default().name;
    proto::name(&queue, "task_queue")?;
    proto::optional_name(&request.identity, "identity")?;
    let waiting = engine.inner.matching.queue(Kind::Activity, &queue);
    let _present = waiting.enter(&request.identity);
    let deadline = tokio::time::Instant::now() + super::LONG_POLL;
    let mut stopped = engine.inner.stopped.subscribe();
    loop {
        let hinted = tokio::select! {
            hinted = waiting.ready() => hinted,
            () = tokio::time::sleep_until(deadline) => return Ok(PollActivityTaskQueueResponse::default()),
            () = caller.gone() => return Ok(PollActivityTaskQueueResponse::default()),
            _ = stopped.wait_for(|s| *s) => return Ok(PollActivityTaskQueueResponse::default()),
        };
        if !engine.inner.lease.is_held() {
            waiting.hint();
            tokio::time::sleep(NO_LEASE_PAUSE).await;
            continue;
        }
        if let Some(task) = waiting.take() {
            caller.claimed(task.claim());
            if hinted {
                waiting.hint();
            }
            let Task::Activity(activity) = task else {
                return Err(Status::internal("a workflow task lay on a queue of activities"));
            };
            return task_response(&activity, &engine.inner.options.namespace);
        }
        let process = engine.inner.lease.process();
        match engine.inner.store.claim_activity(&queue, process, &request.identity).await {
            Ok(Some(activity)) => {
                if hinted {
                    waiting.hint();
                }
                let token =
                    TaskToken::of(TokenKind::Activity, activity.run_id, activity.scheduled_event_id, activity.attempt);
                caller.claimed(Claim::Activity(token));
                engine.inner.hot.put_activity(activity.clone());
                if let (Some(due), Some(started)) = (activity.due_at, activity.started_at) {
                    engine.inner.due.within((due - started).to_std().unwrap_or_default());
                }
                return task_response(&activity, &engine.inner.options.namespace);
            }
            Ok(None) => {}
            Err(status) => {
                waiting.hint();
                return Err(status);
            }
        }
    }
}

/// A started activity, for its worker.
pub(super) fn task_response(activity: &Activity, namespace: &str) -> Result<PollActivityTaskQueueResponse, Status> {
    let scheduled = activity.scheduled()?;
    let heartbeat_details = if activity.heartbeat_details.is_empty() {
        None
    } else {
        Some(proto::stored::<Payloads>(&activity.heartbeat_details)?)
    };
    Ok(PollActivityTaskQueueResponse {
        task_token: TaskToken::encode(
            TokenKind::Activity,
            activity.run_id,
            activity.scheduled_event_id,
            activity.attempt,
        ),
        workflow_namespace: namespace.to_owned(),
        workflow_type: Some(WorkflowType { name: activity.workflow_type.clone() }),
        workflow_execution: Some(proto::execution(&activity.workflow_id, activity.run_id)),
        activity_type: Some(ActivityType { name: activity.activity_type.clone() }),
        activity_id: activity.activity_id.clone(),
        header: scheduled.header,
        input: scheduled.input,
        heartbeat_details,
        scheduled_time: Some(proto::timestamp(activity.scheduled_at)),
        current_attempt_scheduled_time: Some(proto::timestamp(activity.visible_at)),
        started_time: activity.started_at.map(proto::timestamp),
        attempt: activity.attempt,
        schedule_to_close_timeout: scheduled.schedule_to_close_timeout,
        start_to_close_timeout: scheduled.start_to_close_timeout,
        heartbeat_timeout: scheduled.heartbeat_timeout,
        retry_policy: scheduled.retry_policy,
        priority: scheduled.priority,
        ..Default::default()
    })
}

fn stale() -> Status {
    Status::not_found("activity task not found: the attempt has ended, or its workflow has")
}

impl Engine {
    /// Ends an attempt if the token is for the one that is running.
    async fn answer_activity(
        &self,
        token: &[u8],
        activity_start_only: bool,
        decide: impl Fn(&mut Transition, &Activity) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let token = TaskToken::read(token, TokenKind::Activity)?;
        let activity = Some(token.scheduled_event_id);
        let needs = Needs { activity, activity_start_only, ..Needs::default() };
        let answered = self
            .change(&Target::Run(token.run_id()), needs, |t, pending| {
                let running = pending.activities.iter().find(|a| a.attempt == token.attempt && a.is_started());
                decide(t, running.ok_or_else(stale)?)?;
                Ok(Decision::Write(()))
            })
            .await;
        match answered {
            Ok(_) => Ok(()),
            Err(Unchanged::NotOpen | Unchanged::Duplicate) => Err(stale()),
            Err(Unchanged::Status(status)) => Err(status),
        }
    }
}

pub(super) async fn respond_completed(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskCompletedRequest,
) -> Result<RespondActivityTaskCompletedResponse, Status> {
    engine
        .answer_activity(&request.task_token, true, |t, activity| {
            let end = ActivityEnd::Completed { result: request.result.clone() };
            t.end_activity(activity, &request.identity, end)
        })
        .await?;
    Ok(RespondActivityTaskCompletedResponse::default())
}

pub(super) async fn respond_failed(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskFailedRequest,
) -> Result<RespondActivityTaskFailedResponse, Status> {
    let heartbeat = request.last_heartbeat_details.as_ref().map(Message::encode_to_vec);
    engine
        .answer_activity(&request.task_token, false, |t, activity| {
            let failure = request.failure.clone();
            t.fail_activity(activity, failure, heartbeat.clone(), &request.identity, request.cause())?;
            Ok(())
        })
        .await?;
    Ok(RespondActivityTaskFailedResponse::default())
}

pub(super) async fn respond_canceled(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskCanceledRequest,
) -> Result<RespondActivityTaskCanceledResponse, Status> {
    engine
        .answer_activity(&request.task_token, false, |t, activity| {
            if activity.cancel_requested_id == 0 {
                return Err(Status::invalid_argument("task_token: cancellation of this activity was not requested"));
            }
            t.end_activity(activity, &request.identity, ActivityEnd::Canceled { details: request.details.clone() })
        })
        .await?;
    Ok(RespondActivityTaskCanceledResponse::default())
}

pub(super) async fn heartbeat(
    engine: &Engine,
    _caller: &Caller,
    request: RecordActivityTaskHeartbeatRequest,
) -> Result<RecordActivityTaskHeartbeatResponse, Status> {
    let token = TaskToken::read(&request.task_token, TokenKind::Activity)?;
    let details = request.details.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    let cancel_requested = engine.inner.store.heartbeat(&token, &details).await?.ok_or_else(stale)?;
    Ok(RecordActivityTaskHeartbeatResponse { cancel_requested, ..Default::default() })
}

/// The poller went away before it got the task.
pub(super) async fn give_back(engine: &Engine, token: &TaskToken) -> Result<(), Status> {
    if let Some(queue) = engine.inner.store.unclaim_activity(token, engine.inner.lease.process()).await? {
        engine.wake_queue(Kind::Activity, &queue);
    }
    Ok(())
}
