//! The run that a client has asked for, out of all the events of a session.

use ambient_wire::live::Event;
use serde_json::{Value, json};

use super::projector::frames::OURS;

/// Which run it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The first on a message.
    Message(String),
    /// The one that follows an interrupt.
    After(String),
}

/// Lets one run through, under the names that the client gave it.
#[derive(Debug)]
pub(super) struct OneRun {
    wanted: Wanted,
    thread_id: String,
    run_id: String,
    /// The interrupt was told: the next run is wanted.
    is_next: bool,
    within: bool,
    over: bool,
}

impl OneRun {
    pub(super) fn new(wanted: Wanted, thread_id: String, run_id: String) -> Self {
        Self { wanted, thread_id, run_id, is_next: false, within: false, over: false }
    }

    /// Nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// What of an event's AG-UI events belongs to the run.
    pub(super) fn take(&mut self, event: &Event, told: Vec<Value>) -> Vec<Value> {
        let mut kept: Vec<Value> = told.into_iter().filter_map(|told| self.pass(told)).collect();
        if !self.over && !self.within && self.is_hopeless(event) {
            self.over = true;
            let message = "the session's run ended before the agent came to the message";
            kept.push(json!({ "type": "RUN_ERROR", "message": message, "code": "NotRun", "timestamp": event.at.timestamp_millis() }));
        }
        kept
    }

    fn pass(&mut self, mut event: Value) -> Option<Value> {
        if self.over {
            return None;
        }
        let ends = matches!(event["type"].as_str(), Some("RUN_FINISHED" | "RUN_ERROR"));
        if !self.within {
            self.within = event["type"] == "RUN_STARTED" && self.is_wanted(&event);
            if !self.within {
                self.is_next |= ends && self.is_interrupt(&event);
                return None;
            }
        }
        self.over = ends;
        if matches!(&self.wanted, Wanted::Message(id) if event["messageId"] == **id) {
            // The client has its own message, under its own id.
            return None;
        }
        if event.get("runId").is_some() {
            event["runId"] = self.run_id.as_str().into();
            event["threadId"] = self.thread_id.as_str().into();
        }
        Some(event)
    }

    fn is_wanted(&self, started: &Value) -> bool {
        match &self.wanted {
            Wanted::Message(id) => started["metadata"][OURS]["messageId"] == **id,
            Wanted::After(_) => self.is_next,
        }
    }

    fn is_interrupt(&self, ended: &Value) -> bool {
        let Wanted::After(id) = &self.wanted else { return false };
        let interrupts = ended["outcome"]["interrupts"].as_array().into_iter().flatten();
        interrupts.into_iter().any(|interrupt| interrupt["id"] == **id)
    }

    /// Whether the run will not come: the session's own has ended.
    fn is_hopeless(&self, event: &Event) -> bool {
        match event.event_type.as_str() {
            "session.phase" => matches!(event.data["phase"].as_str(), Some("Stopped" | "Completed" | "Failed")),
            "session.deleted" => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::projector::Projector, *};

    /// What a client sees that asks for a run before anything of the log was read.
    fn seen(wanted: Wanted, log: &[Value]) -> (Vec<String>, bool) {
        let mut projector = Projector::new("s");
        let mut only = OneRun::new(wanted, "thread".to_owned(), "run".to_owned());
        let mut seen = Vec::new();
        for (seq, data) in (1..).zip(log) {
            let event_type = data["type"].as_str().unwrap().to_owned();
            let event = Event { seq, event_type, data: data.clone(), at: chrono::DateTime::UNIX_EPOCH };
            let told = projector.take(&event);
            seen.extend(only.take(&event, told));
        }
        let in_words = |event: &Value| {
            let detail = event["delta"].as_str().or(event["runId"].as_str()).or(event["code"].as_str());
            format!("{} {}", event["type"].as_str().unwrap(), detail.unwrap_or_default())
        };
        (seen.iter().map(in_words).collect(), only.is_over())
    }

    fn log() -> Vec<Value> {
        let request = json!({ "type": "permission.requested", "interrupt_id": "1-1-1", "turn_id": "t", "tool_call_id": "c",
            "title": "rm", "kind": "execute", "fingerprint": "f", "answers": ["once"] });
        let ended = |turn: &str| json!({ "type": "turn.ended", "turn_id": turn, "message_id": "u", "last_message_seq": 1, "outcome": "finished" });
        vec![
            json!({ "type": "turn.started", "turn_id": "t", "message_id": "u" }),
            json!({ "type": "user.message", "message_id": "v", "text": "mine" }),
            request,
            json!({ "type": "permission.closed", "interrupt_id": "1-1-1", "outcome": "answered", "answer": "once" }),
            json!({ "type": "agent.text", "message_id": "a", "text": "done" }),
            ended("t"),
            json!({ "type": "turn.started", "turn_id": "t2", "message_id": "v" }),
            ended("t2"),
            json!({ "type": "session.phase", "phase": "Stopped", "reason": "UserStopped", "message": "" }),
        ]
    }

    #[test]
    fn a_client_sees_the_run_on_its_message_or_the_one_after_its_interrupt_under_its_own_names() {
        let on_message = seen(Wanted::Message("v".to_owned()), &log());
        assert_eq!(on_message, (vec!["RUN_STARTED run".to_owned(), "RUN_FINISHED run".to_owned()], true));
        let (after, is_over) = seen(Wanted::After("1-1-1".to_owned()), &log());
        let told = [
            "RUN_STARTED run",
            "CUSTOM ",
            "TEXT_MESSAGE_START ",
            "TEXT_MESSAGE_CONTENT done",
            "TEXT_MESSAGE_END ",
            "RUN_FINISHED run",
        ];
        assert_eq!((after, is_over), (told.map(str::to_owned).to_vec(), true));
    }

    #[test]
    fn a_run_that_will_not_come_ends_in_an_error_and_one_that_may_is_waited_for() {
        let unknown = Wanted::Message("w".to_owned());
        assert_eq!(seen(unknown.clone(), &log()), (vec!["RUN_ERROR NotRun".to_owned()], true));
        assert_eq!(seen(unknown, &log()[..8]), (Vec::new(), false));
    }
}
