//! Child workflows, seen from the parent: initiated, started or failed to start, closed.

use temporalio_common::protos::temporal::api::{
    command::v1::StartChildWorkflowExecutionCommandAttributes,
    common::v1::{Header, WorkflowType},
    enums::v1::{
        ParentClosePolicy, StartChildWorkflowExecutionFailedCause, WorkflowIdReusePolicy,
        WorkflowTaskFailedCause as Cause,
    },
    history::v1::{
        ChildWorkflowExecutionStartedEventAttributes, HistoryEvent, StartChildWorkflowExecutionFailedEventAttributes,
        StartChildWorkflowExecutionInitiatedEventAttributes, WorkflowExecutionStartedEventAttributes,
        history_event::Attributes as A,
    },
};
use uuid::Uuid;

use super::{NewChild, Transition, commands::Refused};
use crate::{
    model::{Child, DEFAULT_TASK_TIMEOUT_MS, Effect, EffectKind},
    proto,
};

/// The namespace's name in events.
pub(crate) struct Names<'a> {
    pub(crate) namespace: &'a str,
}

impl Transition {
    pub(crate) fn initiate_child(
        &mut self,
        command: StartChildWorkflowExecutionCommandAttributes,
        event: HistoryEvent,
        completed_id: i64,
        names: &Names<'_>,
    ) -> Result<(), Refused> {
        let refuse = |s: tonic::Status| Refused::task(Cause::BadStartChildExecutionAttributes, s.message());
        check(&command, names).map_err(refuse)?;
        let workflow_type = command.workflow_type.clone().unwrap_or_default();
        let task_queue = command.task_queue.clone().filter(|q| !q.name.is_empty());
        let task_queue = task_queue.map_or_else(|| self.run.task_queue.clone(), |q| q.name);
        let close_policy = match command.parent_close_policy() {
            ParentClosePolicy::Unspecified => ParentClosePolicy::Terminate,
            policy => policy,
        };
        let reuse = match command.workflow_id_reuse_policy() {
            WorkflowIdReusePolicy::Unspecified => WorkflowIdReusePolicy::AllowDuplicate,
            policy => policy,
        };
        let attributes = StartChildWorkflowExecutionInitiatedEventAttributes {
            namespace: names.namespace.to_owned(),
            workflow_id: command.workflow_id.clone(),
            workflow_type: Some(workflow_type.clone()),
            task_queue: Some(proto::queue(&task_queue)),
            input: command.input.clone(),
            workflow_execution_timeout: command.workflow_execution_timeout,
            workflow_run_timeout: Some(command.workflow_run_timeout.unwrap_or_default()),
            workflow_task_timeout: Some(task_timeout(&command)),
            parent_close_policy: close_policy as i32,
            workflow_task_completed_event_id: completed_id,
            workflow_id_reuse_policy: reuse as i32,
            header: command.header.clone(),
            memo: command.memo.clone(),
            search_attributes: command.search_attributes.clone(),
            priority: command.priority.clone(),
            #[allow(deprecated, reason = "what the SDK sets is kept")]
            inherit_build_id: command.inherit_build_id,
            ..Default::default()
        };
        let initiated_event_id = self.append_event(HistoryEvent {
            attributes: Some(A::StartChildWorkflowExecutionInitiatedEventAttributes(attributes)),
            ..event
        });
        self.new_children.push(NewChild {
            initiated_event_id,
            workflow_id: command.workflow_id.clone(),
            workflow_type: workflow_type.name,
            close_policy: i16::try_from(close_policy as i32).unwrap_or(1),
            started: None,
        });
        self.run.open_children += 1;
        self.owe_child_start(command, &task_queue, initiated_event_id, reuse, names);
        Ok(())
    }

    pub(super) fn owe_child_start(
        &mut self,
        command: StartChildWorkflowExecutionCommandAttributes,
        task_queue: &str,
        initiated_event_id: i64,
        reuse: WorkflowIdReusePolicy,
        names: &Names<'_>,
    ) {
        let started = WorkflowExecutionStartedEventAttributes {
            workflow_type: command.workflow_type.clone(),
            parent_workflow_namespace: names.namespace.to_owned(),
            parent_workflow_execution: Some(proto::execution(&self.run.workflow_id, self.run.run_id)),
            parent_initiated_event_id: initiated_event_id,
            task_queue: Some(proto::queue(task_queue)),
            workflow_task_timeout: Some(task_timeout(&command)),
            input: command.input,
            workflow_execution_timeout: command.workflow_execution_timeout,
            workflow_run_timeout: Some(command.workflow_run_timeout.unwrap_or_default()),
            attempt: 1,
            memo: command.memo,
            search_attributes: command.search_attributes,
            header: command.header,
            workflow_id: command.workflow_id.clone(),
            root_workflow_execution: Some(proto::execution(&self.run.root_workflow_id, self.run.root_run_id)),
            priority: Some(command.priority.unwrap_or_default()),
            first_workflow_task_backoff: Some(prost_types::Duration::default()),
            ..Default::default()
        };
        let mut effect = Effect::new(EffectKind::StartChild, &self.run, initiated_event_id);
        effect.data.workflow_id = command.workflow_id;
        effect.data.event = Some(proto::event(0, self.now, A::WorkflowExecutionStartedEventAttributes(started)));
        effect.data.policy = reuse as i32;
        effect.data.outlives_parent = command.parent_close_policy == ParentClosePolicy::Abandon as i32;
        self.effects.push(effect);
    }

    /// The child is running.
    pub(crate) fn child_started(&mut self, child: &Child, run_id: Uuid, header: Option<Header>, namespace: &str) {
        let attributes =
            A::ChildWorkflowExecutionStartedEventAttributes(ChildWorkflowExecutionStartedEventAttributes {
                namespace: namespace.to_owned(),
                initiated_event_id: child.initiated_event_id,
                workflow_execution: Some(proto::execution(&child.workflow_id, run_id)),
                workflow_type: Some(WorkflowType { name: child.workflow_type.clone() }),
                header,
                ..Default::default()
            });
        let started_event_id = self.arrive(attributes);
        self.started_children.push((child.initiated_event_id, started_event_id, run_id));
    }

    /// Another run was in the way.
    pub(crate) fn child_start_failed(&mut self, child: &Child, namespace: &str) {
        self.end_child(child.initiated_event_id);
        self.arrive(A::StartChildWorkflowExecutionFailedEventAttributes(
            StartChildWorkflowExecutionFailedEventAttributes {
                namespace: namespace.to_owned(),
                workflow_id: child.workflow_id.clone(),
                workflow_type: Some(WorkflowType { name: child.workflow_type.clone() }),
                cause: StartChildWorkflowExecutionFailedCause::WorkflowAlreadyExists as i32,
                initiated_event_id: child.initiated_event_id,
                ..Default::default()
            },
        ));
    }

    /// The child closed; `event` is one of `ChildWorkflowExecution{Completed,Failed,Canceled,TimedOut,Terminated}`.
    pub(crate) fn child_closed(&mut self, child: &Child, mut event: A) {
        fill_started(&mut event, child.started_event_id);
        self.end_child(child.initiated_event_id);
        self.arrive(event);
    }

    fn end_child(&mut self, initiated_event_id: i64) {
        self.ended_children.push(initiated_event_id);
        self.run.open_children = (self.run.open_children - 1).max(0);
    }

    /// A buffered `ChildWorkflowExecutionStarted` has got its id.
    pub(crate) fn note_child_started(&mut self, event: &HistoryEvent, id: i64) {
        if let Some(A::ChildWorkflowExecutionStartedEventAttributes(a)) = &event.attributes {
            let run_id = a.workflow_execution.as_ref().and_then(|e| Uuid::parse_str(&e.run_id).ok());
            self.started_children.push((a.initiated_event_id, id, run_id.unwrap_or_default()));
        }
    }
}

/// Sets the Started event in an event that says how a child closed.
pub(super) fn fill_started(event: &mut A, started_event_id: i64) {
    match event {
        A::ChildWorkflowExecutionCompletedEventAttributes(a) => a.started_event_id = started_event_id,
        A::ChildWorkflowExecutionFailedEventAttributes(a) => a.started_event_id = started_event_id,
        A::ChildWorkflowExecutionCanceledEventAttributes(a) => a.started_event_id = started_event_id,
        A::ChildWorkflowExecutionTimedOutEventAttributes(a) => a.started_event_id = started_event_id,
        A::ChildWorkflowExecutionTerminatedEventAttributes(a) => a.started_event_id = started_event_id,
        _ => {}
    }
}

fn task_timeout(command: &StartChildWorkflowExecutionCommandAttributes) -> prost_types::Duration {
    let run_ms = proto::millis_or_zero(command.workflow_run_timeout.as_ref());
    let within_run = |ms: i64| if run_ms > 0 { ms.min(run_ms) } else { ms };
    match proto::millis_or_zero(command.workflow_task_timeout.as_ref()) {
        0 => proto::duration(within_run(DEFAULT_TASK_TIMEOUT_MS)),
        ms => proto::duration(within_run(ms)),
    }
}

fn check(command: &StartChildWorkflowExecutionCommandAttributes, names: &Names<'_>) -> Result<(), tonic::Status> {
    proto::name(&command.workflow_id, "workflow_id")?;
    proto::name(&command.workflow_type.clone().unwrap_or_default().name, "workflow_type")?;
    if let Some(queue) = &command.task_queue {
        proto::optional_name(&queue.name, "task_queue")?;
    }
    proto::millis(command.workflow_execution_timeout.as_ref(), "workflow_execution_timeout")?;
    proto::millis(command.workflow_run_timeout.as_ref(), "workflow_run_timeout")?;
    proto::millis(command.workflow_task_timeout.as_ref(), "workflow_task_timeout")?;
    let unsupported = |field: &str| Err(tonic::Status::unimplemented(format!("{field} is not supported")));
    #[allow(deprecated, reason = "older SDKs still fill it")]
    let namespace = command.namespace.as_str();
    if !namespace.is_empty() && namespace != names.namespace {
        return unsupported("a child in another namespace");
    }
    if !command.cron_schedule.is_empty() {
        return unsupported("cron_schedule");
    }
    if command.retry_policy.is_some() {
        return unsupported("retry_policy of a workflow");
    }
    Ok(())
}
