//! Signals and cancellation: those that reach this run, and those it sends to other runs.

use temporalio_common::protos::temporal::api::{
    command::v1::{
        RequestCancelExternalWorkflowExecutionCommandAttributes, SignalExternalWorkflowExecutionCommandAttributes,
    },
    common::v1::{Header, Payloads, WorkflowExecution},
    enums::v1::{
        CancelExternalWorkflowExecutionFailedCause, SignalExternalWorkflowExecutionFailedCause,
        WorkflowTaskFailedCause as Cause,
    },
    history::v1::{
        ExternalWorkflowExecutionCancelRequestedEventAttributes, ExternalWorkflowExecutionSignaledEventAttributes,
        HistoryEvent, RequestCancelExternalWorkflowExecutionFailedEventAttributes,
        RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
        SignalExternalWorkflowExecutionFailedEventAttributes, SignalExternalWorkflowExecutionInitiatedEventAttributes,
        WorkflowExecutionCancelRequestedEventAttributes, WorkflowExecutionSignaledEventAttributes,
        history_event::Attributes as A,
    },
};
use tonic::Status;

use super::{Transition, children::Names, commands::Refused};
use crate::{
    model::{Effect, EffectKind, Run},
    proto,
};

impl Transition {
    /// The run has been asked to cancel; once is enough.
    pub(crate) fn request_cancel(&mut self, attributes: WorkflowExecutionCancelRequestedEventAttributes) {
        if !self.run.cancel_requested {
            self.run.cancel_requested = true;
            self.arrive(A::WorkflowExecutionCancelRequestedEventAttributes(attributes));
        }
    }

    pub(crate) fn signal_external(
        &mut self,
        command: SignalExternalWorkflowExecutionCommandAttributes,
        event: HistoryEvent,
        completed_id: i64,
        names: &Names<'_>,
    ) -> Result<(), Refused> {
        let refuse = |s: Status| Refused::task(Cause::BadSignalWorkflowExecutionAttributes, s.message());
        let target = command.execution.clone().unwrap_or_default();
        proto::name(&command.signal_name, "signal_name").map_err(refuse)?;
        #[allow(deprecated, reason = "older SDKs still fill it")]
        check_target(&target, &command.namespace, names).map_err(refuse)?;
        #[allow(deprecated, reason = "echoed to the worker that set it")]
        let control = command.control.clone();
        #[allow(deprecated, reason = "echoed to the worker that set it")]
        let attributes = SignalExternalWorkflowExecutionInitiatedEventAttributes {
            workflow_task_completed_event_id: completed_id,
            namespace: names.namespace.to_owned(),
            workflow_execution: Some(target.clone()),
            signal_name: command.signal_name.clone(),
            input: command.input.clone(),
            control,
            child_workflow_only: command.child_workflow_only,
            header: command.header.clone(),
            ..Default::default()
        };
        let initiated = self.append_event(HistoryEvent {
            attributes: Some(A::SignalExternalWorkflowExecutionInitiatedEventAttributes(attributes)),
            ..event
        });
        let signal = signal_for(&self.run, command.signal_name, command.input, command.header);
        self.owe(EffectKind::SignalExternal, initiated, target, signal, command.child_workflow_only);
        Ok(())
    }

    pub(crate) fn cancel_external(
        &mut self,
        command: RequestCancelExternalWorkflowExecutionCommandAttributes,
        event: HistoryEvent,
        completed_id: i64,
        names: &Names<'_>,
    ) -> Result<(), Refused> {
        let refuse = |s: Status| Refused::task(Cause::BadRequestCancelExternalWorkflowExecutionAttributes, s.message());
        let target = WorkflowExecution { workflow_id: command.workflow_id, run_id: command.run_id };
        #[allow(deprecated, reason = "older SDKs still fill it")]
        check_target(&target, &command.namespace, names).map_err(refuse)?;
        #[allow(deprecated, reason = "echoed to the worker that set it")]
        let attributes = RequestCancelExternalWorkflowExecutionInitiatedEventAttributes {
            workflow_task_completed_event_id: completed_id,
            namespace: command.namespace,
            workflow_execution: Some(target.clone()),
            control: command.control,
            child_workflow_only: command.child_workflow_only,
            reason: command.reason.clone(),
            ..Default::default()
        };
        let initiated = self.append_event(HistoryEvent {
            attributes: Some(A::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(attributes)),
            ..event
        });
        let cancel = cancel_for(&self.run, command.reason, initiated);
        let cancel = A::WorkflowExecutionCancelRequestedEventAttributes(cancel);
        self.owe(EffectKind::CancelExternal, initiated, target, cancel, command.child_workflow_only);
        Ok(())
    }

    pub(super) fn owe(
        &mut self,
        kind: EffectKind,
        initiated: i64,
        target: WorkflowExecution,
        event: A,
        child_only: bool,
    ) {
        let mut effect = Effect::new(kind, &self.run, initiated);
        effect.data.workflow_id = target.workflow_id;
        effect.data.run_id = target.run_id;
        effect.data.child_only = child_only;
        effect.data.event = Some(proto::event(0, self.now, event));
        self.effects.push(effect);
    }

    /// The result of a signal this run sent.
    pub(crate) fn external_signaled(
        &mut self,
        initiated: i64,
        target: WorkflowExecution,
        namespace: &str,
        found: bool,
    ) {
        let (initiated_event_id, namespace) = (initiated, namespace.to_owned());
        self.arrive(if found {
            A::ExternalWorkflowExecutionSignaledEventAttributes(ExternalWorkflowExecutionSignaledEventAttributes {
                initiated_event_id,
                namespace,
                workflow_execution: Some(target),
                ..Default::default()
            })
        } else {
            A::SignalExternalWorkflowExecutionFailedEventAttributes(
                SignalExternalWorkflowExecutionFailedEventAttributes {
                    cause: SignalExternalWorkflowExecutionFailedCause::ExternalWorkflowExecutionNotFound as i32,
                    namespace,
                    workflow_execution: Some(target),
                    initiated_event_id,
                    ..Default::default()
                },
            )
        });
    }

    /// The result of a cancellation this run requested.
    pub(crate) fn external_cancelled(
        &mut self,
        initiated: i64,
        target: WorkflowExecution,
        namespace: &str,
        found: bool,
    ) {
        let (initiated_event_id, namespace) = (initiated, namespace.to_owned());
        self.arrive(if found {
            A::ExternalWorkflowExecutionCancelRequestedEventAttributes(
                ExternalWorkflowExecutionCancelRequestedEventAttributes {
                    initiated_event_id,
                    namespace,
                    workflow_execution: Some(target),
                    ..Default::default()
                },
            )
        } else {
            A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(
                RequestCancelExternalWorkflowExecutionFailedEventAttributes {
                    cause: CancelExternalWorkflowExecutionFailedCause::ExternalWorkflowExecutionNotFound as i32,
                    namespace,
                    workflow_execution: Some(target),
                    initiated_event_id,
                    ..Default::default()
                },
            )
        });
    }
}

/// The signal as another run receives it from this one.
pub(super) fn signal_for(from: &Run, signal_name: String, input: Option<Payloads>, header: Option<Header>) -> A {
    A::WorkflowExecutionSignaledEventAttributes(WorkflowExecutionSignaledEventAttributes {
        signal_name,
        input,
        header,
        external_workflow_execution: Some(proto::execution(&from.workflow_id, from.run_id)),
        ..Default::default()
    })
}

/// The cancellation request as another run receives it from this one.
pub(super) fn cancel_for(
    from: &Run,
    reason: String,
    initiated: i64,
) -> WorkflowExecutionCancelRequestedEventAttributes {
    WorkflowExecutionCancelRequestedEventAttributes {
        cause: reason,
        external_initiated_event_id: initiated,
        external_workflow_execution: Some(proto::execution(&from.workflow_id, from.run_id)),
        ..Default::default()
    }
}

fn check_target(target: &WorkflowExecution, namespace: &str, names: &Names<'_>) -> Result<(), Status> {
    proto::name(&target.workflow_id, "workflow_id")?;
    proto::run_id(&target.run_id)?;
    if !namespace.is_empty() && namespace != names.namespace {
        return Err(Status::unimplemented("a workflow in another namespace is not supported"));
    }
    Ok(())
}
