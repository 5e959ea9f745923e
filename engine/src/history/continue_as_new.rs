//! Continue-as-new: the run closes and the next one of the chain starts in the same transaction.

use temporalio_common::protos::temporal::api::{
    command::v1::ContinueAsNewWorkflowExecutionCommandAttributes,
    enums::v1::{ContinueAsNewInitiator, WorkflowExecutionStatus, WorkflowTaskFailedCause as Cause},
    history::v1::{
        WorkflowExecutionContinuedAsNewEventAttributes, WorkflowExecutionStartedEventAttributes,
        history_event::Attributes as A,
    },
};
use tonic::Status;
use uuid::Uuid;

use super::{
    Transition,
    children::Names,
    commands::{Pending, Refused, unsupported},
};
use crate::{
    model::{NewRun, Parent},
    proto,
};

pub(super) fn continue_as_new(
    t: &mut Transition,
    command: ContinueAsNewWorkflowExecutionCommandAttributes,
    completed_id: i64,
    pending: &Pending,
    names: &Names<'_>,
) -> Result<(), Refused> {
    let refuse = |s: Status| Refused::task(Cause::BadContinueAsNewAttributes, s.message());
    if command.retry_policy.is_some() || !command.cron_schedule.is_empty() {
        return unsupported("ContinueAsNew with retry_policy or cron_schedule");
    }
    if proto::millis(command.backoff_start_interval.as_ref(), "backoff_start_interval").map_err(refuse)? > 0 {
        return unsupported("ContinueAsNew with backoff_start_interval");
    }
    let run_timeout = proto::millis(command.workflow_run_timeout.as_ref(), "workflow_run_timeout").map_err(refuse)?;
    let task_timeout =
        proto::millis(command.workflow_task_timeout.as_ref(), "workflow_task_timeout").map_err(refuse)?;
    let Some(before) = pending.started.as_deref() else {
        return Err(Refused::Status(Status::internal("the run's first event was not read")));
    };
    let named_initiator = command.initiator;
    let initiator = match command.initiator() {
        ContinueAsNewInitiator::Unspecified => ContinueAsNewInitiator::Workflow,
        initiator => initiator,
    };
    let workflow_type = command.workflow_type.filter(|w| !w.name.is_empty()).or_else(|| before.workflow_type.clone());
    let task_queue = command.task_queue.map(|q| q.name).filter(|n| !n.is_empty());
    let task_queue = task_queue.unwrap_or_else(|| t.run.task_queue.clone());
    proto::name(&task_queue, "task_queue").map_err(refuse)?;
    let new_run_id = Uuid::new_v4();
    // Whatever the worker does not carry over is dropped, as on Temporal's servers.
    let (memo, search_attributes) = (command.memo, command.search_attributes);
    let run_timeout = if run_timeout > 0 { Some(proto::duration(run_timeout)) } else { before.workflow_run_timeout };
    let task_timeout = proto::duration(if task_timeout > 0 { task_timeout } else { t.run.wft_timeout_ms });
    let attributes = WorkflowExecutionStartedEventAttributes {
        workflow_type: workflow_type.clone(),
        task_queue: Some(proto::queue(&task_queue)),
        input: command.input.clone(),
        workflow_run_timeout: Some(run_timeout.unwrap_or_default()),
        workflow_task_timeout: Some(task_timeout),
        continued_execution_run_id: t.run.run_id.to_string(),
        initiator: initiator as i32,
        continued_failure: command.failure,
        last_completion_result: command.last_completion_result.clone(),
        original_execution_run_id: new_run_id.to_string(),
        header: command.header.clone(),
        memo: memo.clone(),
        search_attributes: search_attributes.clone(),
        first_workflow_task_backoff: None,
        ..before.clone()
    };
    t.continued = Some(Box::new(NewRun {
        run_id: new_run_id,
        request_id: new_run_id.to_string(),
        attributes,
        signal: None,
        user_metadata: None,
        parent: parent_of(t),
        root: (t.run.root_workflow_id.clone(), t.run.root_run_id),
        first_run_id: t.run.first_run_id,
        execution_expires_at: t.run.execution_expires_at,
    }));
    let event = A::WorkflowExecutionContinuedAsNewEventAttributes(WorkflowExecutionContinuedAsNewEventAttributes {
        new_execution_run_id: new_run_id.to_string(),
        workflow_type,
        task_queue: Some(proto::queue(&task_queue)),
        input: command.input,
        workflow_run_timeout: Some(run_timeout.unwrap_or_default()),
        workflow_task_timeout: Some(task_timeout),
        workflow_task_completed_event_id: completed_id,
        initiator: named_initiator,
        last_completion_result: command.last_completion_result,
        header: command.header,
        memo,
        search_attributes,
        #[allow(deprecated, reason = "what the SDK sets is kept")]
        inherit_build_id: command.inherit_build_id,
        ..Default::default()
    });
    t.close(WorkflowExecutionStatus::ContinuedAsNew, event, &pending.children, names.namespace);
    Ok(())
}

fn parent_of(t: &Transition) -> Option<Parent> {
    Some(Parent {
        workflow_id: t.run.parent_workflow_id.clone()?,
        run_id: t.run.parent_run_id?,
        initiated_event_id: t.run.parent_initiated_id,
    })
}
