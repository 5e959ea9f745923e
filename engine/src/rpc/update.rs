//! Workflow updates: sent, and waited for.
//!
//! An update is admitted as a change of its run. Whoever waits for it reads what is stored whenever the run has news, so
//! it does not matter which process the worker is in. The response after [`WAIT`] is how far the update has got; clients ask
//! again.

use std::time::Duration;

use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    enums::v1::{UpdateWorkflowExecutionLifecycleStage as Stage, WorkflowExecutionStatus},
    failure::v1::Failure,
    history::v1::history_event::Attributes as A,
    update::v1::{Outcome, Request, UpdateRef, WaitPolicy, outcome::Value},
    workflowservice::v1::{
        PollWorkflowExecutionUpdateRequest, PollWorkflowExecutionUpdateResponse, UpdateWorkflowExecutionRequest,
        UpdateWorkflowExecutionResponse,
    },
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    caller::Caller,
    change::{Decision, Unchanged},
    clock::jittered,
    engine::Engine,
    history::{commands::Needs, updates::closed_failure},
    model::Target,
    proto::{self, db},
};

/// Longest wait in one call.
const WAIT: Duration = Duration::from_secs(20);
/// Most that a lost wake-up costs.
const RECHECK: Duration = Duration::from_secs(2);
/// Runs of a chain an update is offered to, if each continues as new before admitting it.
const CHAIN: usize = 10;

pub(super) async fn update(
    engine: &Engine,
    caller: &Caller,
    request: UpdateWorkflowExecutionRequest,
) -> Result<UpdateWorkflowExecutionResponse, Status> {
    let target = super::target(request.workflow_execution.as_ref())?;
    let stage = stage_to_wait_for(request.wait_policy)?;
    proto::run_id(&request.first_execution_run_id)?;
    let update = checked(request.request)?;
    let id = update.meta.as_ref().map(|m| m.update_id.clone()).unwrap_or_default();
    let deadline = tokio::time::Instant::now() + WAIT;
    for _ in 0..CHAIN {
        let admitted = engine.admit(&target, &update, &request.first_execution_run_id).await?;
        let reached = engine.wait_for_update(&admitted, &id, stage, deadline, caller).await?;
        let (stage, outcome) = match reached {
            Reached::Stage(stage, outcome) => (stage, outcome),
            // The next run of the chain may admit it, if no run was named.
            Reached::Gone(Gone::Continued) if matches!(target, Target::Current(_)) => continue,
            Reached::Gone(gone) => return Err(gone.status()),
        };
        return Ok(UpdateWorkflowExecutionResponse {
            update_ref: Some(reference(&admitted.workflow_id, admitted.run, id)),
            outcome: outcome.map(|outcome| *outcome),
            stage: stage as i32,
            ..Default::default()
        });
    }
    Err(Status::unavailable("workflow update was aborted: the workflow keeps continuing as new"))
}

pub(super) async fn poll(
    engine: &Engine,
    caller: &Caller,
    request: PollWorkflowExecutionUpdateRequest,
) -> Result<PollWorkflowExecutionUpdateResponse, Status> {
    let reference_of =
        request.update_ref.ok_or_else(|| Status::invalid_argument("update_ref is not set on the request"))?;
    let execution = reference_of.workflow_execution.unwrap_or_default();
    let run = super::resolve(engine, Some(&execution)).await?;
    let id = reference_of.update_id;
    let stage = request.wait_policy.map_or(Stage::Unspecified, |p| p.lifecycle_stage());
    let workflow_id = execution.workflow_id;
    let admitted = Admitted { run, workflow_id: workflow_id.clone(), admission: None };
    let deadline = tokio::time::Instant::now() + WAIT;
    match engine.wait_for_update(&admitted, &id, stage, deadline, caller).await? {
        Reached::Stage(stage, outcome) => Ok(PollWorkflowExecutionUpdateResponse {
            outcome: outcome.map(|outcome| *outcome),
            stage: stage as i32,
            update_ref: Some(reference(&workflow_id, run, id)),
        }),
        Reached::Gone(_) => Err(Status::not_found(format!("update {id:?} not found"))),
    }
}

fn reference(workflow_id: &str, run: Uuid, update_id: String) -> UpdateRef {
    let workflow_execution: Option<WorkflowExecution> = Some(proto::execution(workflow_id, run));
    UpdateRef { workflow_execution, update_id }
}

fn stage_to_wait_for(policy: Option<WaitPolicy>) -> Result<Stage, Status> {
    match policy.map_or(Stage::Unspecified, |p| p.lifecycle_stage()) {
        Stage::Unspecified | Stage::Accepted => Ok(Stage::Accepted),
        Stage::Completed => Ok(Stage::Completed),
        Stage::Admitted => Err(Status::permission_denied(
            "UpdateWorkflowExecution issued asynchronously and waiting on update admitted is not supported.",
        )),
    }
}

fn checked(request: Option<Request>) -> Result<Request, Status> {
    let mut request = request.unwrap_or_default();
    let meta = request.meta.as_mut().ok_or_else(|| Status::invalid_argument("Update meta is not set on request."))?;
    proto::optional_name(&meta.update_id, "request.meta.update_id")?;
    if meta.update_id.is_empty() {
        meta.update_id = Uuid::new_v4().to_string();
    }
    let input =
        request.input.as_ref().ok_or_else(|| Status::invalid_argument("Update input is not set on request."))?;
    if input.name.is_empty() {
        return Err(Status::invalid_argument("Update name is not set on request."));
    }
    if !request.completion_callbacks.is_empty() {
        return Err(Status::unimplemented("completion_callbacks of an update are not supported by this engine"));
    }
    Ok(request)
}

/// An update a run has admitted, now or before.
struct Admitted {
    run: Uuid,
    workflow_id: String,
    /// None: whichever one has the id.
    admission: Option<Uuid>,
}

/// What is known of an update.
enum Reached {
    Stage(Stage, Option<Box<Outcome>>),
    /// Neither in flight nor accepted.
    Gone(Gone),
}

/// Why an admitted update no longer exists.
enum Gone {
    /// Its run has closed.
    Closed,
    /// Its run has closed and another one follows.
    Continued,
    /// The workflow task that was to deliver it was rejected.
    TaskFailed,
}

impl Gone {
    fn status(&self) -> Status {
        match self {
            Self::Closed => Status::not_found("workflow update was aborted by closing workflow"),
            Self::Continued => Status::not_found("workflow execution already completed"),
            Self::TaskFailed => Status::failed_precondition(
                "Unable to perform workflow execution update due to unexpected workflow task failure.",
            ),
        }
    }
}

/// The outcome of an attempt to admit.
enum Attempt {
    Admitted(Admitted),
    /// The id may have been used by a completed update: this many had been completed.
    LookUp(Uuid, String, u32),
}

impl Engine {
    async fn admit(&self, target: &Target, update: &Request, first_run_id: &str) -> Result<Admitted, Status> {
        let id = update.meta.as_ref().map_or("", |m| m.update_id.as_str());
        let admission = Uuid::new_v4();
        // (run, how many were completed) as looked up
        let mut unknown: Option<(Uuid, u32)> = None;
        for _ in 0..CHAIN {
            let attempt = self
                .change(target, Needs::default(), |t, _| {
                    if !first_run_id.is_empty() && t.run.first_run_id.to_string() != first_run_id {
                        return Err(Status::not_found("workflow execution not found"));
                    }
                    let (run, workflow_id) = (t.run.run_id, t.run.workflow_id.clone());
                    let completed = t.run.updates.completed;
                    let in_flight = t.run.updates.find(id).is_some();
                    if !in_flight && completed > 0 && unknown != Some((run, completed)) {
                        return Ok(Decision::Keep(Attempt::LookUp(run, workflow_id, completed)));
                    }
                    Ok(match t.admit_update(update, admission)? {
                        Some(before) => {
                            Decision::Keep(Attempt::Admitted(Admitted { run, workflow_id, admission: Some(before) }))
                        }
                        None => Decision::Write(Attempt::Admitted(Admitted {
                            run,
                            workflow_id,
                            admission: Some(admission),
                        })),
                    })
                })
                .await;
            match attempt {
                Ok((Attempt::Admitted(admitted), _)) => return Ok(admitted),
                Ok((Attempt::LookUp(run, workflow_id, completed), _)) => {
                    if self.recorded(run, id).await?.is_some() {
                        return Ok(Admitted { run, workflow_id, admission: None });
                    }
                    unknown = Some((run, completed));
                }
                Err(Unchanged::NotOpen) => return self.admitted_before(target, id).await,
                Err(other) => return Err(other.or_not_found()),
            }
        }
        Err(Status::aborted("the workflow is changing too fast, try again"))
    }

    /// A closed run still says what became of its updates.
    async fn admitted_before(&self, target: &Target, id: &str) -> Result<Admitted, Status> {
        let (workflow_id, run) = match target {
            Target::Current(workflow) => (workflow.clone(), None),
            Target::Exact(workflow, run) => (workflow.clone(), Some(*run)),
            Target::Run(run) => (String::new(), Some(*run)),
        };
        let run = self.inner.store.resolve(&workflow_id, run).await?;
        match self.recorded(run, id).await? {
            Some(_) => Ok(Admitted { run, workflow_id, admission: None }),
            None => Err(Status::not_found("workflow execution already completed")),
        }
    }

    /// Accepted and Completed events of an update that was accepted; 0: none.
    async fn recorded(&self, run: Uuid, id: &str) -> Result<Option<(i64, i64)>, Status> {
        let mut lane = self.inner.store.lanes.take().await.map_err(db)?;
        let row = sqlx::query_as(
            "select accepted_event_id, completed_event_id from engine.updates where run_id = $1 and update_id = $2",
        )
        .bind(run)
        .bind(id)
        .fetch_optional(lane.connection())
        .await;
        lane.finish(row).map_err(db)
    }

    async fn wait_for_update(
        &self,
        update: &Admitted,
        id: &str,
        stage: Stage,
        deadline: tokio::time::Instant,
        caller: &Caller,
    ) -> Result<Reached, Status> {
        let watch = self.inner.runs.watch(update.run);
        let mut stopped = self.inner.stopped.subscribe();
        loop {
            let news = watch.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            let reached = self.update_now(update, id).await?;
            match &reached {
                Reached::Stage(now, _) if (*now as i32) < stage as i32 => {}
                _ => return Ok(reached),
            }
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep(jittered(RECHECK)) => {}
                () = tokio::time::sleep_until(deadline) => return Ok(reached),
                () = caller.gone() => return Ok(reached),
                _ = stopped.wait_for(|s| *s) => return Err(Status::unavailable("the engine is shutting down")),
            }
        }
    }

    /// How far an update has got. The run is read first: what leaves it afterwards is found where it went.
    async fn update_now(&self, update: &Admitted, id: &str) -> Result<Reached, Status> {
        let open = self.inner.store.load(&Target::Run(update.run)).await?.map(|l| l.run);
        let in_flight = open.as_ref().and_then(|r| r.updates.find(id));
        if let Some(known) = in_flight.filter(|u| update.admission.is_none_or(|a| a == u.admission())) {
            let stage = if known.accepted_event_id == 0 { Stage::Admitted } else { Stage::Accepted };
            return Ok(Reached::Stage(stage, None));
        }
        let failed = |failure: Failure| Some(Box::new(Outcome { value: Some(Value::Failure(failure)) }));
        match self.recorded(update.run, id).await? {
            Some((_, 0)) if open.is_none() => {
                return Ok(Reached::Stage(Stage::Completed, failed(closed_failure())));
            }
            Some((_, 0)) => return Ok(Reached::Stage(Stage::Accepted, None)),
            Some((_, completed)) => {
                let outcome = self.outcome(update.run, completed).await?;
                return Ok(Reached::Stage(Stage::Completed, Some(Box::new(outcome))));
            }
            None => {}
        }
        if let Some(failure) = self.rejection(update.admission).await? {
            return Ok(Reached::Stage(Stage::Completed, failed(failure)));
        }
        Ok(Reached::Gone(if open.is_some() { Gone::TaskFailed } else { self.how_closed(update.run).await? }))
    }

    async fn outcome(&self, run: Uuid, completed_event_id: i64) -> Result<Outcome, Status> {
        let batch = self.inner.store.history(run, completed_event_id - 1, 1).await?;
        let event = proto::events(&batch)?.into_iter().find(|e| e.event_id == completed_event_id);
        match event.and_then(|e| e.attributes) {
            Some(A::WorkflowExecutionUpdateCompletedEventAttributes(a)) => Ok(a.outcome.unwrap_or_default()),
            _ => Err(Status::data_loss("outcome of the update is not in the history")),
        }
    }

    async fn rejection(&self, admission: Option<Uuid>) -> Result<Option<Failure>, Status> {
        let Some(admission) = admission else { return Ok(None) };
        // Those who waited for older ones asked long ago.
        let row: Option<Vec<u8>> = sqlx::query_scalar(
            "with swept as (delete from engine.update_rejections
                            where rejected_at < clock_timestamp() - interval '5 minutes')
             select failure from engine.update_rejections where admission = $1",
        )
        .bind(admission)
        .fetch_optional(&self.inner.store.pool)
        .await
        .map_err(db)?;
        row.map(|bytes| proto::stored(&bytes)).transpose()
    }

    async fn how_closed(&self, run: Uuid) -> Result<Gone, Status> {
        let status: Option<i16> = sqlx::query_scalar("select status from engine.executions where run_id = $1")
            .bind(run)
            .fetch_optional(&self.inner.store.pool)
            .await
            .map_err(db)?;
        let continued = status.is_some_and(|s| i32::from(s) == WorkflowExecutionStatus::ContinuedAsNew as i32);
        Ok(if continued { Gone::Continued } else { Gone::Closed })
    }
}
