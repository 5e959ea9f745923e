//! Content blocks of the protocol, bounded, in the words of the log.

use agent_client_protocol::v1::schema::ContentBlock;
use serde_json::{Value, json};

use crate::permissions::CUT;

/// Largest piece of text in an event, bytes.
pub(super) const PIECE: usize = 16 * 1024;
/// Largest text or value of a tool call, bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// Longest short text, characters.
const MAX_SHORT: usize = 1000;
/// Largest block other than text, bytes.
const MAX_BLOCK: usize = 4 * 1024 * 1024;

/// Text as the log can hold it: without NUL, at most `most` bytes; and whether it was cut off.
pub(super) fn text(mut text: String, most: usize) -> (String, bool) {
    let is_long = text.len() > most;
    if is_long {
        text.truncate(text.floor_char_boundary(most));
    }
    (if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }, is_long)
}

/// A short text: a title, a path, an id.
pub(super) fn short(text_: &str) -> String {
    text(text_.chars().take(MAX_SHORT).collect(), 4 * MAX_SHORT).0
}

/// The same for what rules are about, in which it must be seen that something is missing.
pub(super) fn short_or_marked(text_: &str) -> String {
    let is_long = text_.chars().nth(MAX_SHORT).is_some();
    marked((short(text_), is_long))
}

/// A text that was perhaps cut, with a mark if it was.
pub(super) fn marked((mut text, is_cut): (String, bool)) -> String {
    if is_cut {
        text.push(CUT);
    }
    text
}

/// A value, or how large it was.
pub(super) fn value(value: Value, most: usize) -> Value {
    let bytes = size(&value, most);
    if bytes > most { json!({ "omitted": format!("more than {most} bytes") }) } else { without_nul(value) }
}

/// A block other than text.
pub(super) fn block(block: &ContentBlock) -> Value {
    value(serde_json::to_value(block).unwrap_or_default(), MAX_BLOCK)
}

/// Size in bytes, roughly; not counted further than `most`.
fn size(value: &Value, most: usize) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => {
            items.iter().fold(2, |sum, item| if sum > most { sum } else { sum + size(item, most) + 1 })
        }
        Value::Object(fields) => fields
            .iter()
            .fold(2, |sum, (name, item)| if sum > most { sum } else { sum + name.len() + 4 + size(item, most) }),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// PostgreSQL has no text with NUL.
fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").into(),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, item)| (name.replace('\0', "\u{fffd}"), without_nul(item))).collect()
        }
        other => other,
    }
}
