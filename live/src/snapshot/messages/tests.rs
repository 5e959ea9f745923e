use std::collections::HashSet;

use proptest::{collection::vec, prelude::*};

use super::*;

/// Numbered from 1; where a message begins is marked as the store does it.
fn stored(events: Vec<Value>) -> Vec<StoredEvent> {
    let mut seen = HashSet::new();
    let mut stored = |(seq, data): (i64, Value)| {
        let event_type = data["type"].as_str().unwrap().to_owned();
        let id = data["message_id"].as_str().unwrap_or_default().to_owned();
        let is_message = ["user.message", "agent.text", "agent.content"].contains(&event_type.as_str());
        StoredEvent {
            session_id: "s".to_owned(),
            seq,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            event_type,
            data,
            message_id: (is_message && seen.insert(id.clone())).then_some(id),
            run: None,
            log_id: None,
            runner_seq: None,
            operation_id: None,
        }
    };
    (1..).zip(events).map(&mut stored).collect()
}

fn gathered(events: &[StoredEvent]) -> Value {
    let mut messages = Messages::default();
    events.iter().for_each(|event| messages.see(event));
    messages.into_data()
}

#[test]
fn what_is_said_called_and_returned_becomes_messages_and_what_is_thought_does_not() {
    let text = |id: &str, text: &str| json!({ "type": "agent.text", "message_id": id, "text": text });
    let events = stored(vec![
        json!({ "type": "user.message", "message_id": "u", "text": "hi" }),
        json!({ "type": "agent.thought", "message_id": "t", "text": "hm" }),
        text("a", "one "),
        json!({ "type": "tool.started", "tool_call_id": "c", "title": "Run", "kind": "other", "status": "pending" }),
        json!({ "type": "tool.updated", "tool_call_id": "c", "title": "Test", "kind": "execute", "input": { "command": "make" } }),
        json!({ "type": "tool.output", "tool_call_id": "c", "stream": "stdout", "text": "no\n" }),
        text("a", "message"),
        json!({ "type": "tool.updated", "tool_call_id": "c", "status": "failed", "exit_code": 2, "output": "no\n" }),
        json!({ "type": "tool.updated", "tool_call_id": "unknown", "output": "x" }),
        json!({ "type": "agent.content", "message_id": "b", "content": { "type": "image", "mimeType": "image/png" } }),
        json!({ "type": "TEXT_MESSAGE_START", "messageId": "old", "role": "assistant" }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "old", "delta": "earlier" }),
    ]);
    let function = json!({ "name": "Test", "arguments": "{\"command\":\"make\"}" });
    assert_eq!(
        gathered(&events),
        json!({ "type": "MESSAGES_SNAPSHOT", "covers_seq": 12, "omitted": 0, "messages": [
            { "id": "u", "role": "user", "content": "hi" },
            { "id": "a", "role": "assistant", "content": "one message" },
            { "id": "c", "role": "assistant", "content": "", "kind": "execute",
                "toolCalls": [{ "id": "c", "type": "function", "function": function }] },
            { "id": "c/result", "role": "tool", "content": "no\n", "toolCallId": "c", "exitCode": 2, "status": "failed" },
            { "id": "b", "role": "assistant", "content": "[image image/png]" },
            { "id": "old", "role": "assistant", "content": "earlier" },
        ] })
    );
}

/// Few ids and words, so that they meet.
fn event() -> impl Strategy<Value = Value> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    let word = prop::sample::select(vec!["", "x", "zwei", "three"]);
    let status = prop::sample::select(vec!["pending", "in_progress", "completed", "failed"]);
    (0..8, id, word, status).prop_map(|(which, id, word, status)| match which {
        0 => json!({ "type": "user.message", "message_id": format!("u{id}"), "text": word }),
        1 => json!({ "type": "agent.text", "message_id": id, "text": word }),
        2 => json!({ "type": "agent.thought", "message_id": id, "text": word }),
        3 => json!({ "type": "tool.started", "tool_call_id": format!("t{id}"), "title": word, "kind": "edit", "status": status }),
        4 => json!({ "type": "tool.updated", "tool_call_id": format!("t{id}"), "title": word, "input": { "command": word } }),
        5 => json!({ "type": "tool.updated", "tool_call_id": format!("t{id}"), "status": status, "output": word }),
        6 => json!({ "type": "tool.updated", "tool_call_id": format!("t{id}"), "content": [{ "type": "text", "text": word }] }),
        _ => json!({ "type": "of.tomorrow", "x": word }),
    })
}

proptest! {
    #[test]
    fn a_snapshot_and_the_tail_give_what_all_events_give_wherever_it_was_cut(events in vec(event(), 0..40)) {
        let events = stored(events);
        let whole = gathered(&events);
        for cut in 0..=events.len() {
            let (head, tail) = events.split_at(cut);
            let mut messages = Messages::of(i64::try_from(cut).unwrap(), gathered(head)).unwrap();
            tail.iter().for_each(|event| messages.see(event));
            prop_assert_eq!(messages.into_data(), whole.clone(), "cut at {}", cut);
        }
    }
}
