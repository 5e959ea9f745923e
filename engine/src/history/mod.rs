//! What can happen to a run.
//!
//! A [`Transition`] is the one way to change a run: it starts from the state that was read, collects the events and row
//! changes that follow from one request, and `store::commit` writes it unless there is a conflict. Everything in here is
//! pure: no I/O, no clock; the same state and request give the same transition.
//!
//! Invariants: event ids are dense; while a workflow task is in flight nothing is appended, events are buffered
//! ([`Transition::arrive`]) and follow the task's end; the Started event of the task in flight is written when it ends,
//! under the id reserved for it.

pub(crate) mod activities;
pub(crate) mod buffer;
pub(crate) mod children;
pub(crate) mod close;
pub(crate) mod commands;
mod continue_as_new;
pub(crate) mod external;
mod properties;
pub(crate) mod replay;
pub(crate) mod reset;
pub(crate) mod timers;
pub(crate) mod updates;
pub(crate) mod workflow_task;

use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes};

use crate::{
    model::{ActivityKey, ActivityRetry, NewChild, TaskState, Transition},
    proto,
    recorded::Recorded,
};

impl Transition {
    /// Appends an event and returns its id.
    pub(crate) fn append(&mut self, attributes: Attributes) -> i64 {
        self.append_event(proto::event(0, self.now, attributes))
    }

    /// Appends an event that may carry its own time and user metadata; its id is assigned here.
    pub(crate) fn append_event(&mut self, mut event: HistoryEvent) -> i64 {
        self.run.last_event_id += 1;
        event.event_id = self.run.last_event_id;
        let event = Recorded::new(&event);
        self.run.history_bytes += i64::try_from(event.bytes()).unwrap_or(0);
        self.events.push(event);
        self.run.last_event_id
    }

    /// Takes in an event from outside: appends it and makes sure there is a workflow task, or buffers it while one is in flight.
    /// Returns the id, 0 while it is unknown.
    pub(crate) fn arrive(&mut self, attributes: Attributes) -> i64 {
        let id = self.arrive_quietly(attributes);
        self.ensure_task();
        id
    }

    /// Like [`Self::arrive`], for an event that does not cause a workflow task (the next one will see it).
    pub(crate) fn arrive_quietly(&mut self, attributes: Attributes) -> i64 {
        if self.run.wft_state == TaskState::Started {
            self.buffer(attributes);
            0
        } else {
            self.append(attributes)
        }
    }
}
