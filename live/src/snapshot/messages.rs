//! Messages, gathered from the events of a log.

use std::collections::HashMap;

use ambient_persistence::StoredEvent;
use ambient_wire::runner_event::{
    RunnerEvent, ToolChange, ToolContent, ToolKind, ToolStatus, content_in_words, output_in_words,
};
use serde_json::{Map, Value, json};

use super::SnapshotError;

/// Largest text of a message, bytes; the rest is cut off and marked with `truncated`. A user's message fits.
const MAX_TEXT: usize = 1024 * 1024;
/// Approximate size of the largest snapshot, bytes; the oldest messages are left out and counted in `omitted`. A connection keeps a buffer
/// as large as the largest piece it was ever sent, so this is also what an idle reader may cost.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// A text in a message.
type Field = fn(&mut Map<String, Value>) -> Option<&mut Value>;

/// Messages being gathered.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) covers_seq: i64,
    omitted: u64,
    messages: Vec<Map<String, Value>>,
    /// Position of each message by id.
    places: HashMap<String, usize>,
}

impl Messages {
    pub(super) fn of(covers_seq: i64, mut data: Value) -> Result<Self, SnapshotError> {
        let Value::Array(list) = data["messages"].take() else { return Err(SnapshotError::Corrupt { covers_seq }) };
        let omitted = data["omitted"].as_u64().unwrap_or(0);
        let mut messages = Self { covers_seq, omitted, ..Self::default() };
        for message in list {
            let Value::Object(message) = message else { return Err(SnapshotError::Corrupt { covers_seq }) };
            messages.push(message);
        }
        Ok(messages)
    }

    pub(super) fn see(&mut self, event: &StoredEvent) {
        self.covers_seq = event.seq;
        let text = |key: &str| event.data[key].as_str().unwrap_or_default();
        match event.event_type.as_str() {
            "user.message" => {
                self.message(event.message_id.as_deref().unwrap_or_default(), "user", text("text"), &[]);
            }
            // Earlier runners said where a message starts.
            "TEXT_MESSAGE_START" => self.message(text("messageId"), "assistant", "", &[]),
            _ => self.see_runner(event),
        }
    }

    fn see_runner(&mut self, event: &StoredEvent) {
        match RunnerEvent::read(&event.data) {
            Some(RunnerEvent::AgentText { message_id, text }) => self.piece(event, &message_id, &text),
            Some(RunnerEvent::AgentContent { message_id, content }) => {
                self.piece(event, &message_id, &content_in_words(&content));
            }
            Some(RunnerEvent::ToolStarted { tool_call_id, title, kind, status, input, content, .. }) => {
                self.call(&tool_call_id, kind);
                let (title, kind, input) = (Some(title), Some(kind), Some(input));
                let (status, content) = (Some(status), Some(content));
                self.changed(
                    &tool_call_id,
                    ToolChange { title, kind, status, input, content, ..ToolChange::default() },
                );
            }
            Some(RunnerEvent::ToolUpdated { tool_call_id, change }) => self.changed(&tool_call_id, change),
            _ => {}
        }
    }

    /// A piece of what the agent says. A message that was left out does not begin anew.
    fn piece(&mut self, event: &StoredEvent, id: &str, text: &str) {
        if event.message_id.is_some() {
            self.message(id, "assistant", "", &[]);
        }
        self.append(id, text, content);
    }

    fn call(&mut self, id: &str, kind: ToolKind) {
        let function = json!({ "name": "", "arguments": "" });
        let calls = json!([{ "id": id, "type": "function", "function": function }]);
        self.message(id, "assistant", "", &[("kind", json!(kind)), ("toolCalls", calls)]);
    }

    fn changed(&mut self, id: &str, change: ToolChange) {
        let ToolChange { title, kind, status, input, content: produced, output, exit_code, locations: _ } = change;
        if let Some(title) = title {
            self.replace(id, &title, name);
        }
        if let Some(input) = input {
            self.replace(id, &words(&input), arguments);
        }
        if let Some(kind) = kind {
            self.insert(id, "kind", json!(kind));
        }
        let output = output.as_ref().map(returned).or_else(|| produced.map(|produced| texts(&produced)));
        let status = status.filter(|status| matches!(status, ToolStatus::Completed | ToolStatus::Failed));
        let says_nothing = output.as_ref().is_none_or(String::is_empty);
        let has_result = !says_nothing || status.is_some() || exit_code.is_some();
        // A call that was left out takes its result with it.
        if !has_result || self.get(id).is_none() {
            return;
        }
        let result = format!("{id}/result");
        self.message(&result, "tool", "", &[("toolCallId", json!(id))]);
        if let Some(output) = output.filter(|output| !output.is_empty()) {
            self.replace(&result, &output, content);
        }
        if let Some(exit_code) = exit_code {
            self.insert(&result, "exitCode", exit_code.into());
        }
        if let Some(status) = status {
            self.insert(&result, "status", json!(status));
        }
    }

    fn message(&mut self, id: &str, role: &str, text: &str, more: &[(&str, Value)]) {
        // An id that occurs twice (a repeated turn) is one message.
        if id.is_empty() || self.places.contains_key(id) {
            return;
        }
        let fields = [("id", json!(id)), ("role", json!(role)), ("content", json!(""))];
        let message = fields.into_iter().chain(more.iter().cloned()).map(|(key, value)| (key.to_owned(), value));
        self.push(message.collect());
        self.append(id, text, content);
    }

    fn push(&mut self, message: Map<String, Value>) {
        let id = message.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.places.insert(id, self.messages.len());
        self.messages.push(message);
    }

    fn get(&mut self, id: &str) -> Option<&mut Map<String, Value>> {
        self.places.get(id).and_then(|place| self.messages.get_mut(*place))
    }

    fn insert(&mut self, id: &str, field: &str, value: Value) {
        if let Some(message) = self.get(id) {
            message.insert(field.to_owned(), value);
        }
    }

    fn replace(&mut self, id: &str, text: &str, field: Field) {
        if let Some(Value::String(whole)) = self.get(id).and_then(field) {
            whole.clear();
            self.append(id, text, field);
        }
    }

    fn append(&mut self, id: &str, text: &str, field: Field) {
        let Some(message) = self.get(id) else { return };
        let Some(Value::String(whole)) = field(message) else { return };
        let room = MAX_TEXT.saturating_sub(whole.len());
        let end = text.floor_char_boundary(room);
        whole.push_str(&text[..end]);
        if end < text.len() {
            message.insert("truncated".to_owned(), true.into());
        }
    }

    /// Leaves out the oldest messages if there is too much.
    pub(super) fn limit(&mut self) {
        let sizes: Vec<usize> = self.messages.iter().map(size).collect();
        let mut bytes: usize = sizes.iter().sum();
        let mut drop = 0;
        while bytes > MAX_BYTES && drop + 1 < sizes.len() {
            bytes -= sizes[drop];
            drop += 1;
        }
        if drop > 0 {
            self.omitted += drop as u64;
            let rest = self.messages.split_off(drop);
            self.messages.clear();
            self.places.clear();
            rest.into_iter().for_each(|message| self.push(message));
        }
    }

    pub(super) fn into_data(self) -> Value {
        json!({
            "type": "MESSAGES_SNAPSHOT", "covers_seq": self.covers_seq, "omitted": self.omitted,
            "messages": self.messages,
        })
    }
}

fn content(message: &mut Map<String, Value>) -> Option<&mut Value> {
    message.get_mut("content")
}

fn name(message: &mut Map<String, Value>) -> Option<&mut Value> {
    message.get_mut("toolCalls")?.pointer_mut("/0/function/name")
}

fn arguments(message: &mut Map<String, Value>) -> Option<&mut Value> {
    message.get_mut("toolCalls")?.pointer_mut("/0/function/arguments")
}

/// Text as it is, anything else as JSON.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Text that a call has returned; without any, all of it as JSON.
fn returned(output: &Value) -> String {
    output_in_words(output).map_or_else(|| words(output), str::to_owned)
}

/// What a call has produced, as far as it is text.
fn texts(produced: &[ToolContent]) -> String {
    let words = produced.iter().filter_map(|content| match content {
        ToolContent::Text { text } => Some(text.clone()),
        ToolContent::Other { content } => Some(content_in_words(content)),
        ToolContent::Diff { .. } | ToolContent::Terminal { .. } => None,
    });
    words.collect::<Vec<_>>().join("\n")
}

/// Approximate size of a message in bytes, without building its JSON.
fn size(message: &Map<String, Value>) -> usize {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len);
    let function = message.get("toolCalls").and_then(|calls| calls.pointer("/0/function"));
    let of_function = |field: &str| text(function.and_then(|function| function.get(field)));
    100 + text(message.get("content")) + of_function("name") + of_function("arguments")
}

#[cfg(test)]
mod tests;
