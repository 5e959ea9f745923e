//! Which messages of a conversation are still being worked on.

use std::collections::BTreeMap;

use ambient_wire::{live::Event, runner_event::RunnerEvent};
use serde_json::Value;

use crate::commands::session::is_terminal;

/// Messages and turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Messages that were sent here and whose turns have not ended, with their runs, once these are told.
    ours: BTreeMap<String, Option<i64>>,
    /// Message of the turn in progress.
    current: Option<String>,
    /// Whether our next turn is to be interrupted when it begins.
    is_unwanted: bool,
}

impl Turns {
    /// A message was sent.
    pub(super) fn sent(&mut self, message: String) {
        self.ours.insert(message, None);
    }

    /// Whether an event tells of a message that was sent here.
    pub(super) fn is_ours(&self, event: &Event) -> bool {
        let message = event.data["message_id"].as_str().filter(|_| event.event_type == "user.message");
        message.is_some_and(|message| self.ours.contains_key(message))
    }

    /// Whether something is being worked on, or going to be.
    pub(super) fn are_open(&self) -> bool {
        self.current.is_some() || !self.ours.is_empty()
    }

    /// Whether a turn is in progress.
    pub(super) fn is_running(&self) -> bool {
        self.current.is_some()
    }

    /// The next turn that is ours is to end as it begins.
    pub(super) fn unwanted(&mut self) {
        self.is_unwanted = true;
    }

    /// Nothing was sent after all.
    pub(super) fn not_sent(&mut self) {
        self.is_unwanted = false;
    }

    /// Takes note of an event; whether the turn that has begun is unwanted.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let is_unwanted = self.note(event);
        self.is_unwanted &= self.are_open();
        is_unwanted
    }

    fn note(&mut self, event: &Event) -> bool {
        let data = &event.data;
        match event.event_type.as_str() {
            "user.message" => {
                let ours = data["message_id"].as_str().and_then(|message| self.ours.get_mut(message));
                if let Some(run) = ours {
                    *run = data["run"].as_i64();
                }
            }
            "session.messages_not_run" => {
                let not_run = data["message_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
                not_run.for_each(|message| {
                    self.ours.remove(message);
                });
            }
            "session.phase" if data["phase"].as_str().is_some_and(is_terminal) => {
                let ended = data["run"].as_i64();
                self.ours.retain(|_, run| run.is_none() || *run > ended);
                self.current = None;
            }
            "session.deleted" => *self = Self::default(),
            _ => match RunnerEvent::read(data) {
                Some(RunnerEvent::TurnStarted { message_id, .. }) => {
                    let is_ours = self.ours.contains_key(&message_id);
                    self.current = Some(message_id);
                    return is_ours && std::mem::take(&mut self.is_unwanted);
                }
                Some(RunnerEvent::TurnEnded { message_id, .. }) => {
                    self.ours.remove(&message_id);
                    self.current = None;
                }
                _ => {}
            },
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(event_type: &str, data: Value) -> Event {
        let mut data = data;
        data["type"] = json!(event_type);
        Event { seq: 1, event_type: event_type.to_owned(), data, at: chrono::DateTime::UNIX_EPOCH }
    }

    #[test]
    fn a_message_is_open_until_its_turn_or_its_run_has_ended() {
        let mut turns = Turns::default();
        let message = |id: &str, run: i64| event("user.message", json!({"message_id": id, "run": run}));
        for id in ["a", "b", "c"] {
            turns.sent(id.to_owned());
        }
        assert!(turns.is_ours(&message("a", 1)) && !turns.is_ours(&message("z", 1)));
        for (id, run) in [("a", 1), ("b", 1), ("c", 2)] {
            turns.take(&message(id, run));
        }
        assert!(!turns.take(&event("turn.started", json!({"turn_id": "s/1/1", "message_id": "a"}))));
        assert!(turns.is_running());
        let ended = json!({"turn_id": "s/1/1", "message_id": "a", "last_message_seq": 1, "outcome": "finished"});
        turns.take(&event("turn.ended", ended));
        assert!(!turns.is_running() && turns.are_open());
        turns.take(&event("session.phase", json!({"phase": "Stopped", "run": 1})));
        assert_eq!(turns.ours.keys().collect::<Vec<_>>(), ["c"]);
        turns.unwanted();
        assert!(turns.take(&event("turn.started", json!({"turn_id": "s/2/1", "message_id": "c"}))));
        turns.take(&event("session.messages_not_run", json!({"message_ids": ["c"]})));
        turns.take(&event("session.phase", json!({"phase": "Failed", "run": 2})));
        assert!(!turns.are_open());
        turns.sent("d".to_owned());
        turns.unwanted();
        turns.take(&event("session.messages_not_run", json!({"message_ids": ["d"]})));
        turns.sent("e".to_owned());
        let next = turns.take(&event("turn.started", json!({"turn_id": "s/3/1", "message_id": "e"})));
        assert!(!next, "what was not to be worked on is gone");
    }
}
