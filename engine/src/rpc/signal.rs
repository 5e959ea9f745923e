//! Signals, and signal-with-start.

use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowIdConflictPolicy as Conflict,
    history::v1::{WorkflowExecutionSignaledEventAttributes, history_event::Attributes as A},
    workflowservice::v1::{
        SignalWithStartWorkflowExecutionRequest, SignalWithStartWorkflowExecutionResponse,
        SignalWorkflowExecutionRequest, SignalWorkflowExecutionResponse, StartWorkflowExecutionRequest,
    },
};
use tonic::Status;
use uuid::Uuid;

use super::start::{Policies, new_run};
use crate::{
    caller::Caller,
    change::{Decision, Unchanged},
    engine::Engine,
    history::commands::Needs,
    model::Target,
    proto,
};

/// How often signal-with-start retries when it finds neither a run to signal nor room to start one.
const ROUNDS: usize = 10;

pub(super) async fn signal(
    engine: &Engine,
    _caller: &Caller,
    request: SignalWorkflowExecutionRequest,
) -> Result<SignalWorkflowExecutionResponse, Status> {
    let target = super::target(request.workflow_execution.as_ref())?;
    proto::name(&request.signal_name, "signal_name")?;
    proto::optional_name(&request.request_id, "request_id")?;
    let event = A::WorkflowExecutionSignaledEventAttributes(WorkflowExecutionSignaledEventAttributes {
        signal_name: request.signal_name,
        input: request.input,
        identity: request.identity,
        header: request.header,
        ..Default::default()
    });
    if let Err(unchanged) = engine.deliver_signal(&target, &event, &request.request_id).await {
        return Err(super::refused(engine, &target, unchanged).await);
    }
    Ok(SignalWorkflowExecutionResponse::default())
}

pub(super) async fn signal_with_start(
    engine: &Engine,
    _caller: &Caller,
    mut request: SignalWithStartWorkflowExecutionRequest,
) -> Result<SignalWithStartWorkflowExecutionResponse, Status> {
    proto::name(&request.signal_name, "signal_name")?;
    engine.accept_search_attributes(request.search_attributes.as_mut()).await?;
    let policies = match request.workflow_id_conflict_policy() {
        Conflict::Unspecified | Conflict::UseExisting => {
            Policies::of(request.workflow_id_reuse_policy(), Conflict::Unspecified)?
        }
        Conflict::TerminateExisting => Policies::of(request.workflow_id_reuse_policy(), Conflict::TerminateExisting)?,
        Conflict::Fail => {
            return Err(Status::invalid_argument(
                "workflow_id_conflict_policy FAIL is not allowed in signal-with-start",
            ));
        }
    };
    let replaces = request.workflow_id_conflict_policy() == Conflict::TerminateExisting;
    let (workflow_id, request_id) = (request.workflow_id.clone(), request.request_id.clone());
    let (signal, start) = split(request);
    let run = new_run(start, Some(signal.clone()))?;
    for _ in 0..ROUNDS {
        if !replaces {
            let target = Target::Current(workflow_id.clone());
            match engine.deliver_signal(&target, &signal, &request_id).await {
                Ok(run) => return Ok(response(run, false)),
                Err(Unchanged::NotOpen) => {}
                Err(other) => return Err(other.or_not_found()),
            }
        }
        match Box::pin(engine.start_run(run.clone(), policies)).await {
            Ok((run_id, ..)) => return Ok(response(run_id, true)),
            // Someone started it in between: signal that one.
            Err(status) if status.code() == tonic::Code::AlreadyExists && is_open(engine, &workflow_id).await? => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::aborted("workflow_id is started and closed by others at the same time, try again"))
}

fn response(run_id: Uuid, started: bool) -> SignalWithStartWorkflowExecutionResponse {
    SignalWithStartWorkflowExecutionResponse { run_id: run_id.to_string(), started, ..Default::default() }
}

async fn is_open(engine: &Engine, workflow_id: &str) -> Result<bool, Status> {
    Ok(engine.inner.store.load(&Target::Current(workflow_id.to_owned())).await?.is_some())
}

fn split(r: SignalWithStartWorkflowExecutionRequest) -> (A, StartWorkflowExecutionRequest) {
    let signal = A::WorkflowExecutionSignaledEventAttributes(WorkflowExecutionSignaledEventAttributes {
        signal_name: r.signal_name,
        input: r.signal_input,
        identity: r.identity.clone(),
        header: r.header.clone(),
        ..Default::default()
    });
    let start = StartWorkflowExecutionRequest {
        namespace: r.namespace,
        workflow_id: r.workflow_id,
        workflow_type: r.workflow_type,
        task_queue: r.task_queue,
        input: r.input,
        workflow_execution_timeout: r.workflow_execution_timeout,
        workflow_run_timeout: r.workflow_run_timeout,
        workflow_task_timeout: r.workflow_task_timeout,
        identity: r.identity,
        request_id: r.request_id,
        retry_policy: r.retry_policy,
        cron_schedule: r.cron_schedule,
        memo: r.memo,
        search_attributes: r.search_attributes,
        header: r.header,
        workflow_start_delay: r.workflow_start_delay,
        user_metadata: r.user_metadata,
        versioning_override: r.versioning_override,
        priority: r.priority,
        ..Default::default()
    };
    (signal, start)
}

impl Engine {
    /// Signals an open run, once per request id. Returns the run.
    pub(crate) async fn deliver_signal(&self, target: &Target, event: &A, request_id: &str) -> Result<Uuid, Unchanged> {
        let delivered = self
            .change(target, Needs::default(), |t, _| {
                t.request_id = (!request_id.is_empty()).then(|| request_id.to_owned());
                t.arrive(event.clone());
                Ok(Decision::Write(t.run.run_id))
            })
            .await;
        match delivered {
            Ok((run, _)) => Ok(run),
            Err(Unchanged::Duplicate) => match self.inner.store.load(target).await? {
                Some(loaded) => Ok(loaded.run.run_id),
                None => Err(Unchanged::NotOpen),
            },
            Err(other) => Err(other),
        }
    }
}
