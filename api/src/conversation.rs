//! Messages, assembled from the events of a live log.

use ambient_domain::session::Session;
use ambient_persistence::StoredEvent;
use ambient_wire::session::Message;

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
        match event.event_type.as_str() {
            "user.message" | "TEXT_MESSAGE_START" if self.messages.len() == self.size => return Some(event.seq - 1),
            "user.message" => self.begin(event, text("message_id"), USER, text("text")),
            "TEXT_MESSAGE_START" => self.begin(event, text("messageId"), ASSISTANT, String::new()),
            "TEXT_MESSAGE_CONTENT" => {
                let id = text("messageId");
                if let Some(message) = self.messages.iter_mut().rev().find(|message| message.id == id) {
                    message.text.push_str(&text("delta"));
                }
            }
            _ => {}
        }
        None
    }

    fn begin(&mut self, event: &StoredEvent, id: String, role: &str, text: String) {
        self.messages.push(Message {
            kind: "Message".to_owned(),
            id,
            session_id: self.session_id.clone(),
            role: role.to_owned(),
            text,
            seq: event.seq,
            at: event.at,
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(seq: i64, event_type: &str, data: Value) -> StoredEvent {
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

    #[test]
    fn messages_of_both_sides_are_put_together_and_a_full_page_says_where_to_read_on() {
        let events = [
            event(1, "session.phase", json!({})),
            event(2, "user.message", json!({"message_id": "u1", "text": "hi"})),
            event(3, "TEXT_MESSAGE_START", json!({"messageId": "a1", "role": "assistant"})),
            event(4, "TEXT_MESSAGE_CONTENT", json!({"messageId": "a1", "delta": "hel"})),
            event(5, "TEXT_MESSAGE_CONTENT", json!({"messageId": "a1", "delta": "lo"})),
            event(6, "TEXT_MESSAGE_END", json!({"messageId": "a1"})),
            event(7, "user.message", json!({"message_id": "u2", "text": "more"})),
        ];
        let mut page = Page { size: 2, ..Page::default() };
        let next = events.iter().find_map(|event| page.take(event));
        let told: Vec<_> = page.messages.iter().map(|m| (m.seq, m.role.as_str(), m.text.as_str())).collect();
        assert_eq!(told, [(2, "user", "hi"), (3, "assistant", "hello")]);
        assert_eq!(next, Some(6));
    }
}
