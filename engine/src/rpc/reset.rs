//! Resetting a workflow to an earlier workflow task.

use std::time::Duration;

use temporalio_common::protos::temporal::api::{
    enums::v1::{ResetReapplyExcludeType as Exclude, ResetReapplyType, WorkflowExecutionStatus},
    history::v1::{HistoryEvent, history_event::Attributes as A},
    workflowservice::v1::{ResetWorkflowExecutionRequest, ResetWorkflowExecutionResponse},
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    caller::Caller,
    engine::Engine,
    history::{replay::Replayed, reset::ResetPlan},
    model::{Circumstances, Existing, Loaded, Run, Target, TaskState, Transition, Updates},
    proto::{self, db},
    recorded,
    store::{CommitError, reset::Reset},
};

/// How often a reset is decided again after a conflict.
const ROUNDS: u32 = 20;
/// Most runs followed from the reset one to the open one.
const MAX_CHAIN: usize = 1000;
/// Identity of whoever terminates the open run.
const RESETTER: &str = "history-resetter";

pub(super) async fn reset(
    engine: &Engine,
    _caller: &Caller,
    request: ResetWorkflowExecutionRequest,
) -> Result<ResetWorkflowExecutionResponse, Status> {
    proto::name(&request.request_id, "request_id")?;
    if !request.post_reset_operations.is_empty() {
        return Err(Status::unimplemented("post_reset_operations are not supported by this engine"));
    }
    let resolved = super::resolve(engine, request.workflow_execution.as_ref()).await?;
    let named = request.workflow_execution.as_ref().is_some_and(|e| !e.run_id.is_empty());
    let workflow_id = request.workflow_execution.as_ref().map(|e| e.workflow_id.clone()).unwrap_or_default();
    let mut plan = ResetPlan {
        base_run_id: resolved,
        finish_event_id: request.workflow_task_finish_event_id,
        reason: request.reason.clone(),
        exclude: excluded(&request),
    };
    for round in 0..ROUNDS {
        engine.flush_workflow(&workflow_id).await;
        let current = engine.latest(&workflow_id).await?;
        if current.request_id == request.request_id {
            return Ok(ResetWorkflowExecutionResponse { run_id: current.run_id.to_string() });
        }
        if !named {
            plan.base_run_id = current.run_id;
        }
        let reset = Box::pin(engine.decide_reset(&plan, &current, &request.request_id)).await?;
        match engine.inner.store.writer.reset(&reset).await {
            Ok(true) => {
                engine.after_reset(&reset);
                return Ok(ResetWorkflowExecutionResponse { run_id: reset.new.run.run_id.to_string() });
            }
            Ok(false) | Err(CommitError::Conflict | CommitError::Duplicate) => {
                tokio::time::sleep(Duration::from_millis(u64::from(round)).mul_f64(rand::random())).await;
            }
            Err(CommitError::Db(error)) => return Err(db(error)),
        }
    }
    Err(Status::aborted("the workflow is changing too fast, try again"))
}

#[allow(deprecated, reason = "older clients say what to apply again, newer ones what not")]
fn excluded(request: &ResetWorkflowExecutionRequest) -> Vec<Exclude> {
    let mut exclude: Vec<Exclude> = request.reset_reapply_exclude_types().collect();
    match request.reset_reapply_type() {
        ResetReapplyType::Signal => exclude.push(Exclude::Update),
        ResetReapplyType::None => exclude.extend([Exclude::Signal, Exclude::Update]),
        ResetReapplyType::Unspecified | ResetReapplyType::AllEligible => {}
    }
    exclude
}

/// A run's stored appends.
struct Appends(Vec<(i64, Vec<u8>)>);

impl Appends {
    fn events(&self) -> Result<Vec<HistoryEvent>, Status> {
        proto::events(&self.0.iter().map(|(_, data)| data).collect::<Vec<_>>())
    }

    /// Last event of the appends that end at or before `last`.
    fn whole_until(&self, last: i64) -> i64 {
        self.0.iter().map(|(end, _)| *end).filter(|end| *end <= last).max().unwrap_or(0)
    }
}

impl Engine {
    async fn latest(&self, workflow_id: &str) -> Result<Existing, Status> {
        sqlx::query_as("select run_id, status, request_id from engine.workflows where workflow_id = $1")
            .bind(workflow_id)
            .fetch_optional(&self.inner.store.pool)
            .await
            .map_err(db)?
            .ok_or_else(|| Status::not_found(format!("workflow not found for ID: {workflow_id}")))
    }

    async fn appends(&self, run: Uuid) -> Result<Appends, Status> {
        sqlx::query_as("select last_event_id, data from engine.history where run_id = $1 order by first_event_id")
            .bind(run)
            .fetch_all(&self.inner.store.pool)
            .await
            .map(Appends)
            .map_err(db)
    }

    async fn decide_reset(&self, plan: &ResetPlan, current: &Existing, request_id: &str) -> Result<Reset, Status> {
        // The open run first: the histories are read up to it or beyond, and beyond means that the write fails.
        let ended = self.end_for_reset(plan, current).await?;
        let appends = self.appends(plan.base_run_id).await?;
        let base = appends.events()?;
        let last = base.last().map_or(0, |e| e.event_id);
        if plan.finish_event_id <= 1 || plan.finish_event_id > last {
            return Err(Status::invalid_argument("Workflow task finish ID must be > 1 && <= workflow last event ID."));
        }
        let split = base.partition_point(|e| e.event_id < plan.finish_event_id);
        let (kept, after) = base.split_at(split);
        let mut later = after.to_vec();
        let visited = self.events_of_chain(plan.base_run_id, &mut later).await?;
        if let Some(ended) = ended.as_ref().filter(|_| visited == current.run_id) {
            later.extend(recorded::decoded(&ended.events)?);
        }
        let mut new = self.run_up_to(plan, kept, appends.whole_until(plan.finish_event_id - 1)).await?;
        new.reset(Replayed::of(kept), plan, &later, &self.names())?;
        Ok(Reset {
            start_time: new.now,
            new,
            ended,
            base_run_id: plan.base_run_id,
            current_run_id: current.run_id,
            request_id: request_id.to_owned(),
        })
    }

    /// The end of the open run, with no consequences for its children: the new run has them.
    async fn end_for_reset(&self, plan: &ResetPlan, current: &Existing) -> Result<Option<Transition>, Status> {
        if current.status != WorkflowExecutionStatus::Running as i16 {
            return Ok(None);
        }
        let Some(loaded) = self.inner.store.load(&Target::Run(current.run_id)).await? else {
            return Err(Status::aborted("the workflow has just closed, try again"));
        };
        let circumstances = self.circumstances(&loaded.run);
        let mut t = Transition::new(loaded, circumstances);
        t.terminate(plan.reason.clone(), None, RESETTER.to_owned(), &[], &self.inner.options.namespace)?;
        Ok(Some(t))
    }

    /// Adds the events of the runs that followed by continue-as-new. Returns the last of them.
    async fn events_of_chain(&self, base: Uuid, later: &mut Vec<HistoryEvent>) -> Result<Uuid, Status> {
        let mut run = base;
        for _ in 0..MAX_CHAIN {
            let next = match later.last().and_then(|e| e.attributes.as_ref()) {
                Some(A::WorkflowExecutionContinuedAsNewEventAttributes(a)) => proto::run_id(&a.new_execution_run_id)?,
                _ => None,
            };
            let Some(next) = next else { return Ok(run) };
            run = next;
            let events = self.appends(run).await?.events()?;
            if events.is_empty() {
                // No longer kept.
                return Ok(run);
            }
            later.extend(events);
        }
        Ok(run)
    }

    /// A new run whose history is `kept`; events after `whole` are its own, those before are copied.
    async fn run_up_to(&self, plan: &ResetPlan, kept: &[HistoryEvent], whole: i64) -> Result<Transition, Status> {
        let Some(A::WorkflowExecutionStartedEventAttributes(started)) = kept.first().and_then(|e| e.attributes.clone())
        else {
            return Err(Status::data_loss("the history does not begin with its first event"));
        };
        let run_id = Uuid::new_v4();
        // A run that nobody requested as a child is its own root.
        let (workflow_id, first_run_id, root_workflow_id, root_run_id): (String, Uuid, String, Uuid) = sqlx::query_as(
            "select workflow_id, first_run_id, root_workflow_id,
                 case when parent_run_id is null then $2 else root_run_id end
             from engine.executions where run_id = $1",
        )
        .bind(plan.base_run_id)
        .bind(run_id)
        .fetch_one(&self.inner.store.pool)
        .await
        .map_err(db)?;
        let (now, wall) = self.inner.clock.both();
        let execution_ms = proto::millis_or_zero(started.workflow_execution_timeout.as_ref());
        let run_ms = proto::millis_or_zero(started.workflow_run_timeout.as_ref());
        let execution_expires_at = proto::deadline(now, execution_ms);
        let task_queue = started.task_queue.unwrap_or_default().name;
        let run = Run {
            run_id,
            workflow_id,
            workflow_type: started.workflow_type.unwrap_or_default().name,
            first_run_id,
            // The end of the previous run is what its parent was told.
            parent_workflow_id: None,
            parent_run_id: None,
            parent_initiated_id: 0,
            root_workflow_id,
            root_run_id,
            revision: 0,
            last_event_id: whole,
            history_bytes: bytes(kept.iter().filter(|e| e.event_id <= whole)),
            buffered: Vec::new(),
            previous_started_id: 0,
            cancel_requested: false,
            open_children: 0,
            timeout_at: proto::earlier(proto::deadline(now, run_ms), execution_expires_at),
            execution_expires_at,
            wft_timeout_ms: proto::millis_or_zero(started.workflow_task_timeout.as_ref()),
            sticky_queue: None,
            sticky_process: None,
            sticky_timeout_ms: 0,
            wft_state: TaskState::None,
            wft_queue: task_queue.clone(),
            task_queue,
            wft_scheduled_id: 0,
            wft_attempt: 1,
            wft_base_id: 0,
            wft_scheduled_at: None,
            wft_started_at: None,
            wft_ready_at: None,
            wft_due_at: None,
            wft_process: None,
            wft_identity: String::new(),
            updates: Updates::default(),
        };
        let circumstances = Circumstances { process: self.inner.lease.process(), sticky_alive: false };
        let mut t = Transition::new(Loaded { run, now, wall }, circumstances);
        for event in kept.iter().filter(|e| e.event_id > whole) {
            t.append_event(event.clone());
        }
        Ok(t)
    }

    fn after_reset(&self, reset: &Reset) {
        if let Some(ended) = &reset.ended {
            self.inner.hot.take(ended.run.run_id);
            self.committed(ended);
        }
        self.committed(&reset.new);
        if let Some(at) = reset.new.run.timeout_at {
            self.inner.due.within((at - reset.new.now).to_std().unwrap_or_default());
        }
    }
}

fn bytes<'a>(events: impl Iterator<Item = &'a HistoryEvent>) -> i64 {
    i64::try_from(events.map(prost::Message::encoded_len).sum::<usize>()).unwrap_or(i64::MAX)
}
