//! The course of one history: what each event requires to have come before, and what is pending at the end.

mod events;

use std::collections::{BTreeMap, HashMap};

use prost_types::Timestamp;
use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowExecutionStatus as Status,
    history::v1::{HistoryEvent, history_event::Attributes as A},
};

use crate::proto;

/// Problems reported per run; what follows a first fault is often its consequence.
const MAX_PROBLEMS: usize = 20;

/// Something that was requested and has not ended: the event that began it, and the one that started it (0: none).
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub(super) name: String,
    pub(super) started: i64,
    pub(super) cancel_requested: i64,
}

/// The workflow task in progress in the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Task {
    #[default]
    None,
    Scheduled(i64),
    Started(i64, i64),
}

/// A history, as far as it has been read.
#[derive(Debug, Default)]
pub(super) struct Course {
    last: i64,
    /// Started event of the last completed workflow task, and its Completed event.
    pub(super) completed: (i64, i64),
    pub(super) task: Task,
    pub(super) activities: BTreeMap<i64, Pending>,
    pub(super) timers: HashMap<String, i64>,
    pub(super) children: BTreeMap<i64, Pending>,
    pub(super) signals: BTreeMap<i64, ()>,
    pub(super) cancels: BTreeMap<i64, ()>,
    updates: HashMap<String, i64>,
    /// Something the workflow has not been told since its last task was scheduled: the event.
    pub(super) unseen: Option<i64>,
    began_at: Option<(i64, i32)>,
    task_at: (i64, i32),
    closed: Option<(i64, Status, (i64, i32))>,
    problems: Vec<(Option<i64>, String)>,
}

fn moment(time: Option<&Timestamp>) -> (i64, i32) {
    time.map_or((0, 0), |t| (t.seconds, t.nanos))
}

impl Course {
    pub(super) fn last_event_id(&self) -> i64 {
        self.last
    }

    pub(super) fn note(&mut self, event: Option<i64>, what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push((event, what.into()));
        }
    }

    pub(super) fn into_problems(self) -> Vec<(Option<i64>, String)> {
        self.problems
    }

    fn need(&mut self, held: bool, event: i64, what: &str) {
        if !held {
            self.note(Some(event), what);
        }
    }

    /// Reads one append.
    pub(super) fn append(&mut self, first: i64, last: i64, data: &[u8]) {
        let events = match proto::events(&[data]) {
            Ok(events) => events,
            Err(status) => {
                self.note(Some(first), status.message());
                self.last = last;
                return;
            }
        };
        let ends = (events.first().map(|e| e.event_id), events.last().map(|e| e.event_id));
        if ends != (Some(first), Some(last)) {
            self.note(Some(first), format!("the append says {first} to {last} and holds {ends:?}"));
        }
        for event in &events {
            self.event(event);
        }
    }

    fn event(&mut self, event: &HistoryEvent) {
        let id = event.event_id;
        if id != self.last + 1 {
            self.note(Some(id), format!("event ids have a gap: {id} follows {}", self.last));
        }
        self.last = id;
        if let Some((closing, ..)) = self.closed {
            self.note(Some(id), format!("the event follows the one that closed the run ({closing})"));
        }
        self.time(event);
        let Some(attributes) = &event.attributes else {
            self.note(Some(id), "the event has no attributes");
            return;
        };
        if event.event_type != attributes.event_type() as i32 {
            self.note(Some(id), "the event's type is not that of its attributes");
        }
        let started = matches!(attributes, A::WorkflowExecutionStartedEventAttributes(_));
        self.need(started == (id == 1), id, "the first event, and only it, is WorkflowExecutionStarted");
        let ends_task = matches!(
            attributes,
            A::WorkflowTaskCompletedEventAttributes(_)
                | A::WorkflowTaskFailedEventAttributes(_)
                | A::WorkflowTaskTimedOutEventAttributes(_)
        );
        let in_flight = matches!(self.task, Task::Started(..));
        self.need(!in_flight || ends_task, id, "the event is within a workflow task that is in flight");
        self.apply(id, attributes, event.event_time.as_ref());
    }

    /// No event is older than the run. (Buffered events, and Started events of activities, keep the time at which they arrived.)
    fn time(&mut self, event: &HistoryEvent) {
        let at = moment(event.event_time.as_ref());
        if at == (0, 0) {
            self.note(Some(event.event_id), "the event has no time");
        }
        match self.began_at {
            None => self.began_at = Some(at),
            Some(began) if at < began => self.note(Some(event.event_id), "the event is older than its run"),
            Some(_) => {}
        }
    }

    /// Workflow tasks are in chronological order.
    fn task_time(&mut self, id: i64, time: Option<&Timestamp>) {
        let at = moment(time);
        if at < self.task_at {
            self.note(Some(id), "the workflow task's event is older than the one before");
        }
        self.task_at = at;
    }

    /// Whether the list of runs reports the same end.
    pub(super) fn compare_execution(
        &mut self,
        status: i16,
        closed_at: Option<chrono::DateTime<chrono::Utc>>,
        length: i64,
    ) {
        if self.last == 0 {
            self.note(None, "the run has no history");
            return;
        }
        let Some((id, closing, at)) = self.closed else {
            if status != 1 {
                self.note(Some(self.last), format!("the run's status is {status} and its history has no end"));
            }
            return;
        };
        if i32::from(status) != closing as i32 {
            self.note(Some(id), format!("the run's status is {status} and its history ends as {closing:?}"));
            return;
        }
        if length != self.last {
            self.note(
                Some(self.last),
                format!("the run's history has {} events and is said to have {length}", self.last),
            );
        }
        // The database keeps microseconds.
        let micros = at.0.saturating_mul(1_000_000).saturating_add(i64::from(at.1) / 1000);
        if closed_at.is_none_or(|closed| (closed.timestamp_micros() - micros).abs() > 1) {
            self.note(Some(id), "the run's close time is not that of its last event");
        }
    }
}
