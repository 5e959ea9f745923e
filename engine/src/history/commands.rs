//! A completed workflow task: its commands become events.

use std::collections::HashMap;

use temporalio_common::protos::temporal::api::enums::v1::RetryState;
use temporalio_common::protos::temporal::api::{
    command::v1::{Command, ContinueAsNewWorkflowExecutionCommandAttributes, command::Attributes as C},
    common::v1::{Memo, SearchAttributes},
    enums::v1::{WorkflowExecutionStatus, WorkflowTaskFailedCause as Cause},
    history::v1::{
        HistoryEvent, MarkerRecordedEventAttributes, UpsertWorkflowSearchAttributesEventAttributes,
        WorkflowExecutionCanceledEventAttributes, WorkflowExecutionCompletedEventAttributes,
        WorkflowExecutionContinuedAsNewEventAttributes, WorkflowExecutionFailedEventAttributes,
        WorkflowExecutionStartedEventAttributes, WorkflowPropertiesModifiedEventAttributes,
        WorkflowTaskCompletedEventAttributes, history_event::Attributes as A,
    },
    workflowservice::v1::RespondWorkflowTaskCompletedRequest,
};
use tonic::Status;
use uuid::Uuid;

use super::{Transition, children::Names};
use crate::{
    proto,
    store::{Activity, Child, NewRun, start::Parent},
};

/// A completion that cannot be accepted as it is.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The workflow task failed, for this cause; the worker is told the message.
    Task { cause: Cause, message: String },
    /// Nothing happened.
    Status(Status),
}

impl Refused {
    pub(crate) fn task(cause: Cause, message: impl Into<String>) -> Self {
        Self::Task { cause, message: message.into() }
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Rows that some commands need to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    pub(crate) activities: Vec<Activity>,
    pub(crate) timers: Vec<(String, i64)>,
    pub(crate) children: Vec<Child>,
    /// Attributes of the run's first event (for continue-as-new) and what has been upserted since.
    pub(crate) started: Option<Box<WorkflowExecutionStartedEventAttributes>>,
    pub(crate) memo: Memo,
    pub(crate) search_attributes: SearchAttributes,
}

/// Which of [`Pending`] a completion needs: most need nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) activities: bool,
    /// Only the activity scheduled by this event.
    pub(crate) activity: Option<i64>,
    /// Of that activity only what its worker was given: heartbeats and cancellation do not matter.
    pub(crate) activity_start_only: bool,
    pub(crate) timers: bool,
    pub(crate) children: bool,
    pub(crate) started: bool,
    pub(crate) visibility: bool,
}

impl Needs {
    pub(crate) fn of(commands: &[Command]) -> Self {
        let mut needs = Self::default();
        for command in commands {
            match &command.attributes {
                Some(C::RequestCancelActivityTaskCommandAttributes(_)) => needs.activities = true,
                Some(C::CancelTimerCommandAttributes(_)) => needs.timers = true,
                Some(C::ContinueAsNewWorkflowExecutionCommandAttributes(_)) => {
                    needs.started = true;
                    needs.visibility = true;
                    needs.children = true;
                }
                Some(
                    C::UpsertWorkflowSearchAttributesCommandAttributes(_)
                    | C::ModifyWorkflowPropertiesCommandAttributes(_),
                ) => needs.visibility = true,
                Some(command) if closes(command) => needs.children = true,
                _ => {}
            }
        }
        needs
    }
}

fn closes(command: &C) -> bool {
    matches!(
        command,
        C::CompleteWorkflowExecutionCommandAttributes(_)
            | C::FailWorkflowExecutionCommandAttributes(_)
            | C::CancelWorkflowExecutionCommandAttributes(_)
            | C::ContinueAsNewWorkflowExecutionCommandAttributes(_)
    )
}

/// Applies a completion whose token has been checked. On an error the transition is spoilt.
pub(crate) fn complete(
    t: &mut Transition,
    request: RespondWorkflowTaskCompletedRequest,
    pending: &Pending,
    names: &Names<'_>,
) -> Result<(), Refused> {
    let closing = request.commands.iter().any(|c| c.attributes.as_ref().is_some_and(closes));
    if closing && t.has_buffered() {
        return Err(Refused::task(Cause::UnhandledCommand, "UnhandledCommand"));
    }
    let identity = request.identity;
    let (scheduled_event_id, started_event_id) = t.write_task_start();
    #[allow(deprecated, reason = "part of the history of workers that still send it")]
    let completed = WorkflowTaskCompletedEventAttributes {
        scheduled_event_id,
        started_event_id,
        identity: identity.clone(),
        binary_checksum: request.binary_checksum,
        sdk_metadata: request.sdk_metadata,
        metering_metadata: request.metering_metadata,
        ..Default::default()
    };
    let completed_id = t.append(A::WorkflowTaskCompletedEventAttributes(completed));
    t.run.previous_started_id = started_event_id;
    t.clear_task();
    t.run.wft_attempt = 1;
    stick(t, request.sticky_attributes)?;
    for command in request.commands {
        if t.is_closed() {
            return Err(Refused::task(Cause::UnhandledCommand, "a command follows the one that closes the workflow"));
        }
        apply(t, command, completed_id, &identity, pending, names)?;
    }
    if t.is_closed() {
        return Ok(());
    }
    let news = t.flush_buffered()?;
    if news > 0 || request.force_create_new_workflow_task {
        t.ensure_task();
        if request.return_new_workflow_task && t.run.sticky_queue.is_some() {
            t.start_task(&identity);
        }
    }
    Ok(())
}

fn stick(
    t: &mut Transition,
    sticky: Option<temporalio_common::protos::temporal::api::taskqueue::v1::StickyExecutionAttributes>,
) -> Result<(), Refused> {
    let timeout =
        proto::millis(sticky.as_ref().and_then(|s| s.schedule_to_start_timeout.as_ref()), "schedule_to_start_timeout")?;
    let queue = sticky.and_then(|s| s.worker_task_queue).map(|q| q.name).filter(|n| !n.is_empty());
    if let Some(name) = &queue {
        proto::name(name, "sticky_attributes.worker_task_queue")?;
    }
    t.run.sticky_process = queue.as_ref().map(|_| t.circumstances.process);
    t.run.sticky_queue = queue;
    t.run.sticky_timeout_ms = if timeout > 0 { timeout } else { 5000 };
    // Whoever answers this task polls its own queue.
    t.circumstances.sticky_alive = true;
    Ok(())
}

/// The event a command becomes, with what it carries for people (summary, details).
fn event_of(t: &Transition, command: &mut Command, attributes: Option<A>) -> HistoryEvent {
    let mut event = HistoryEvent {
        event_time: Some(proto::timestamp(t.now)),
        user_metadata: command.user_metadata.take(),
        event_group_markers: std::mem::take(&mut command.event_group_markers),
        ..Default::default()
    };
    if let Some(attributes) = attributes {
        event.event_type = attributes.event_type() as i32;
        event.attributes = Some(attributes);
    }
    event
}

fn apply(
    t: &mut Transition,
    mut command: Command,
    completed_id: i64,
    identity: &str,
    pending: &Pending,
    names: &Names<'_>,
) -> Result<(), Refused> {
    use temporalio_common::protos::temporal::api::enums::v1::EventType;
    let attributes = command.attributes.take();
    let mut event = event_of(t, &mut command, None);
    let mut typed = |kind: EventType| {
        event.event_type = kind as i32;
        event.clone()
    };
    match attributes {
        Some(C::ScheduleActivityTaskCommandAttributes(a)) => {
            t.schedule_activity(a, typed(EventType::ActivityTaskScheduled), completed_id, identity)
        }
        Some(C::RequestCancelActivityTaskCommandAttributes(a)) => {
            t.request_cancel_activity(&a, completed_id, &pending.activities)
        }
        Some(C::StartTimerCommandAttributes(a)) => t.start_timer(a, typed(EventType::TimerStarted), completed_id),
        Some(C::CancelTimerCommandAttributes(a)) => t.cancel_timer(&a, completed_id, identity, &pending.timers),
        Some(C::StartChildWorkflowExecutionCommandAttributes(a)) => {
            t.initiate_child(a, typed(EventType::StartChildWorkflowExecutionInitiated), completed_id, names)
        }
        Some(C::SignalExternalWorkflowExecutionCommandAttributes(a)) => {
            t.signal_external(a, typed(EventType::SignalExternalWorkflowExecutionInitiated), completed_id, names)
        }
        Some(C::RequestCancelExternalWorkflowExecutionCommandAttributes(a)) => {
            t.cancel_external(a, typed(EventType::RequestCancelExternalWorkflowExecutionInitiated), completed_id, names)
        }
        Some(C::ContinueAsNewWorkflowExecutionCommandAttributes(a)) => {
            continue_as_new(t, a, completed_id, pending, names)
        }
        Some(other) => record_or_close(t, other, command, completed_id, pending, names),
        None => Err(Refused::Status(Status::invalid_argument("command without attributes"))),
    }
}

/// Commands that are an event and no more, and the plain ways to close.
fn record_or_close(
    t: &mut Transition,
    attributes: C,
    mut command: Command,
    completed_id: i64,
    pending: &Pending,
    names: &Names<'_>,
) -> Result<(), Refused> {
    let id = completed_id;
    match attributes {
        C::RecordMarkerCommandAttributes(a) => {
            let refuse = |s: Status| Refused::task(Cause::BadRecordMarkerAttributes, s.message());
            proto::name(&a.marker_name, "marker_name").map_err(refuse)?;
            let marker = A::MarkerRecordedEventAttributes(MarkerRecordedEventAttributes {
                marker_name: a.marker_name,
                details: a.details,
                workflow_task_completed_event_id: id,
                header: a.header,
                failure: a.failure,
            });
            let event = event_of(t, &mut command, Some(marker));
            t.append_event(event);
        }
        C::UpsertWorkflowSearchAttributesCommandAttributes(a) => {
            upsert_search_attributes(t, a.search_attributes, id, pending);
        }
        C::ModifyWorkflowPropertiesCommandAttributes(a) => upsert_memo(t, a.upserted_memo, id, pending),
        C::CompleteWorkflowExecutionCommandAttributes(a) => {
            let attributes = WorkflowExecutionCompletedEventAttributes {
                result: a.result,
                workflow_task_completed_event_id: id,
                ..Default::default()
            };
            let event = A::WorkflowExecutionCompletedEventAttributes(attributes);
            t.close(WorkflowExecutionStatus::Completed, event, &pending.children, names.namespace);
        }
        C::FailWorkflowExecutionCommandAttributes(a) => {
            let attributes = WorkflowExecutionFailedEventAttributes {
                failure: a.failure,
                retry_state: RetryState::RetryPolicyNotSet as i32,
                workflow_task_completed_event_id: id,
                ..Default::default()
            };
            let event = A::WorkflowExecutionFailedEventAttributes(attributes);
            t.close(WorkflowExecutionStatus::Failed, event, &pending.children, names.namespace);
        }
        C::CancelWorkflowExecutionCommandAttributes(a) => {
            let attributes =
                WorkflowExecutionCanceledEventAttributes { workflow_task_completed_event_id: id, details: a.details };
            let event = A::WorkflowExecutionCanceledEventAttributes(attributes);
            t.close(WorkflowExecutionStatus::Canceled, event, &pending.children, names.namespace);
        }
        C::ProtocolMessageCommandAttributes(_) => return unsupported("ProtocolMessage (workflow update)"),
        C::ScheduleNexusOperationCommandAttributes(_) => return unsupported("ScheduleNexusOperation"),
        C::RequestCancelNexusOperationCommandAttributes(_) => return unsupported("RequestCancelNexusOperation"),
        _ => return unsupported("this command"),
    }
    Ok(())
}

fn unsupported(command: &str) -> Result<(), Refused> {
    Err(Refused::task(Cause::FeatureDisabled, format!("{command} is not supported by this engine")))
}

/// Null removes a key, as for memo and search attributes on Temporal's servers.
fn merge<V: Clone>(into: &mut HashMap<String, V>, from: &HashMap<String, V>, is_null: impl Fn(&V) -> bool) {
    for (key, value) in from {
        if is_null(value) {
            into.remove(key);
        } else {
            into.insert(key.clone(), value.clone());
        }
    }
}

fn is_null(payload: &temporalio_common::protos::temporal::api::common::v1::Payload) -> bool {
    payload.metadata.get("encoding").is_some_and(|e| e == b"binary/null") || payload.data == b"null"
}

fn upsert_search_attributes(t: &mut Transition, upsert: Option<SearchAttributes>, id: i64, pending: &Pending) {
    let mut now = t.search_attributes.take().unwrap_or_else(|| pending.search_attributes.clone());
    merge(&mut now.indexed_fields, &upsert.clone().unwrap_or_default().indexed_fields, is_null);
    t.search_attributes = Some(now);
    t.append(A::UpsertWorkflowSearchAttributesEventAttributes(UpsertWorkflowSearchAttributesEventAttributes {
        workflow_task_completed_event_id: id,
        search_attributes: upsert,
    }));
}

fn upsert_memo(t: &mut Transition, upsert: Option<Memo>, id: i64, pending: &Pending) {
    let mut now = t.memo.take().unwrap_or_else(|| pending.memo.clone());
    merge(&mut now.fields, &upsert.clone().unwrap_or_default().fields, is_null);
    t.memo = Some(now);
    t.append(A::WorkflowPropertiesModifiedEventAttributes(WorkflowPropertiesModifiedEventAttributes {
        workflow_task_completed_event_id: id,
        upserted_memo: upsert,
    }));
}

fn continue_as_new(
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
    let workflow_type = command.workflow_type.filter(|w| !w.name.is_empty()).or_else(|| before.workflow_type.clone());
    let task_queue = command.task_queue.map(|q| q.name).filter(|n| !n.is_empty());
    let task_queue = task_queue.unwrap_or_else(|| t.run.task_queue.clone());
    proto::name(&task_queue, "task_queue").map_err(refuse)?;
    let new_run_id = Uuid::new_v4();
    let memo = command.memo.or_else(|| Some(t.memo.clone().unwrap_or_else(|| pending.memo.clone())));
    let search_attributes = command
        .search_attributes
        .or_else(|| Some(t.search_attributes.clone().unwrap_or_else(|| pending.search_attributes.clone())));
    let run_timeout = if run_timeout > 0 { Some(proto::duration(run_timeout)) } else { before.workflow_run_timeout };
    let task_timeout = proto::duration(if task_timeout > 0 { task_timeout } else { t.run.wft_timeout_ms });
    let attributes = WorkflowExecutionStartedEventAttributes {
        workflow_type: workflow_type.clone(),
        task_queue: Some(proto::queue(&task_queue)),
        input: command.input.clone(),
        workflow_run_timeout: run_timeout,
        workflow_task_timeout: Some(task_timeout),
        continued_execution_run_id: t.run.run_id.to_string(),
        initiator: command.initiator,
        continued_failure: command.failure,
        last_completion_result: command.last_completion_result.clone(),
        original_execution_run_id: new_run_id.to_string(),
        header: command.header.clone(),
        memo: memo.clone(),
        search_attributes: search_attributes.clone(),
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
        workflow_run_timeout: run_timeout,
        workflow_task_timeout: Some(task_timeout),
        workflow_task_completed_event_id: completed_id,
        initiator: command.initiator,
        last_completion_result: command.last_completion_result,
        header: command.header,
        memo,
        search_attributes,
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
