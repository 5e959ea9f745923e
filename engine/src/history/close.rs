//! The end of a run, and what it owes its parent and children.

use temporalio_common::protos::temporal::api::{
    common::v1::{Payloads, WorkflowType},
    enums::v1::{ParentClosePolicy, RetryState, WorkflowExecutionStatus as Status},
    history::v1::{
        ChildWorkflowExecutionCanceledEventAttributes, ChildWorkflowExecutionCompletedEventAttributes,
        ChildWorkflowExecutionFailedEventAttributes, ChildWorkflowExecutionTerminatedEventAttributes,
        ChildWorkflowExecutionTimedOutEventAttributes, WorkflowExecutionTerminatedEventAttributes,
        WorkflowExecutionTimedOutEventAttributes, history_event::Attributes as A,
    },
};

use super::Transition;
use crate::{
    model::{Child, Effect, EffectKind},
    proto,
};

impl Transition {
    /// Appends the closing event. `children` are those still open.
    pub(crate) fn close(&mut self, status: Status, event: A, children: &[Child], namespace: &str) {
        if status != Status::ContinuedAsNew {
            self.owe_parent(&event, namespace);
        }
        self.append(event);
        self.owe_children(children);
        self.clear_task();
        self.run.buffered.clear();
        self.closed = Some(status);
    }

    /// Closes the run from outside, whatever it is doing.
    pub(crate) fn terminate(
        &mut self,
        reason: String,
        details: Option<Payloads>,
        identity: String,
        children: &[Child],
        namespace: &str,
    ) -> Result<(), tonic::Status> {
        self.abort_task()?;
        let attributes = WorkflowExecutionTerminatedEventAttributes { reason, details, identity };
        let event = A::WorkflowExecutionTerminatedEventAttributes(attributes);
        self.close(Status::Terminated, event, children, namespace);
        Ok(())
    }

    /// The run or the whole execution took too long.
    pub(crate) fn time_out_run(&mut self, children: &[Child], namespace: &str) -> Result<(), tonic::Status> {
        self.abort_task()?;
        // If the execution has no time left, a further run could not have any either.
        let execution_is_over = self.run.execution_expires_at.is_some_and(|at| at <= self.now);
        let retry_state = if execution_is_over { RetryState::Timeout } else { RetryState::RetryPolicyNotSet };
        let attributes =
            WorkflowExecutionTimedOutEventAttributes { retry_state: retry_state as i32, ..Default::default() };
        self.close(Status::TimedOut, A::WorkflowExecutionTimedOutEventAttributes(attributes), children, namespace);
        Ok(())
    }

    fn owe_parent(&mut self, event: &A, namespace: &str) {
        let (Some(parent), Some(parent_run)) = (&self.run.parent_workflow_id, self.run.parent_run_id) else { return };
        let Some(event) = self.event_for_parent(event, namespace) else { return };
        let mut effect = Effect::new(EffectKind::ChildClosed, &self.run, self.run.parent_initiated_id);
        effect.data.workflow_id.clone_from(parent);
        effect.data.run_id = parent_run.to_string();
        effect.data.event = Some(proto::event(0, self.now, event));
        self.effects.push(effect);
    }

    fn event_for_parent(&self, event: &A, namespace: &str) -> Option<A> {
        let namespace = namespace.to_owned();
        let workflow_execution = Some(proto::execution(&self.run.workflow_id, self.run.run_id));
        let workflow_type = Some(WorkflowType { name: self.run.workflow_type.clone() });
        let initiated_event_id = self.run.parent_initiated_id;
        Some(match event {
            A::WorkflowExecutionCompletedEventAttributes(a) => {
                A::ChildWorkflowExecutionCompletedEventAttributes(ChildWorkflowExecutionCompletedEventAttributes {
                    result: a.result.clone(),
                    namespace,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    ..Default::default()
                })
            }
            A::WorkflowExecutionFailedEventAttributes(a) => {
                A::ChildWorkflowExecutionFailedEventAttributes(ChildWorkflowExecutionFailedEventAttributes {
                    failure: a.failure.clone(),
                    retry_state: a.retry_state,
                    namespace,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    ..Default::default()
                })
            }
            A::WorkflowExecutionCanceledEventAttributes(a) => {
                A::ChildWorkflowExecutionCanceledEventAttributes(ChildWorkflowExecutionCanceledEventAttributes {
                    details: a.details.clone(),
                    namespace,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    ..Default::default()
                })
            }
            A::WorkflowExecutionTimedOutEventAttributes(a) => {
                A::ChildWorkflowExecutionTimedOutEventAttributes(ChildWorkflowExecutionTimedOutEventAttributes {
                    retry_state: a.retry_state,
                    namespace,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    ..Default::default()
                })
            }
            A::WorkflowExecutionTerminatedEventAttributes(_) => {
                A::ChildWorkflowExecutionTerminatedEventAttributes(ChildWorkflowExecutionTerminatedEventAttributes {
                    namespace,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    ..Default::default()
                })
            }
            _ => return None,
        })
    }

    /// Parent close policies, including for children whose start is still owed (the effect waits for it).
    fn owe_children(&mut self, children: &[Child]) {
        let fresh =
            self.new_children.iter().map(|c| (c.workflow_id.clone(), None, c.close_policy, c.initiated_event_id));
        let open: Vec<_> = children
            .iter()
            .filter(|c| !self.ended_children.contains(&c.initiated_event_id))
            .map(|c| (c.workflow_id.clone(), c.child_run_id, c.close_policy, c.initiated_event_id))
            .chain(fresh)
            .collect();
        for (workflow_id, run_id, policy, initiated) in open {
            if i32::from(policy) == ParentClosePolicy::Abandon as i32 {
                continue;
            }
            let mut effect = Effect::new(EffectKind::ParentClosed, &self.run, initiated);
            effect.data.workflow_id = workflow_id;
            effect.data.run_id = run_id.map(|r| r.to_string()).unwrap_or_default();
            effect.data.policy = i32::from(policy);
            self.effects.push(effect);
        }
    }
}
