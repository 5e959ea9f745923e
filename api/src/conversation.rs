//! Messages, assembled from the events of a live log.

use ambient_domain::session::Session;
use ambient_persistence::StoredEvent;

use ambient_wire::{
    runner_event::{RunnerEvent, content_in_words},
    session::Message,
};
use serde::Deserialize as _;

use crate::{
    authority::{Authorized, View},
    error::ApiResult,
};

/// Most events per read, and most reads per request: a page may be shorter than requested, but is never late.
const READ: i64 = 1_000;
const MAX_READS: usize = 20;

/// Who speaks in a conversation.
pub(crate) const ROLES: [&str; 2] = [USER, ASSISTANT];
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

/// Messages that started after `after_seq`, and where to continue: before the first one that is missing or incomplete.
pub(crate) async fn read(
    session: &Authorized<Session, View>,
    after_seq: i64,
    size: i64,
) -> ApiResult<(Vec<Message>, Option<i64>)> {
    let mut page =
        Page { session_id: session.get().id.clone(), size: usize::try_from(size).unwrap_or(0), ..Page::default() };
    let mut cursor = after_seq;
    for _ in 0..MAX_READS {
        let events = session.events(cursor, READ).await?;
        let Some(last) = events.last() else { return Ok((page.messages, None)) };
        cursor = last.seq;
        if let Some(next) = events.iter().find_map(|event| page.take(event)) {
            return Ok((page.messages, Some(next)));
        }
    }
    Ok((page.messages, Some(cursor)))
}

#[derive(Default)]
struct Page {
    session_id: String,
    size: usize,
    messages: Vec<Message>,
}

impl Page {
    /// Handles an event; returns a seq when the page is full: the next page starts after it.
    fn take(&mut self, event: &StoredEvent) -> Option<i64> {
        let text = |field: &str| event.data.get(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        // Earlier runners said where a message of the agent starts; now its first piece is marked.
        let starts = event.message_id.is_some() || event.event_type == "TEXT_MESSAGE_START";
        if starts && self.messages.len() == self.size {
            return Some(event.seq - 1);
        }
        match event.event_type.as_str() {
            "user.message" => self.begin(event, text("message_id"), USER, text("text")),
            "TEXT_MESSAGE_START" => self.begin(event, text("messageId"), ASSISTANT, String::new()),
            _ => match RunnerEvent::read(&event.data) {
                Some(RunnerEvent::AgentText { message_id, text }) => self.piece(event, message_id, &text),
                Some(RunnerEvent::AgentContent { message_id, content }) => {
                    self.piece(event, message_id, &content_in_words(&content));
                }
                _ => {}
            },
        }
        None
    }

    fn piece(&mut self, event: &StoredEvent, id: String, text: &str) {
        if event.message_id.is_some() {
            return self.begin(event, id, ASSISTANT, text.to_owned());
        }
        let of_agent = |message: &&mut Message| message.role == ASSISTANT && message.id == id;
        if let Some(message) = self.messages.iter_mut().rev().find(of_agent) {
            message.text.push_str(text);
        }
    }

    fn begin(&mut self, event: &StoredEvent, id: String, role: &str, text: String) {
        self.messages.push(Message {
            kind: "Message".to_owned(),
            id,
            session_id: self.session_id.clone(),
            role: role.to_owned(),
            text,
            // Of a person's message; nobody else's has any.
            attachments: Vec::deserialize(&event.data["attachments"]).unwrap_or_default(),
            seq: event.seq,
            at: event.at,
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(seq: i64, event_type: &str, mut data: Value) -> StoredEvent {
        data["type"] = event_type.into();
        StoredEvent {
            session_id: "s".to_owned(),
            seq,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            event_type: event_type.to_owned(),
            data,
            message_id: None,
            run: None,
            log_id: None,
            runner_seq: None,
            operation_id: None,
        }
    }

    /// With the mark of the event that starts a message.
    fn starts(seq: i64, event_type: &str, data: Value) -> StoredEvent {
        StoredEvent { message_id: Some(seq.to_string()), ..event(seq, event_type, data) }
    }

    #[test]
    fn messages_of_both_sides_are_put_together_and_a_full_page_says_where_to_read_on() {
        let user =
            |seq: i64, id: &str, text: &str| starts(seq, "user.message", json!({"message_id": id, "text": text}));
        let delta = |text: &str| json!({"messageId": "a1", "delta": text});
        let earlier = [
            event(1, "session.phase", json!({})),
            user(2, "u1", "hi"),
            event(3, "TEXT_MESSAGE_START", json!({"messageId": "a1", "role": "assistant"})),
            event(4, "TEXT_MESSAGE_CONTENT", delta("hel")),
            event(5, "TEXT_MESSAGE_CONTENT", delta("lo")),
            event(6, "TEXT_MESSAGE_END", json!({"messageId": "a1"})),
            user(7, "u2", "more"),
        ];
        let piece = |text: &str| json!({"message_id": "a1", "text": text});
        let today = [
            event(1, "agent.text", json!({"message_id": "before", "text": "belongs to the page before"})),
            user(2, "u1", "hi"),
            starts(3, "agent.text", piece("he")),
            event(4, "tool.output", json!({"tool_call_id": "c", "stream": "stdout", "text": "x"})),
            event(5, "agent.text", piece("llo")),
            event(6, "agent.thought", piece("hm")),
            starts(7, "agent.text", json!({"message_id": "a2", "text": "more"})),
        ];
        for events in [earlier, today] {
            let mut page = Page { size: 2, ..Page::default() };
            let next = events.iter().find_map(|event| page.take(event));
            let told: Vec<_> = page.messages.iter().map(|m| (m.seq, m.role.as_str(), m.text.as_str())).collect();
            assert_eq!(told, [(2, "user", "hi"), (3, "assistant", "hello")]);
            assert_eq!(next, Some(6));
        }
    }
}
