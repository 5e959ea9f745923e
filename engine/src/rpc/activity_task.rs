//! Activity tasks: polled, heartbeating, completed, failed, cancelled.

use std::time::Duration;

use prost::Message;
use temporalio_common::protos::temporal::api::{
    common::v1::{ActivityType, Payloads, WorkflowType},
    enums::v1::ActivityTaskFailedCause,
    workflowservice::v1::{
        PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, RecordActivityTaskHeartbeatByIdRequest,
        RecordActivityTaskHeartbeatByIdResponse, RecordActivityTaskHeartbeatRequest,
        RecordActivityTaskHeartbeatResponse, RespondActivityTaskCanceledByIdRequest,
        RespondActivityTaskCanceledByIdResponse, RespondActivityTaskCanceledRequest,
        RespondActivityTaskCanceledResponse, RespondActivityTaskCompletedByIdRequest,
        RespondActivityTaskCompletedByIdResponse, RespondActivityTaskCompletedRequest,
        RespondActivityTaskCompletedResponse, RespondActivityTaskFailedByIdRequest,
        RespondActivityTaskFailedByIdResponse, RespondActivityTaskFailedRequest, RespondActivityTaskFailedResponse,
    },
};
use tonic::Status;

use crate::{
    caller::{Caller, Claim},
    change::Decision,
    engine::Engine,
    handoff::LEAST_MS,
    history::{
        activities::ActivityEnd,
        commands::{Activities, Ground, Needs},
    },
    matching::{Kind, Task},
    model::{Activity, Target, Transition},
    proto,
    token::{TaskToken, TokenKind},
};

/// How often pollers look again while the lease is not held.
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
        let most = 1 + waiting.room(&request.identity);
        match engine.inner.store.claim_activities(&queue, process, &request.identity, most, LEAST_MS).await {
            Ok(claimed) => {
                let mut claimed = claimed.into_iter();
                let Some(activity) = claimed.next() else { continue };
                waiting.taken();
                engine.started_here(&activity);
                for other in claimed {
                    engine.started_here(&other);
                    engine.hand_over_activity(&other);
                }
                if hinted {
                    waiting.hint();
                }
                let token =
                    TaskToken::of(TokenKind::Activity, activity.run_id, activity.scheduled_event_id, activity.attempt);
                caller.claimed(Claim::Activity(token));
                return task_response(&activity, &engine.inner.options.namespace);
            }
            Err(status) => {
                waiting.hint();
                return Err(status);
            }
        }
    }
}

/// A started activity, as sent to its worker.
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
    Status::not_found("invalid activityID or activity already timed out or invoking workflow is completed")
}

/// The activity a request is about.
enum Which {
    /// One attempt.
    Attempt(TaskToken),
    /// Whatever attempt there is (the activity is completed by someone without a token).
    Id { target: Target, activity_id: String },
}

impl Which {
    fn token(token: &[u8]) -> Result<Self, Status> {
        TaskToken::read(token, TokenKind::Activity).map(Self::Attempt)
    }

    fn id(workflow_id: &str, run_id: &str, activity_id: String) -> Result<Self, Status> {
        proto::name(workflow_id, "workflow_id")?;
        proto::name(&activity_id, "activity_id")?;
        Ok(Self::Id { target: Target::new(workflow_id, proto::run_id(run_id)?), activity_id })
    }

    fn target(&self) -> Target {
        match self {
            Self::Attempt(token) => Target::Run(token.run_id()),
            Self::Id { target, .. } => target.clone(),
        }
    }

    fn find<'a>(&self, pending: &'a [Activity]) -> Result<&'a Activity, Status> {
        match self {
            Self::Attempt(token) => {
                pending.iter().find(|a| a.attempt == token.attempt && a.is_started()).ok_or_else(stale)
            }
            Self::Id { activity_id, .. } => pending.iter().find(|a| a.activity_id == *activity_id).ok_or_else(|| {
                Status::not_found(format!(
                    "cannot find pending activity with ActivityID {activity_id}, check workflow execution history for \
                     more details"
                ))
            }),
        }
    }
}

impl Engine {
    /// This process has started an activity that was waiting in the database.
    fn started_here(&self, activity: &Activity) {
        self.inner.hot.put_activity(activity.clone());
        if let (Some(due), Some(started)) = (activity.due_at, activity.started_at) {
            self.inner.due.within((due - started).to_std().unwrap_or_default());
        }
    }

    /// Ends an attempt if it is the one meant. `known`: what has to be known about it.
    async fn answer_activity(
        &self,
        which: Which,
        known: fn(i64) -> Activities,
        decide: impl Fn(&mut Transition, &Activity) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let needs = match &which {
            Which::Attempt(token) => {
                Needs { activities: known(token.scheduled_event_id), ground: Ground::Unwritten, ..Needs::default() }
            }
            Which::Id { .. } => Needs { activities: Activities::All, ..Needs::default() },
        };
        let answered = self
            .change_with_task(&which.target(), needs, |t, pending| {
                decide(t, which.find(&pending.activities)?)?;
                Ok(Decision::Write(()))
            })
            .await;
        match answered {
            Ok(_) => Ok(()),
            Err(unchanged) => Err(super::refused(self, &which.target(), unchanged).await),
        }
    }
}

/// Only a running attempt can fail or be cancelled.
fn running(activity: &Activity) -> Result<&Activity, Status> {
    if activity.is_started() { Ok(activity) } else { Err(stale()) }
}

pub(super) async fn respond_completed(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskCompletedRequest,
) -> Result<RespondActivityTaskCompletedResponse, Status> {
    engine.complete_activity(Which::token(&request.task_token)?, &request.identity, request.result).await?;
    Ok(RespondActivityTaskCompletedResponse::default())
}

pub(super) async fn respond_completed_by_id(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskCompletedByIdRequest,
) -> Result<RespondActivityTaskCompletedByIdResponse, Status> {
    let which = Which::id(&request.workflow_id, &request.run_id, request.activity_id)?;
    engine.complete_activity(which, &request.identity, request.result).await?;
    Ok(RespondActivityTaskCompletedByIdResponse::default())
}

impl Engine {
    async fn complete_activity(&self, which: Which, identity: &str, result: Option<Payloads>) -> Result<(), Status> {
        self.answer_activity(which, Activities::Given, |t, activity| {
            t.complete_activity(activity, identity, result.clone())
        })
        .await
    }

    async fn cancel_activity(&self, which: Which, identity: &str, details: Option<Payloads>) -> Result<(), Status> {
        self.answer_activity(which, Activities::Stored, |t, activity| {
            if activity.cancel_requested_id == 0 {
                return Err(Status::invalid_argument(
                    "unable to mark activity as canceled without activity being request canceled first",
                ));
            }
            t.end_activity(running(activity)?, identity, ActivityEnd::Canceled { details: details.clone() })
        })
        .await
    }
}

pub(super) async fn respond_failed(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskFailedRequest,
) -> Result<RespondActivityTaskFailedResponse, Status> {
    let heartbeat = request.last_heartbeat_details.as_ref().map(Message::encode_to_vec);
    engine
        .answer_activity(Which::token(&request.task_token)?, Activities::Stored, |t, activity| {
            let failure = request.failure.clone();
            t.fail_activity(activity, failure, heartbeat.clone(), &request.identity, request.cause())?;
            Ok(())
        })
        .await?;
    Ok(RespondActivityTaskFailedResponse::default())
}

pub(super) async fn respond_failed_by_id(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskFailedByIdRequest,
) -> Result<RespondActivityTaskFailedByIdResponse, Status> {
    let heartbeat = request.last_heartbeat_details.as_ref().map(Message::encode_to_vec);
    let which = Which::id(&request.workflow_id, &request.run_id, request.activity_id)?;
    engine
        .answer_activity(which, Activities::Stored, |t, activity| {
            let (failure, cause) = (request.failure.clone(), ActivityTaskFailedCause::Unspecified);
            t.fail_activity(running(activity)?, failure, heartbeat.clone(), &request.identity, cause)?;
            Ok(())
        })
        .await?;
    Ok(RespondActivityTaskFailedByIdResponse::default())
}

pub(super) async fn respond_canceled(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskCanceledRequest,
) -> Result<RespondActivityTaskCanceledResponse, Status> {
    engine.cancel_activity(Which::token(&request.task_token)?, &request.identity, request.details).await?;
    Ok(RespondActivityTaskCanceledResponse::default())
}

pub(super) async fn respond_canceled_by_id(
    engine: &Engine,
    _caller: &Caller,
    request: RespondActivityTaskCanceledByIdRequest,
) -> Result<RespondActivityTaskCanceledByIdResponse, Status> {
    let which = Which::id(&request.workflow_id, &request.run_id, request.activity_id)?;
    engine.cancel_activity(which, &request.identity, request.details).await?;
    Ok(RespondActivityTaskCanceledByIdResponse::default())
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

pub(super) async fn heartbeat_by_id(
    engine: &Engine,
    _caller: &Caller,
    request: RecordActivityTaskHeartbeatByIdRequest,
) -> Result<RecordActivityTaskHeartbeatByIdResponse, Status> {
    let which = Which::id(&request.workflow_id, &request.run_id, request.activity_id)?;
    let loaded = engine.inner.store.load(&which.target()).await?.ok_or_else(stale)?;
    let pending = engine.inner.store.activities(loaded.run.run_id).await?;
    let activity = running(which.find(&pending)?)?;
    let token = TaskToken::of(TokenKind::Activity, activity.run_id, activity.scheduled_event_id, activity.attempt);
    let details = request.details.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    let cancel_requested = engine.inner.store.heartbeat(&token, &details).await?.ok_or_else(stale)?;
    Ok(RecordActivityTaskHeartbeatByIdResponse { cancel_requested, ..Default::default() })
}
