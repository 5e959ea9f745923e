//! Starting workflows.

use chrono::{DateTime, Utc};
use prost::Message;
use temporalio_common::protos::{
    google::rpc,
    temporal::api::{
        enums::v1::{WorkflowExecutionStatus, WorkflowIdConflictPolicy as Conflict, WorkflowIdReusePolicy as Reuse},
        errordetails::v1::WorkflowExecutionAlreadyStartedFailure,
        history::v1::{WorkflowExecutionStartedEventAttributes, history_event::Attributes as A},
        workflowservice::v1::{StartWorkflowExecutionRequest, StartWorkflowExecutionResponse},
    },
};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{
    caller::{Caller, Claim},
    change::{Decision, Unchanged},
    engine::Engine,
    history::commands::Needs,
    matching::Kind,
    model::{DEFAULT_TASK_TIMEOUT_MS, Existing, NewRun, Start, StartOutcome, StartPolicy, Target, TaskState},
    proto::{self, db},
};

/// Longest workflow-task timeout, as on Temporal's servers.
const MAX_TASK_TIMEOUT_MS: i64 = 120_000;
/// How often a start that replaces a running execution is retried.
const REPLACE_ROUNDS: usize = 10;

pub(super) async fn start(
    engine: &Engine,
    caller: &Caller,
    mut request: StartWorkflowExecutionRequest,
) -> Result<StartWorkflowExecutionResponse, Status> {
    let policies = Policies::of(request.workflow_id_reuse_policy(), request.workflow_id_conflict_policy())?;
    engine.accept_search_attributes(request.search_attributes.as_mut()).await?;
    // The client has a worker with room for the first task.
    let eager = request.request_eager_execution && engine.inner.lease.is_held();
    let mut run = new_run(request, None)?;
    run.attributes.eager_execution_accepted = eager;
    let (run_id, started, first) = Box::pin(engine.start_run(run, policies)).await?;
    let eager_workflow_task = first.filter(|_| eager).map(|start| {
        let run = &start.run;
        caller.claimed(Claim::Workflow(run.task_token()));
        super::workflow_task::task_response(run, start.events.clone(), true).into_message()
    });
    Ok(StartWorkflowExecutionResponse {
        run_id: run_id.to_string(),
        started,
        status: WorkflowExecutionStatus::Running as i32,
        eager_workflow_task: eager_workflow_task.transpose()?,
        ..Default::default()
    })
}

/// What to do about the previous run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policies {
    reuse: Reuse,
    conflict: Conflict,
}

impl Policies {
    #[allow(deprecated, reason = "clients still send the older reuse policy")]
    pub(super) fn of(reuse: Reuse, conflict: Conflict) -> Result<Self, Status> {
        match (reuse, conflict) {
            (Reuse::TerminateIfRunning, Conflict::Unspecified) => {
                Ok(Self { reuse: Reuse::AllowDuplicate, conflict: Conflict::TerminateExisting })
            }
            (Reuse::TerminateIfRunning, _) => Err(Status::invalid_argument(
                "workflow_id_reuse_policy TERMINATE_IF_RUNNING cannot be used with a workflow_id_conflict_policy",
            )),
            (Reuse::RejectDuplicate, Conflict::TerminateExisting) => Err(Status::invalid_argument(
                "workflow_id_conflict_policy TERMINATE_EXISTING cannot be used with REJECT_DUPLICATE",
            )),
            (Reuse::Unspecified, conflict) => Ok(Self { reuse: Reuse::AllowDuplicate, conflict }),
            (reuse, conflict) => Ok(Self { reuse, conflict }),
        }
    }
}

/// Checks a start request and builds its run. `signal` comes with signal-with-start.
pub(crate) fn new_run(request: StartWorkflowExecutionRequest, signal: Option<A>) -> Result<NewRun, Status> {
    check(&request)?;
    let run_id = Uuid::new_v4();
    let request_id = if request.request_id.is_empty() { run_id.to_string() } else { request.request_id };
    let execution_ms = proto::millis(request.workflow_execution_timeout.as_ref(), "workflow_execution_timeout")?;
    let run_ms = proto::millis(request.workflow_run_timeout.as_ref(), "workflow_run_timeout")?;
    let run_ms = if execution_ms > 0 && (run_ms == 0 || run_ms > execution_ms) { execution_ms } else { run_ms };
    let task_ms = match proto::millis(request.workflow_task_timeout.as_ref(), "workflow_task_timeout")? {
        0 => DEFAULT_TASK_TIMEOUT_MS,
        ms => ms.min(MAX_TASK_TIMEOUT_MS),
    };
    // A task has no more time than its run.
    let task_ms = if run_ms > 0 { task_ms.min(run_ms) } else { task_ms };
    let queue = request.task_queue.unwrap_or_default().name;
    let root = (request.workflow_id.clone(), run_id);
    let attributes = WorkflowExecutionStartedEventAttributes {
        workflow_type: request.workflow_type,
        task_queue: Some(proto::queue(&queue)),
        input: request.input,
        workflow_execution_timeout: given(request.workflow_execution_timeout, execution_ms),
        workflow_run_timeout: given(request.workflow_run_timeout, run_ms),
        workflow_task_timeout: Some(proto::duration(task_ms)),
        original_execution_run_id: run_id.to_string(),
        first_execution_run_id: run_id.to_string(),
        identity: request.identity,
        attempt: 1,
        memo: request.memo,
        search_attributes: request.search_attributes,
        header: request.header,
        first_workflow_task_backoff: Some(prost_types::Duration::default()),
        continued_failure: request.continued_failure,
        last_completion_result: request.last_completion_result,
        workflow_id: request.workflow_id,
        priority: request.priority,
        ..Default::default()
    };
    Ok(NewRun {
        run_id,
        request_id,
        attributes,
        user_metadata: request.user_metadata,
        signal,
        parent: None,
        root,
        first_run_id: run_id,
        execution_expires_at: None,
    })
}

/// A timeout in the run's first event: present if it was given, even as zero, or if it follows from another.
fn given(asked: Option<prost_types::Duration>, ms: i64) -> Option<prost_types::Duration> {
    (asked.is_some() || ms > 0).then(|| proto::duration(ms))
}

fn check(request: &StartWorkflowExecutionRequest) -> Result<(), Status> {
    proto::name(&request.workflow_id, "workflow_id")?;
    proto::name(request.workflow_type.as_ref().map_or("", |t| t.name.as_str()), "workflow_type")?;
    proto::name(request.task_queue.as_ref().map_or("", |q| q.name.as_str()), "task_queue")?;
    proto::optional_name(&request.request_id, "request_id")?;
    proto::optional_name(&request.identity, "identity")?;
    let unsupported = |field: &str| Err(Status::unimplemented(format!("{field} is not supported by this engine")));
    if !request.cron_schedule.is_empty() {
        return unsupported("cron_schedule");
    }
    if request.retry_policy.is_some() {
        return unsupported("retry_policy of a workflow");
    }
    if proto::millis(request.workflow_start_delay.as_ref(), "workflow_start_delay")? > 0 {
        return unsupported("workflow_start_delay");
    }
    if !request.completion_callbacks.is_empty() {
        return unsupported("completion_callbacks");
    }
    if request.versioning_override.is_some() {
        return unsupported("versioning_override");
    }
    Ok(())
}

/// `AlreadyExists` with the details the SDK reads.
fn already_started(workflow_id: &str, existing: &Existing, reuse: Reuse) -> Status {
    let which = format!("WorkflowId: {workflow_id}, RunId: {}.", existing.run_id);
    let message = match reuse {
        _ if existing.status == WorkflowExecutionStatus::Running as i16 => {
            format!("Workflow execution is already running. {which}")
        }
        Reuse::AllowDuplicateFailedOnly => format!(
            "Workflow execution already finished successfully. {which} Workflow Id reuse policy: allow duplicate \
             workflow Id if last run failed."
        ),
        _ => format!(
            "Workflow execution already finished. {which} Workflow Id reuse policy: reject duplicate workflow Id."
        ),
    };
    let failure = WorkflowExecutionAlreadyStartedFailure {
        start_request_id: existing.request_id.clone(),
        run_id: existing.run_id.to_string(),
        ..Default::default()
    };
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/temporal.api.errordetails.v1.WorkflowExecutionAlreadyStartedFailure".to_owned(),
        value: failure.encode_to_vec(),
    };
    let status = rpc::Status { code: Code::AlreadyExists as i32, message: message.clone(), details: vec![detail] };
    Status::with_details(Code::AlreadyExists, message, status.encode_to_vec().into())
}

impl Engine {
    /// Starts a run under its policies. True: it is new, or was when this request first arrived.
    pub(crate) async fn start_run(
        &self,
        run: NewRun,
        policies: Policies,
    ) -> Result<(Uuid, bool, Option<Box<Start>>), Status> {
        for _ in 0..REPLACE_ROUNDS {
            let existing = match Box::pin(self.create(run.clone(), StartPolicy::Reuse(policies.reuse))).await? {
                (StartOutcome::Started, start) => return Ok((run.run_id, true, Some(start))),
                (StartOutcome::Exists(existing), _) => existing,
            };
            if existing.request_id == run.request_id {
                // A repeat of the request that started it.
                return Ok((existing.run_id, true, None));
            }
            let running = existing.status == WorkflowExecutionStatus::Running as i16;
            match policies.conflict {
                Conflict::UseExisting if running => return Ok((existing.run_id, false, None)),
                Conflict::TerminateExisting if running => self.replace(&existing, run.run_id).await?,
                _ => return Err(already_started(&run.attributes.workflow_id, &existing, policies.reuse)),
            }
        }
        Err(Status::aborted("workflow_id is started by others at the same time, try again"))
    }

    async fn replace(&self, existing: &Existing, by: Uuid) -> Result<(), Status> {
        let needs = Needs { children: true, ..Needs::default() };
        let namespace = &self.inner.options.namespace;
        let ended = self
            .change(&Target::Run(existing.run_id), needs, |t, pending| {
                let reason = "TerminateIfRunning WorkflowIdReusePolicy".to_owned();
                let details = proto::json_payloads(&format!("terminated by new runID: {by}"));
                t.terminate(reason, Some(details), "history-service".to_owned(), &pending.children, namespace)?;
                Ok(Decision::Write(()))
            })
            .await;
        match ended {
            Ok(_) | Err(Unchanged::NotOpen) => Ok(()),
            Err(other) => Err(other.or_not_found()),
        }
    }

    /// Sets when the execution as a whole times out.
    pub(crate) fn with_expiry(&self, mut run: NewRun, now: DateTime<Utc>) -> NewRun {
        let execution_ms = proto::millis_or_zero(run.attributes.workflow_execution_timeout.as_ref());
        run.execution_expires_at = proto::deadline(now, execution_ms);
        run.attributes.workflow_execution_expiration_time = run.execution_expires_at.map(proto::timestamp);
        run
    }

    /// Creates a run unless another one is in the way, and triggers what follows from it.
    pub(crate) async fn create(&self, run: NewRun, policy: StartPolicy) -> Result<(StartOutcome, Box<Start>), Status> {
        let (now, wall) = self.inner.clock.both();
        let mut start = Box::new(Start::new(self.with_expiry(run, now), policy, now, wall));
        self.start_first_directly(&mut start);
        let (start, outcome) = self.inner.store.start_run(start).await.map_err(db)?;
        if matches!(outcome, StartOutcome::Started) {
            self.created(&start);
            if start.run.wft_state == TaskState::Scheduled {
                self.wake_queue(Kind::Workflow, &start.run.task_queue);
            }
            if let Some(at) = start.run.timeout_at {
                self.inner.due.within((at - start.now).to_std().unwrap_or_default());
            }
            if let Some(at) = start.run.wft_due_at {
                self.inner.due.within((at - start.wall).to_std().unwrap_or_default());
            }
        }
        Ok((outcome, start))
    }
}
