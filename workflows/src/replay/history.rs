//! A history by itself: which execution it belongs to, and how much of it can be replayed.

use temporalio_common::protos::temporal::api::{
    enums::v1::EventType,
    history::v1::{History, HistoryEvent, WorkflowTaskStartedEventAttributes, history_event::Attributes},
};

/// A run's history with what it says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedHistory {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id.
    pub run_id: String,
    /// Workflow type.
    pub workflow: String,
    /// Task queue of its workflow tasks.
    pub task_queue: String,
    /// `Running`, `Completed`, `Failed`, `Canceled`, `Terminated`, `ContinuedAsNew` or `TimedOut`.
    pub status: &'static str,
    /// The events, from the first on.
    pub history: History,
}

impl RecordedHistory {
    /// Takes a recorded history. `known`: workflow id and run id as listed. A history need not contain them: one
    /// that was reset has the run id of the one it started as.
    ///
    /// # Errors
    /// What is wrong with it: a history starts with its start event, and has no gaps.
    pub fn new(history: History, known: Option<(&str, &str)>) -> Result<Self, String> {
        let first = history.events.first().and_then(|event| event.attributes.as_ref());
        let Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) = first else {
            return Err("the history does not begin with the workflow's start".to_owned());
        };
        if let Some((at, event)) =
            history.events.iter().zip(1_i64..).find_map(|(e, at)| (e.event_id != at).then_some((at, e)))
        {
            return Err(format!("event {} is where event {at} should be", event.event_id));
        }
        if started.original_execution_run_id.is_empty() {
            return Err("the workflow's start does not say its run id".to_owned());
        }
        let (workflow_id, run_id) = known.unwrap_or((&started.workflow_id, &started.original_execution_run_id));
        Ok(Self {
            workflow_id: workflow_id.to_owned(),
            run_id: run_id.to_owned(),
            workflow: started.workflow_type.as_ref().map_or_else(String::new, |t| t.name.clone()),
            task_queue: started.task_queue.as_ref().map_or_else(String::new, |q| q.name.clone()),
            status: status(history.events.last()),
            history,
        })
    }

    /// Where it comes from, for people.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{} run {}", self.workflow_id, self.run_id)
    }

    /// Everything the workflow decided, in order and in words: `activity launch-runner`.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        let completed = self.completed_tasks();
        completed.into_iter().flat_map(|task| self.commands_after(task)).map(in_words).collect()
    }

    /// Positions of the workflow tasks that came to an end.
    pub(super) fn completed_tasks(&self) -> Vec<usize> {
        let ends = self.history.events.iter().enumerate();
        ends.filter(|(_, e)| e.event_type() == EventType::WorkflowTaskCompleted).map(|(at, _)| at).collect()
    }

    /// What the program decided in the workflow task that ends at this position: the events that are its commands.
    pub(super) fn commands_after(&self, completed: usize) -> &[HistoryEvent] {
        let after = &self.history.events[completed + 1..];
        let count = after.iter().take_while(|event| is_command(event.event_type())).count();
        &after[..count]
    }

    /// The start of this history, up to and including the commands of the workflow task that ends at this position.
    pub(super) fn up_to(&self, completed: usize) -> History {
        let end = completed + 1 + self.commands_after(completed).len();
        History { events: self.history.events[..end].to_vec() }
    }
}

/// A history in the form the replayer needs to compare the commands of its last workflow task as well: the SDK
/// compares a task's commands only when it reaches the next task. None: the program has not decided anything in it yet.
pub(super) fn replayable(mut history: History) -> Option<History> {
    let events = &mut history.events;
    if !events.iter().any(|event| event.event_type() == EventType::WorkflowTaskCompleted) {
        return None;
    }
    if events.last().is_some_and(|event| is_own_end(event.event_type())) {
        return Some(history);
    }
    while events.last().is_some_and(|event| !decides_anew(event.event_type())) {
        events.pop();
    }
    let scheduled = events.last().map_or(1, |event| event.event_id + 1);
    let time = events.last().and_then(|event| event.event_time);
    let event = |event_id, event_type: EventType, attributes| HistoryEvent {
        event_id,
        event_time: time,
        event_type: event_type.into(),
        attributes: Some(attributes),
        ..HistoryEvent::default()
    };
    let task = Attributes::WorkflowTaskScheduledEventAttributes(Default::default());
    events.push(event(scheduled, EventType::WorkflowTaskScheduled, task));
    let started = WorkflowTaskStartedEventAttributes { scheduled_event_id: scheduled, ..Default::default() };
    let started = Attributes::WorkflowTaskStartedEventAttributes(started);
    events.push(event(scheduled + 1, EventType::WorkflowTaskStarted, started));
    Some(history)
}

/// Not a workflow task that led to nothing, and not an end that came from outside.
fn decides_anew(event_type: EventType) -> bool {
    !matches!(
        event_type,
        EventType::WorkflowTaskScheduled
            | EventType::WorkflowTaskStarted
            | EventType::WorkflowTaskFailed
            | EventType::WorkflowTaskTimedOut
            | EventType::WorkflowExecutionTerminated
            | EventType::WorkflowExecutionTimedOut
    )
}

/// An end that the workflow itself decided.
pub(super) fn is_own_end(event_type: EventType) -> bool {
    matches!(
        event_type,
        EventType::WorkflowExecutionCompleted
            | EventType::WorkflowExecutionFailed
            | EventType::WorkflowExecutionCanceled
            | EventType::WorkflowExecutionContinuedAsNew
    )
}

/// An event that is a workflow's command.
fn is_command(event_type: EventType) -> bool {
    is_own_end(event_type)
        || matches!(
            event_type,
            EventType::ActivityTaskScheduled
                | EventType::ActivityTaskCancelRequested
                | EventType::TimerStarted
                | EventType::TimerCanceled
                | EventType::MarkerRecorded
                | EventType::StartChildWorkflowExecutionInitiated
                | EventType::SignalExternalWorkflowExecutionInitiated
                | EventType::RequestCancelExternalWorkflowExecutionInitiated
                | EventType::UpsertWorkflowSearchAttributes
                | EventType::WorkflowPropertiesModified
                | EventType::WorkflowExecutionUpdateAccepted
                | EventType::WorkflowExecutionUpdateCompleted
        )
}

fn status(last: Option<&HistoryEvent>) -> &'static str {
    match last.map(HistoryEvent::event_type) {
        Some(EventType::WorkflowExecutionCompleted) => "Completed",
        Some(EventType::WorkflowExecutionFailed) => "Failed",
        Some(EventType::WorkflowExecutionCanceled) => "Canceled",
        Some(EventType::WorkflowExecutionTerminated) => "Terminated",
        Some(EventType::WorkflowExecutionContinuedAsNew) => "ContinuedAsNew",
        Some(EventType::WorkflowExecutionTimedOut) => "TimedOut",
        _ => "Running",
    }
}

/// A command in words: what it is and what it applies to.
pub(super) fn in_words(event: &HistoryEvent) -> String {
    use Attributes as A;
    let of = |name: Option<&String>| name.cloned().unwrap_or_default();
    match &event.attributes {
        Some(A::ActivityTaskScheduledEventAttributes(a)) => {
            format!("activity {}", of(a.activity_type.as_ref().map(|t| &t.name)))
        }
        Some(A::ActivityTaskCancelRequestedEventAttributes(a)) => {
            format!("cancellation of the activity of event {}", a.scheduled_event_id)
        }
        Some(A::TimerStartedEventAttributes(a)) => {
            let seconds = a.start_to_fire_timeout.map_or(0.0, |d| d.seconds as f64 + f64::from(d.nanos) / 1e9);
            format!("timer {} of {seconds} s", a.timer_id)
        }
        Some(A::TimerCanceledEventAttributes(a)) => format!("cancellation of timer {}", a.timer_id),
        Some(A::MarkerRecordedEventAttributes(a)) => format!("marker {}", a.marker_name),
        Some(A::StartChildWorkflowExecutionInitiatedEventAttributes(a)) => {
            format!("child workflow {}", of(a.workflow_type.as_ref().map(|t| &t.name)))
        }
        Some(A::SignalExternalWorkflowExecutionInitiatedEventAttributes(a)) => format!("signal {}", a.signal_name),
        _ => match event.event_type() {
            EventType::WorkflowExecutionCompleted => "completion of the workflow".to_owned(),
            EventType::WorkflowExecutionFailed => "failure of the workflow".to_owned(),
            EventType::WorkflowExecutionCanceled => "the workflow's end as cancelled".to_owned(),
            EventType::WorkflowExecutionContinuedAsNew => "continue-as-new".to_owned(),
            other => other.as_str_name().trim_start_matches("EVENT_TYPE_").to_lowercase().replace('_', " "),
        },
    }
}
