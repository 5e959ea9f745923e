//! A session's messages in one piece, so that a long history can be shown at once.
//!
//! Made at the end of each run from the previous snapshot and what followed it. A snapshot is an AG-UI `MESSAGES_SNAPSHOT`
//! (`{type, covers_seq, omitted, messages: [{id, role, content, …}]}`): the tail starts right after it. Deltas of a message that was not
//! complete yet follow in the tail and are to be appended to it.
//!
//! Invariants: the same log gives the same messages, however many pieces it was compacted in; the newest snapshot is complete
//! at any moment, even if a compaction dies between its steps; a repeated compaction finishes them.

use std::collections::HashMap;

use ambient_persistence::{Database, StoreError, StoredEvent};
use serde_json::{Map, Value, json};

/// Largest text of a message, bytes; the rest is cut off and marked with `truncated`. A user's message fits.
const MAX_TEXT: usize = 1024 * 1024;
/// Approximate size of the largest snapshot, bytes; the oldest messages are left out and counted in `omitted`. A connection keeps a buffer
/// as large as the largest piece it was ever sent, so this is also what an idle reader may cost.
const MAX_BYTES: usize = 2 * 1024 * 1024;
const PAGE_EVENTS: i64 = 512;
const PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// Why a snapshot could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored does not read as a snapshot.
    #[error("the snapshot at {covers_seq} cannot be read")]
    Corrupt {
        /// Its place.
        covers_seq: i64,
    },
}

/// Compacts everything so far; returns the seq it covers. Earlier snapshots are removed once the new one is in place. To be called at the
/// end of a run; may be repeated.
///
/// # Errors
/// When the database cannot be reached.
pub async fn compact(db: &Database, session_id: &str) -> Result<i64, SnapshotError> {
    let mut messages = match db.latest_snapshot(session_id).await? {
        Some(snapshot) => Messages::of(snapshot.covers_seq, snapshot.data)?,
        None => Messages::default(),
    };
    let before = messages.covers_seq;
    loop {
        let page = db.read_event_page(session_id, messages.covers_seq, PAGE_EVENTS, PAGE_BYTES).await?;
        page.events.iter().for_each(|event| messages.see(event));
        messages.limit();
        if !page.more {
            break;
        }
    }
    let covers_seq = messages.covers_seq;
    if covers_seq > before {
        db.put_snapshot(session_id, covers_seq, &messages.into_data()).await?;
    }
    // Even if there was nothing new: an earlier call may have died before this.
    db.delete_snapshots_below(session_id, covers_seq).await?;
    Ok(covers_seq)
}

/// Messages being gathered.
#[derive(Debug, Default)]
struct Messages {
    covers_seq: i64,
    omitted: u64,
    messages: Vec<Map<String, Value>>,
    /// Position of each message by id.
    places: HashMap<String, usize>,
}

impl Messages {
    fn of(covers_seq: i64, mut data: Value) -> Result<Self, SnapshotError> {
        let Value::Array(list) = data["messages"].take() else { return Err(SnapshotError::Corrupt { covers_seq }) };
        let omitted = data["omitted"].as_u64().unwrap_or(0);
        let mut messages = Self { covers_seq, omitted, ..Self::default() };
        for message in list {
            let Value::Object(message) = message else { return Err(SnapshotError::Corrupt { covers_seq }) };
            messages.push(message);
        }
        Ok(messages)
    }

    fn see(&mut self, event: &StoredEvent) {
        self.covers_seq = event.seq;
        let data = &event.data;
        let text = |key: &str| data[key].as_str().unwrap_or_default();
        match event.event_type.as_str() {
            "user.message" => {
                let id = event.message_id.as_deref().unwrap_or_default();
                self.message(id, "user", text("text"), &[]);
            }
            "TEXT_MESSAGE_START" => self.message(text("messageId"), role(text("role")), "", &[]),
            "TEXT_MESSAGE_CONTENT" => self.append(text("messageId"), text("delta"), content),
            "TOOL_CALL_START" => {
                let id = text("toolCallId");
                let function = json!({ "name": text("toolCallName"), "arguments": "" });
                let calls = json!([{ "id": id, "type": "function", "function": function }]);
                self.message(id, "assistant", "", &[("toolCalls", calls)]);
            }
            "TOOL_CALL_ARGS" => self.append(text("toolCallId"), text("delta"), arguments),
            "TOOL_CALL_RESULT" => {
                let mut more = vec![("toolCallId", json!(text("toolCallId")))];
                more.extend(data.get("exitCode").map(|code| ("exitCode", code.clone())));
                self.message(text("messageId"), "tool", text("content"), &more);
            }
            _ => {}
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

    fn append(&mut self, id: &str, text: &str, field: fn(&mut Map<String, Value>) -> Option<&mut Value>) {
        let Some(message) = self.places.get(id).and_then(|place| self.messages.get_mut(*place)) else { return };
        let Some(Value::String(whole)) = field(message) else { return };
        let room = MAX_TEXT.saturating_sub(whole.len());
        let end = text.floor_char_boundary(room);
        whole.push_str(&text[..end]);
        if end < text.len() {
            message.insert("truncated".to_owned(), true.into());
        }
    }

    /// Leaves out the oldest messages if there is too much.
    fn limit(&mut self) {
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

    fn into_data(self) -> Value {
        json!({
            "type": "MESSAGES_SNAPSHOT", "covers_seq": self.covers_seq, "omitted": self.omitted,
            "messages": self.messages,
        })
    }
}

fn role(role: &str) -> &str {
    if role.is_empty() { "assistant" } else { role }
}

fn content(message: &mut Map<String, Value>) -> Option<&mut Value> {
    message.get_mut("content")
}

fn arguments(message: &mut Map<String, Value>) -> Option<&mut Value> {
    message.get_mut("toolCalls")?.get_mut(0)?.get_mut("function")?.get_mut("arguments")
}

/// Approximate size of a message in bytes, without building its JSON.
fn size(message: &Map<String, Value>) -> usize {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len);
    let call = message.get("toolCalls").and_then(|calls| calls.pointer("/0/function/arguments"));
    100 + text(message.get("content")) + text(call)
}
