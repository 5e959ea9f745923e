//! Reset: a new run that has another one's history up to a workflow task, and continues from there.
//!
//! The task at the reset point fails with cause `RESET_WORKFLOW`; what was still open then (activities, timers, children) is
//! open again; later signals and updates are reapplied; then there is a new workflow task.

use prost::Message;
use temporalio_common::protos::temporal::api::{
    command::v1::StartChildWorkflowExecutionCommandAttributes,
    enums::v1::{
        ParentClosePolicy, ResetReapplyExcludeType as Exclude, RetryState, UpdateAdmittedEventOrigin,
        WorkflowIdReusePolicy, WorkflowTaskFailedCause,
    },
    failure::v1::{Failure, ResetWorkflowFailureInfo, failure::FailureInfo},
    history::v1::{
        ActivityTaskFailedEventAttributes, HistoryEvent, WorkflowExecutionCancelRequestedEventAttributes,
        WorkflowExecutionSignaledEventAttributes, WorkflowExecutionUpdateAdmittedEventAttributes,
        WorkflowTaskFailedEventAttributes, WorkflowTaskStartedEventAttributes, history_event::Attributes as A,
    },
    update::v1::Request,
};
use tonic::Status;
use uuid::Uuid;

use super::{
    NewChild, Transition,
    children::Names,
    external::{cancel_for, signal_for},
    replay::{OpenActivity, OpenChild, Replayed, child_end},
};
use crate::{
    model::{Activity, EffectKind},
    proto,
};

/// The server's identity in events.
const SERVER: &str = "history-service";

/// What a reset should do.
#[derive(Clone, Debug)]
pub(crate) struct ResetPlan {
    pub(crate) base_run_id: Uuid,
    /// The event before it is the last one that is kept.
    pub(crate) finish_event_id: i64,
    pub(crate) reason: String,
    pub(crate) exclude: Vec<Exclude>,
}

impl ResetPlan {
    fn excludes(&self, kind: Exclude) -> bool {
        self.exclude.contains(&kind)
    }

    /// Whether nothing at all is reapplied.
    #[allow(deprecated, reason = "one of the kinds there are")]
    fn excludes_all(&self) -> bool {
        [Exclude::Signal, Exclude::Update, Exclude::Nexus, Exclude::CancelRequest].into_iter().all(|k| self.excludes(k))
    }
}

fn failure(reason: &str) -> Failure {
    Failure {
        message: reason.to_owned(),
        failure_info: Some(FailureInfo::ResetWorkflowFailureInfo(ResetWorkflowFailureInfo::default())),
        ..Default::default()
    }
}

impl Transition {
    /// Builds the new run: `self` holds its history up to the reset point, `state` is what that says, `later` what came
    /// afterwards.
    pub(crate) fn reset(
        &mut self,
        mut state: Replayed,
        plan: &ResetPlan,
        later: &[HistoryEvent],
        names: &Names<'_>,
    ) -> Result<(), Status> {
        self.fail_task_at_reset(&state, plan)?;
        self.fail_started_activities(&mut state, plan);
        self.reopen_updates(&state);
        if !plan.excludes_all() {
            for event in later {
                self.reapply(&mut state, plan, event);
            }
        }
        self.reopen(state, names)?;
        self.ensure_task();
        Ok(())
    }

    fn fail_task_at_reset(&mut self, state: &Replayed, plan: &ResetPlan) -> Result<(), Status> {
        let Some(task) = state.task else {
            return Err(Status::invalid_argument(format!(
                "Can only reset workflow to event ID in range [WorkflowTaskScheduled +1, WorkflowTaskStarted + 1]: {}",
                plan.finish_event_id
            )));
        };
        let mut started_event_id = task.started_event_id;
        if started_event_id == 0 {
            started_event_id = self.append(A::WorkflowTaskStartedEventAttributes(WorkflowTaskStartedEventAttributes {
                scheduled_event_id: task.scheduled_event_id,
                identity: SERVER.to_owned(),
                history_size_bytes: self.run.history_bytes,
                ..Default::default()
            }));
        }
        self.append(A::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
            scheduled_event_id: task.scheduled_event_id,
            started_event_id,
            cause: WorkflowTaskFailedCause::ResetWorkflow as i32,
            failure: Some(failure(&plan.reason)),
            identity: SERVER.to_owned(),
            base_run_id: plan.base_run_id.to_string(),
            new_run_id: self.run.run_id.to_string(),
            ..Default::default()
        }));
        Ok(())
    }

    /// An attempt that the history knows to be running belongs to the other run.
    fn fail_started_activities(&mut self, state: &mut Replayed, plan: &ResetPlan) {
        state.activities.retain(|scheduled_event_id, activity| {
            let Some((started_event_id, identity)) = activity.started.clone() else { return true };
            self.append(A::ActivityTaskFailedEventAttributes(ActivityTaskFailedEventAttributes {
                failure: Some(failure(&plan.reason)),
                scheduled_event_id: *scheduled_event_id,
                started_event_id,
                identity,
                retry_state: RetryState::NonRetryableFailure as i32,
                ..Default::default()
            }));
            false
        });
    }

    fn reopen_updates(&mut self, state: &Replayed) {
        for id in &state.admitted {
            self.hold_update(id, None, Uuid::new_v4());
        }
        for update in state.updates.values() {
            self.reopen_update(update);
        }
    }

    fn reapply(&mut self, state: &mut Replayed, plan: &ResetPlan, event: &HistoryEvent) {
        match &event.attributes {
            Some(A::WorkflowExecutionSignaledEventAttributes(a)) if !plan.excludes(Exclude::Signal) => {
                self.append(A::WorkflowExecutionSignaledEventAttributes(WorkflowExecutionSignaledEventAttributes {
                    signal_name: a.signal_name.clone(),
                    input: a.input.clone(),
                    identity: a.identity.clone(),
                    header: a.header.clone(),
                    ..Default::default()
                }));
            }
            Some(A::WorkflowExecutionUpdateAdmittedEventAttributes(a)) if !plan.excludes(Exclude::Update) => {
                self.admit_again(a.request.as_ref(), a.origin());
            }
            // If it has no request, its Admitted event's one has been applied.
            Some(A::WorkflowExecutionUpdateAcceptedEventAttributes(a)) if !plan.excludes(Exclude::Update) => {
                self.admit_again(a.accepted_request.as_ref(), UpdateAdmittedEventOrigin::Reapply);
            }
            Some(attributes) => self.reapply_child(state, attributes),
            None => {}
        }
    }

    fn admit_again(&mut self, request: Option<&Request>, origin: UpdateAdmittedEventOrigin) {
        let Some(request) = request else { return };
        self.append(A::WorkflowExecutionUpdateAdmittedEventAttributes(
            WorkflowExecutionUpdateAdmittedEventAttributes { request: Some(request.clone()), origin: origin as i32 },
        ));
        let id = request.meta.as_ref().map_or("", |m| m.update_id.as_str());
        self.hold_update(id, None, Uuid::new_v4());
    }

    /// An event about a child that was open at the reset point.
    fn reapply_child(&mut self, state: &mut Replayed, attributes: &A) {
        if let A::ChildWorkflowExecutionStartedEventAttributes(a) = attributes {
            if let Some(child) = state.children.get_mut(&a.initiated_event_id).filter(|c| c.started.is_none()) {
                let run = a.workflow_execution.as_ref().and_then(|e| Uuid::parse_str(&e.run_id).ok());
                let id = self.append(attributes.clone());
                child.started = Some((id, run.unwrap_or_default()));
            }
            return;
        }
        let Some(initiated) = child_end(attributes) else { return };
        let Some(child) = state.children.remove(&initiated) else { return };
        let mut attributes = attributes.clone();
        super::children::fill_started(&mut attributes, child.started.map_or(0, |(id, _)| id));
        self.append(attributes);
    }

    /// What is still open gets its rows, and its work is owed again.
    fn reopen(&mut self, state: Replayed, names: &Names<'_>) -> Result<(), Status> {
        self.run.cancel_requested = state.cancel_requested;
        self.run.previous_started_id = state.previous_started_id;
        self.memo = Some(state.memo);
        self.search_attributes = Some(state.search_attributes);
        for (scheduled_event_id, activity) in state.activities {
            let row = self.reopened_activity(scheduled_event_id, &activity)?;
            self.new_activities.push(row);
        }
        for (timer_id, (started_event_id, fires)) in state.timers {
            self.new_timers.push((timer_id, started_event_id, fires));
        }
        for (initiated_event_id, child) in state.children {
            self.reopen_child(initiated_event_id, child, names);
        }
        for (initiated, a) in state.signals {
            let target = a.workflow_execution.clone().unwrap_or_default();
            let event = signal_for(&self.run, a.signal_name, a.input, a.header);
            self.owe(EffectKind::SignalExternal, initiated, target, event, a.child_workflow_only);
        }
        for (initiated, a) in state.cancels {
            let target = a.workflow_execution.clone().unwrap_or_default();
            let event: WorkflowExecutionCancelRequestedEventAttributes = cancel_for(&self.run, a.reason, initiated);
            let event = A::WorkflowExecutionCancelRequestedEventAttributes(event);
            self.owe(EffectKind::CancelExternal, initiated, target, event, a.child_workflow_only);
        }
        Ok(())
    }

    fn reopened_activity(&self, scheduled_event_id: i64, open: &OpenActivity) -> Result<Activity, Status> {
        let a = &open.attributes;
        let ms = |d: &Option<prost_types::Duration>| proto::millis_or_zero(d.as_ref());
        let start_by = proto::deadline(self.now, ms(&a.schedule_to_start_timeout));
        let expires_at = proto::deadline(self.now, ms(&a.schedule_to_close_timeout));
        Ok(Activity {
            run_id: self.run.run_id,
            scheduled_event_id,
            activity_id: a.activity_id.clone(),
            activity_type: a.activity_type.clone().unwrap_or_default().name,
            task_queue: a.task_queue.clone().unwrap_or_default().name,
            workflow_id: self.run.workflow_id.clone(),
            workflow_type: self.run.workflow_type.clone(),
            state: 0,
            attempt: 1,
            attributes: a.encode_to_vec(),
            start_to_close_ms: ms(&a.start_to_close_timeout),
            heartbeat_ms: ms(&a.heartbeat_timeout),
            scheduled_at: self.now,
            visible_at: self.now,
            start_by,
            expires_at,
            started_at: None,
            ended_at: None,
            heartbeat_at: None,
            heartbeat_details: Vec::new(),
            last_failure: Vec::new(),
            cancel_requested_id: open.cancel_requested_id,
            identity: String::new(),
            process: None,
            due_at: proto::earlier(start_by, expires_at),
        })
    }

    fn reopen_child(&mut self, initiated_event_id: i64, child: OpenChild, names: &Names<'_>) {
        let a = child.attributes;
        self.run.open_children += 1;
        self.new_children.push(NewChild {
            initiated_event_id,
            workflow_id: a.workflow_id.clone(),
            workflow_type: a.workflow_type.clone().unwrap_or_default().name,
            close_policy: i16::try_from(a.parent_close_policy).unwrap_or(ParentClosePolicy::Terminate as i16),
            started: child.started,
        });
        if child.started.is_some() {
            return;
        }
        let reuse = WorkflowIdReusePolicy::try_from(a.workflow_id_reuse_policy).unwrap_or_default();
        let task_queue = a.task_queue.clone().unwrap_or_default().name;
        let command = StartChildWorkflowExecutionCommandAttributes {
            workflow_id: a.workflow_id,
            workflow_type: a.workflow_type,
            task_queue: a.task_queue,
            input: a.input,
            workflow_execution_timeout: a.workflow_execution_timeout,
            workflow_run_timeout: a.workflow_run_timeout,
            workflow_task_timeout: a.workflow_task_timeout,
            parent_close_policy: a.parent_close_policy,
            workflow_id_reuse_policy: a.workflow_id_reuse_policy,
            header: a.header,
            memo: a.memo,
            search_attributes: a.search_attributes,
            priority: a.priority,
            ..Default::default()
        };
        self.owe_child_start(command, &task_queue, initiated_event_id, reuse, names);
    }
}
