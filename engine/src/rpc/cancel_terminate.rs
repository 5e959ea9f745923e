//! Asking a run to cancel, and terminating it.

use temporalio_common::protos::temporal::api::{
    history::v1::WorkflowExecutionCancelRequestedEventAttributes,
    workflowservice::v1::{
        RequestCancelWorkflowExecutionRequest, RequestCancelWorkflowExecutionResponse,
        TerminateWorkflowExecutionRequest, TerminateWorkflowExecutionResponse,
    },
};
use tonic::Status;

use crate::{
    caller::Caller,
    change::{Decision, Unchanged},
    engine::Engine,
    history::commands::Needs,
    model::Transition,
    proto,
};

/// Some callers mean a particular chain of runs, not whichever one has the id now.
fn check_chain(t: &Transition, first_run_id: &str) -> Result<(), Status> {
    if !first_run_id.is_empty() && t.run.first_run_id.to_string() != first_run_id {
        return Err(Status::not_found(
            "workflow execution not found: the open run is not of this first_execution_run_id",
        ));
    }
    Ok(())
}

pub(super) async fn request_cancel(
    engine: &Engine,
    _caller: &Caller,
    request: RequestCancelWorkflowExecutionRequest,
) -> Result<RequestCancelWorkflowExecutionResponse, Status> {
    let target = super::target(request.workflow_execution.as_ref())?;
    proto::run_id(&request.first_execution_run_id)?;
    let cancelled = engine
        .change(&target, Needs::default(), |t, _| {
            check_chain(t, &request.first_execution_run_id)?;
            if t.run.cancel_requested {
                return Ok(Decision::Keep(()));
            }
            t.request_cancel(WorkflowExecutionCancelRequestedEventAttributes {
                cause: request.reason.clone(),
                identity: request.identity.clone(),
                ..Default::default()
            });
            Ok(Decision::Write(()))
        })
        .await;
    match cancelled {
        Ok(_) => {}
        // There is nothing left to cancel.
        Err(Unchanged::NotOpen) => super::exists(engine, &target).await?,
        Err(other) => return Err(other.or_not_found()),
    }
    Ok(RequestCancelWorkflowExecutionResponse::default())
}

pub(super) async fn terminate(
    engine: &Engine,
    _caller: &Caller,
    request: TerminateWorkflowExecutionRequest,
) -> Result<TerminateWorkflowExecutionResponse, Status> {
    let target = super::target(request.workflow_execution.as_ref())?;
    proto::run_id(&request.first_execution_run_id)?;
    let needs = Needs { children: true, ..Needs::default() };
    let namespace = &engine.inner.options.namespace;
    let terminated = engine
        .change(&target, needs, |t, pending| {
            check_chain(t, &request.first_execution_run_id)?;
            let (reason, details) = (request.reason.clone(), request.details.clone());
            t.terminate(reason, details, request.identity.clone(), &pending.children, namespace)?;
            Ok(Decision::Write(()))
        })
        .await;
    if let Err(unchanged) = terminated {
        return Err(super::refused(engine, &target, unchanged).await);
    }
    Ok(TerminateWorkflowExecutionResponse::default())
}
