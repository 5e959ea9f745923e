//! Events that arrive while a workflow task is in flight.

use std::collections::HashMap;

use prost::Message;
use temporalio_common::protos::temporal::api::history::v1::{History, HistoryEvent, history_event::Attributes as A};
use tonic::Status;

use super::Transition;
use crate::proto;

/// Completions go last, so that a task sees what they complete first; this is the order Temporal's servers use.
fn is_completion(event: &HistoryEvent) -> bool {
    matches!(
        event.attributes,
        Some(
            A::ActivityTaskCompletedEventAttributes(_)
                | A::ActivityTaskFailedEventAttributes(_)
                | A::ActivityTaskTimedOutEventAttributes(_)
                | A::ActivityTaskCanceledEventAttributes(_)
                | A::ChildWorkflowExecutionCompletedEventAttributes(_)
                | A::ChildWorkflowExecutionFailedEventAttributes(_)
                | A::ChildWorkflowExecutionTimedOutEventAttributes(_)
                | A::ChildWorkflowExecutionCanceledEventAttributes(_)
                | A::ChildWorkflowExecutionTerminatedEventAttributes(_)
        )
    )
}

/// Ids that were not known while their events were buffered, by the event that scheduled or initiated.
#[derive(Default)]
struct StartedIds(HashMap<i64, i64>);

impl StartedIds {
    fn note(&mut self, event: &HistoryEvent, id: i64) {
        match &event.attributes {
            Some(A::ActivityTaskStartedEventAttributes(a)) => self.0.insert(a.scheduled_event_id, id),
            Some(A::ChildWorkflowExecutionStartedEventAttributes(a)) => self.0.insert(a.initiated_event_id, id),
            _ => None,
        };
    }

    fn fill(&self, event: &mut HistoryEvent) {
        let (by, started) = match &mut event.attributes {
            Some(A::ActivityTaskCompletedEventAttributes(a)) => (a.scheduled_event_id, &mut a.started_event_id),
            Some(A::ActivityTaskFailedEventAttributes(a)) => (a.scheduled_event_id, &mut a.started_event_id),
            Some(A::ActivityTaskTimedOutEventAttributes(a)) => (a.scheduled_event_id, &mut a.started_event_id),
            Some(A::ActivityTaskCanceledEventAttributes(a)) => (a.scheduled_event_id, &mut a.started_event_id),
            Some(A::ChildWorkflowExecutionCompletedEventAttributes(a)) => {
                (a.initiated_event_id, &mut a.started_event_id)
            }
            Some(A::ChildWorkflowExecutionFailedEventAttributes(a)) => (a.initiated_event_id, &mut a.started_event_id),
            Some(A::ChildWorkflowExecutionTimedOutEventAttributes(a)) => {
                (a.initiated_event_id, &mut a.started_event_id)
            }
            Some(A::ChildWorkflowExecutionCanceledEventAttributes(a)) => {
                (a.initiated_event_id, &mut a.started_event_id)
            }
            Some(A::ChildWorkflowExecutionTerminatedEventAttributes(a)) => {
                (a.initiated_event_id, &mut a.started_event_id)
            }
            _ => return,
        };
        if *started == 0
            && let Some(id) = self.0.get(&by)
        {
            *started = *id;
        }
    }
}

impl Transition {
    pub(crate) fn buffer(&mut self, attributes: A) {
        let event = proto::event(0, self.now, attributes);
        self.run.buffered.extend(History { events: vec![event] }.encode_to_vec());
    }

    pub(crate) fn has_buffered(&self) -> bool {
        !self.run.buffered.is_empty()
    }

    /// Appends the buffered events with their ids fixed up. Returns how many there were.
    pub(crate) fn flush_buffered(&mut self) -> Result<usize, Status> {
        let events = self.run.buffered_events()?;
        self.run.buffered.clear();
        let (last, first): (Vec<_>, Vec<_>) = events.into_iter().partition(is_completion);
        let mut started = StartedIds::default();
        let count = first.len() + last.len();
        for mut event in first.into_iter().chain(last) {
            started.fill(&mut event);
            let noted = event.clone();
            let id = self.append_event(event);
            started.note(&noted, id);
            self.note_child_started(&noted, id);
        }
        Ok(count)
    }

    /// Takes a fired timer out of the buffer again: it was cancelled before the workflow could see it.
    pub(crate) fn unbuffer_timer(&mut self, timer_id: &str) -> Result<Option<i64>, Status> {
        let mut events = self.run.buffered_events()?;
        let position = events
            .iter()
            .position(|e| matches!(&e.attributes, Some(A::TimerFiredEventAttributes(a)) if a.timer_id == timer_id));
        let Some(position) = position else { return Ok(None) };
        let fired = events.remove(position);
        self.run.buffered = if events.is_empty() { Vec::new() } else { History { events }.encode_to_vec() };
        Ok(match fired.attributes {
            Some(A::TimerFiredEventAttributes(a)) => Some(a.started_event_id),
            _ => None,
        })
    }
}
