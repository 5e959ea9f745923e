//! A completed workflow task: its commands become events.

use temporalio_common::protos::temporal::api::enums::v1::RetryState;
use temporalio_common::protos::temporal::api::{
    command::v1::{Command, command::Attributes as C},
    common::v1::{Memo, SearchAttributes},
    enums::v1::{WorkflowExecutionStatus, WorkflowTaskFailedCause as Cause},
    history::v1::{
        HistoryEvent, MarkerRecordedEventAttributes, WorkflowExecutionCanceledEventAttributes,
        WorkflowExecutionCompletedEventAttributes, WorkflowExecutionFailedEventAttributes,
        WorkflowExecutionStartedEventAttributes, WorkflowTaskCompletedEventAttributes, history_event::Attributes as A,
    },
    protocol::v1::Message as ProtocolMessage,
    workflowservice::v1::RespondWorkflowTaskCompletedRequest,
};
use tonic::Status;

use super::{
    Transition,
    children::Names,
    continue_as_new::continue_as_new,
    properties::{upsert_memo, upsert_search_attributes},
};
use crate::{
    model::{Activity, Child, Run, TaskState},
    proto,
};

/// A completion that cannot be accepted as it is.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The workflow task failed, for this cause; the worker gets the message.
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

/// Rows that some commands need.
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

/// Which parts of [`Pending`] a completion needs: most need none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) activities: Activities,
    pub(crate) timers: bool,
    pub(crate) children: bool,
    pub(crate) started: bool,
    pub(crate) visibility: bool,
    pub(crate) ground: Ground,
}

/// Which activities a decision needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activities {
    #[default]
    None,
    All,
    /// The one that this event has scheduled, as it is stored.
    Stored(i64),
    /// For the one that this event has scheduled, what its worker was given: heartbeats and cancellation do not matter.
    Given(i64),
}

/// What a decision may be based on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Written changes. One that waits is written first.
    #[default]
    Written,
    /// A waiting change, too: both are written together. The decision may itself wait, where its request can.
    Unwritten,
}

impl Needs {
    /// Whether rows have to be read from the database, apart from those of one activity.
    pub(crate) fn reads(&self, run: &Run) -> bool {
        self.activities == Activities::All
            || self.timers
            || self.started
            || self.visibility
            || (self.children && run.open_children > 0)
    }

    pub(crate) fn of(commands: &[Command]) -> Self {
        let mut needs = Self::default();
        for command in commands {
            match &command.attributes {
                Some(C::RequestCancelActivityTaskCommandAttributes(_)) => needs.activities = Activities::All,
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

/// Applies a completion whose token has been checked. After an error the transition must not be used.
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
    if t.is_discarded_by(&request) {
        return discard(t, request);
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
    let mut messages = request.messages;
    for mut command in request.commands {
        if t.is_closed() {
            return Err(Refused::task(Cause::UnhandledCommand, "a command follows the one that closes the workflow"));
        }
        if let Some(C::ProtocolMessageCommandAttributes(a)) = &mut command.attributes {
            t.update_message(&take(&mut messages, &a.message_id)?)?;
        } else {
            apply(t, command, completed_id, &identity, pending, names)?;
        }
    }
    for message in messages {
        t.update_message(&message)?;
    }
    if t.is_closed() {
        return Ok(());
    }
    let heartbeat = request.force_create_new_workflow_task;
    let inline = request.return_new_workflow_task && t.run.sticky_queue.is_some();
    if !heartbeat {
        t.reject_unprocessed_updates();
    }
    t.redeliver_updates(heartbeat && inline);
    let news = t.flush_buffered()?;
    if news > 0 || heartbeat {
        t.ensure_task();
    } else {
        t.ensure_task_for_updates();
    }
    if inline && t.run.wft_state == TaskState::Scheduled {
        t.start_task(&identity);
    }
    Ok(())
}

/// The message a command stands for.
fn take(messages: &mut Vec<ProtocolMessage>, id: &str) -> Result<ProtocolMessage, Refused> {
    let Some(position) = messages.iter().position(|m| m.id == id) else {
        return Err(Refused::task(
            Cause::BadUpdateWorkflowExecutionMessage,
            format!("ProtocolMessageCommand referenced absent message ID {id}"),
        ));
    };
    Ok(messages.remove(position))
}

/// The speculative task came to nothing: no event says that it existed.
fn discard(t: &mut Transition, request: RespondWorkflowTaskCompletedRequest) -> Result<(), Refused> {
    t.clear_task();
    t.discarded_task = true;
    stick(t, request.sticky_attributes)?;
    for message in request.messages {
        t.update_message(&message)?;
    }
    t.reject_unprocessed_updates();
    t.redeliver_updates(false);
    t.ensure_task_for_updates();
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

/// The event a command becomes, with its text for people (summary, details).
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

/// Commands that are just an event, and the plain ways to close.
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
        C::ScheduleNexusOperationCommandAttributes(_) => return unsupported("ScheduleNexusOperation"),
        C::RequestCancelNexusOperationCommandAttributes(_) => return unsupported("RequestCancelNexusOperation"),
        _ => return unsupported("this command"),
    }
    Ok(())
}

pub(super) fn unsupported(command: &str) -> Result<(), Refused> {
    Err(Refused::task(Cause::FeatureDisabled, format!("{command} is not supported by this engine")))
}
