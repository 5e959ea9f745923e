//! Tool calls of a turn: which are known, and how far each was told.

use std::collections::{BTreeMap, VecDeque};

use ambient_wire::runner_event::{ToolChange, ToolContent, ToolKind, ToolStatus, content_in_words, output_in_words};
use serde_json::{Value, json};

use super::frames::{self, OURS};

/// Most calls remembered; of one that was forgotten nothing more is told.
const MAX_CALLS: usize = 4096;

/// Calls by id.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<String, Call>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Call {
    /// Its arguments are still to come.
    open: bool,
    /// Its result was told.
    done: bool,
    /// What it has produced, as far as it is text.
    content: String,
}

impl Calls {
    /// A call begins; its arguments may follow. None if it is known.
    pub(super) fn start(&mut self, id: &str, kind: ToolKind, title: &str) -> Option<Value> {
        if self.calls.contains_key(id) {
            return None;
        }
        self.calls.insert(id.to_owned(), Call { open: true, done: false, content: String::new() });
        self.order.push_back(id.to_owned());
        if self.order.len() > MAX_CALLS {
            self.order.pop_front().and_then(|oldest| self.calls.remove(&oldest));
        }
        let mut event = frames::of("TOOL_CALL_START", "toolCallId", id);
        event["toolCallName"] = frames::tool_name(kind, title).into();
        event["metadata"] = json!({ OURS: { "title": title, "kind": kind } });
        Some(event)
    }

    /// What a change adds to what was told: the arguments, once, and the result, once.
    pub(super) fn change(&mut self, id: &str, change: &ToolChange) -> Vec<Value> {
        let Some(call) = self.calls.get_mut(id) else { return Vec::new() };
        let mut told = Vec::new();
        let input = change.input.as_ref().map(arguments).filter(|input| !input.is_empty());
        if let Some(input) = input.filter(|_| call.open) {
            told.push(frames::piece("TOOL_CALL_ARGS", "toolCallId", id, &input));
            told.extend(call.close(id));
        }
        if let Some(content) = &change.content {
            call.content = texts(content);
        }
        let is_over = matches!(change.status, Some(ToolStatus::Completed | ToolStatus::Failed));
        if is_over && !std::mem::replace(&mut call.done, true) {
            told.extend(call.close(id));
            told.push(call.result(id, change));
        }
        told
    }

    /// Ends of the calls whose arguments have not come.
    pub(super) fn close(&mut self) -> Vec<Value> {
        self.calls.iter_mut().filter_map(|(id, call)| call.close(id)).collect()
    }
}

impl Call {
    fn close(&mut self, id: &str) -> Option<Value> {
        std::mem::take(&mut self.open).then(|| frames::of("TOOL_CALL_END", "toolCallId", id))
    }

    fn result(&self, id: &str, change: &ToolChange) -> Value {
        let output = match &change.output {
            None | Some(Value::Null) => self.content.clone(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => output_in_words(other).map_or_else(|| other.to_string(), str::to_owned),
        };
        let mut ours = json!({ "status": change.status });
        if let Some(exit_code) = change.exit_code {
            ours["exitCode"] = exit_code.into();
        }
        json!({
            "type": "TOOL_CALL_RESULT", "messageId": format!("{id}/result"), "toolCallId": id, "role": "tool",
            "content": output, "metadata": { OURS: ours },
        })
    }
}

fn arguments(input: &Value) -> String {
    match input {
        Value::Null => String::new(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    }
}

fn texts(content: &[ToolContent]) -> String {
    let words = content.iter().filter_map(|content| match content {
        ToolContent::Text { text } => Some(text.clone()),
        ToolContent::Other { content } => Some(content_in_words(content)),
        ToolContent::Diff { path, .. } => Some(format!("[diff {path}]")),
        ToolContent::Terminal { .. } => None,
    });
    words.collect::<Vec<_>>().join("\n")
}
