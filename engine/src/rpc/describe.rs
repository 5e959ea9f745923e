//! Describing one run.

use chrono::{DateTime, Utc};
use temporalio_common::protos::temporal::api::{
    activity::v1::ActivityOptions,
    common::v1::{ActivityType, Memo, Payloads, SearchAttributes, WorkflowType},
    enums::v1::{PendingActivityState, PendingWorkflowTaskState},
    history::v1::{WorkflowExecutionStartedEventAttributes, history_event::Attributes},
    taskqueue::v1::TaskQueue,
    workflow::v1::{
        PendingActivityInfo, PendingChildExecutionInfo, PendingWorkflowTaskInfo, WorkflowExecutionConfig,
        WorkflowExecutionExtendedInfo, WorkflowExecutionInfo,
    },
    workflowservice::v1::{DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse},
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    caller::Caller,
    engine::Engine,
    model::{Activity, Child, Run, Target, TaskState},
    proto::{self, db},
};

/// A row of `engine.executions`, with the length of an open history.
#[derive(sqlx::FromRow)]
pub(super) struct Execution {
    pub(super) run_id: Uuid,
    workflow_id: String,
    workflow_type: String,
    task_queue: String,
    status: i16,
    pub(super) start_time: DateTime<Utc>,
    close_time: Option<DateTime<Utc>>,
    first_run_id: Uuid,
    parent_workflow_id: Option<String>,
    parent_run_id: Option<Uuid>,
    root_workflow_id: String,
    root_run_id: Uuid,
    length: i64,
    bytes: i64,
    transitions: i64,
    memo: Vec<u8>,
    search_attributes: Vec<u8>,
}

/// Columns of [`Execution`]; `e` is `engine.executions`.
pub(super) const COLUMNS: &str = "e.run_id, e.workflow_id, e.workflow_type, e.task_queue, e.status, e.start_time,
    e.close_time, e.first_run_id, e.parent_workflow_id, e.parent_run_id, e.root_workflow_id, e.root_run_id, e.memo,
    e.search_attributes, coalesce(r.last_event_id, e.history_length) as length,
    coalesce(r.history_bytes, e.history_bytes) as bytes, coalesce(r.revision + 1, 0) as transitions
    from engine.executions e left join engine.runs r on r.run_id = e.run_id";

impl Execution {
    pub(super) fn info(self) -> Result<WorkflowExecutionInfo, Status> {
        let parent = self.parent_workflow_id.zip(self.parent_run_id);
        let lasted = self.close_time.map(|end| (end - self.start_time).num_milliseconds().max(0));
        Ok(WorkflowExecutionInfo {
            execution: Some(proto::execution(&self.workflow_id, self.run_id)),
            r#type: Some(WorkflowType { name: self.workflow_type }),
            start_time: Some(proto::timestamp(self.start_time)),
            close_time: self.close_time.map(proto::timestamp),
            status: i32::from(self.status),
            history_length: self.length,
            // Only for open runs; it goes with the run's state, and is not kept.
            state_transition_count: self.transitions,
            parent_execution: parent.map(|(workflow, run)| proto::execution(&workflow, run)),
            execution_time: Some(proto::timestamp(self.start_time)),
            memo: Some(proto::stored::<Memo>(&self.memo)?),
            search_attributes: Some(proto::stored::<SearchAttributes>(&self.search_attributes)?),
            task_queue: self.task_queue,
            history_size_bytes: self.bytes,
            execution_duration: lasted.map(proto::duration),
            root_execution: Some(proto::execution(&self.root_workflow_id, self.root_run_id)),
            first_run_id: self.first_run_id.to_string(),
            ..Default::default()
        })
    }
}

pub(super) async fn describe(
    engine: &Engine,
    _caller: &Caller,
    request: DescribeWorkflowExecutionRequest,
) -> Result<DescribeWorkflowExecutionResponse, Status> {
    let run_id = super::resolve(engine, request.execution.as_ref()).await?;
    let store = &engine.inner.store;
    let sql = sqlx::AssertSqlSafe(format!("select {COLUMNS} where e.run_id = $1"));
    let execution: Execution = sqlx::query_as(sql).bind(run_id).fetch_one(&store.pool).await.map_err(db)?;
    let open = store.load(&Target::Run(run_id)).await?.map(|l| l.run);
    let (activities, children) = match &open {
        Some(_) => (store.activities(run_id).await?, store.children(run_id).await?),
        None => (Vec::new(), Vec::new()),
    };
    let first = proto::events(&store.history(run_id, 0, 1).await?)?.into_iter().next();
    // This run replaced another one; another one replaced it.
    let (came_by_reset, reset_run_id): (bool, Option<Uuid>) = sqlx::query_as(
        "select exists (select 1 from engine.executions b where b.reset_run_id = e.run_id), e.reset_run_id
         from engine.executions e where e.run_id = $1",
    )
    .bind(run_id)
    .fetch_one(&store.pool)
    .await
    .map_err(db)?;
    let resets = Resets {
        last_reset_time: came_by_reset.then(|| proto::timestamp(execution.start_time)),
        reset_run_id: reset_run_id.map(|r| r.to_string()).unwrap_or_default(),
        original_start_time: first.as_ref().and_then(|e| e.event_time),
    };
    let user_metadata = first.as_ref().and_then(|e| e.user_metadata.clone());
    let started = match first.and_then(|e| e.attributes) {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) => a,
        _ => WorkflowExecutionStartedEventAttributes::default(),
    };
    let task_queue = Some(proto::queue(&execution.task_queue));
    let mut info = execution.info()?;
    engine.with_types(info.search_attributes.as_mut()).await?;
    Ok(DescribeWorkflowExecutionResponse {
        execution_config: Some(WorkflowExecutionConfig {
            task_queue,
            workflow_execution_timeout: started.workflow_execution_timeout,
            workflow_run_timeout: started.workflow_run_timeout,
            default_workflow_task_timeout: started.workflow_task_timeout,
            user_metadata,
        }),
        workflow_extended_info: Some(extended(open.as_ref(), resets)),
        workflow_execution_info: Some(info),
        pending_activities: activities.iter().map(activity_info).collect::<Result<_, _>>()?,
        pending_children: children.into_iter().map(child_info).collect(),
        pending_workflow_task: open.as_ref().and_then(task_info),
        ..Default::default()
    })
}

/// How resets relate to a run.
struct Resets {
    last_reset_time: Option<prost_types::Timestamp>,
    reset_run_id: String,
    original_start_time: Option<prost_types::Timestamp>,
}

fn extended(run: Option<&Run>, resets: Resets) -> WorkflowExecutionExtendedInfo {
    WorkflowExecutionExtendedInfo {
        execution_expiration_time: run.and_then(|r| r.execution_expires_at).map(proto::timestamp),
        run_expiration_time: run.and_then(|r| r.timeout_at).map(proto::timestamp),
        cancel_requested: run.is_some_and(|r| r.cancel_requested),
        original_start_time: resets.original_start_time,
        last_reset_time: resets.last_reset_time,
        reset_run_id: resets.reset_run_id,
        ..Default::default()
    }
}

fn task_info(run: &Run) -> Option<PendingWorkflowTaskInfo> {
    let state = match run.wft_state {
        TaskState::None => return None,
        TaskState::Scheduled => PendingWorkflowTaskState::Scheduled,
        TaskState::Started => PendingWorkflowTaskState::Started,
    };
    Some(PendingWorkflowTaskInfo {
        state: state as i32,
        scheduled_time: run.wft_scheduled_at.map(proto::timestamp),
        original_scheduled_time: run.wft_scheduled_at.map(proto::timestamp),
        started_time: run.wft_started_at.map(proto::timestamp),
        attempt: run.wft_attempt,
    })
}

fn activity_info(a: &Activity) -> Result<PendingActivityInfo, Status> {
    let scheduled = a.scheduled()?;
    let state = match (a.is_started(), a.cancel_requested_id) {
        (true, 0) => PendingActivityState::Started,
        (true, _) => PendingActivityState::CancelRequested,
        (false, _) => PendingActivityState::Scheduled,
    };
    let retrying = !a.is_started() && a.attempt > 1;
    Ok(PendingActivityInfo {
        activity_id: a.activity_id.clone(),
        activity_type: Some(ActivityType { name: a.activity_type.clone() }),
        state: state as i32,
        heartbeat_details: if a.heartbeat_details.is_empty() {
            None
        } else {
            Some(proto::stored::<Payloads>(&a.heartbeat_details)?)
        },
        last_heartbeat_time: a.heartbeat_at.map(proto::timestamp),
        last_started_time: a.started_at.map(proto::timestamp),
        attempt: a.attempt,
        maximum_attempts: scheduled.retry_policy.as_ref().map_or(0, |p| p.maximum_attempts),
        scheduled_time: Some(proto::timestamp(a.visible_at)),
        expiration_time: a.expires_at.map(proto::timestamp),
        last_failure: a.last_failure()?,
        last_worker_identity: a.identity.clone(),
        current_retry_interval: a
            .ended_at
            .filter(|_| retrying)
            .map(|ended| proto::duration((a.visible_at - ended).num_milliseconds().max(0))),
        last_attempt_complete_time: a.ended_at.map(proto::timestamp),
        next_attempt_schedule_time: retrying.then(|| proto::timestamp(a.visible_at)),
        activity_options: Some(ActivityOptions {
            task_queue: Some(TaskQueue {
                name: a.task_queue.clone(),
                normal_name: a.task_queue.clone(),
                ..Default::default()
            }),
            schedule_to_close_timeout: scheduled.schedule_to_close_timeout,
            schedule_to_start_timeout: scheduled.schedule_to_start_timeout,
            start_to_close_timeout: scheduled.start_to_close_timeout,
            heartbeat_timeout: scheduled.heartbeat_timeout,
            retry_policy: scheduled.retry_policy,
            ..Default::default()
        }),
        priority: scheduled.priority,
        ..Default::default()
    })
}

fn child_info(child: Child) -> PendingChildExecutionInfo {
    PendingChildExecutionInfo {
        workflow_id: child.workflow_id,
        run_id: child.child_run_id.map(|r| r.to_string()).unwrap_or_default(),
        workflow_type_name: child.workflow_type,
        initiated_id: child.initiated_event_id,
        parent_close_policy: i32::from(child.close_policy),
    }
}
