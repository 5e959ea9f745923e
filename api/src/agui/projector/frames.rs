//! AG-UI events as JSON. No optional field is ever null: clients take that for a broken event.

use ambient_wire::runner_event::{PermissionRequest, ToolKind, Usage};
use serde_json::{Map, Value, json};

/// The version of the protocol.
pub(crate) const PROTOCOL: &str = "1.0";
/// Where our own metadata stands.
pub(crate) const OURS: &str = "ambient";
/// Largest integer that every client reads exactly.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// An event with one id.
pub(super) fn of(event_type: &str, field: &str, id: &str) -> Value {
    let mut event = json!({ "type": event_type });
    event[field] = id.into();
    event
}

/// An event with an id and a piece of text.
pub(super) fn piece(event_type: &str, field: &str, id: &str, delta: &str) -> Value {
    let mut event = of(event_type, field, id);
    event["delta"] = delta.into();
    event
}

/// Start of a message.
pub(super) fn message_start(id: &str, role: &str) -> Value {
    let mut event = of("TEXT_MESSAGE_START", "messageId", id);
    event["role"] = role.into();
    event
}

/// What AG-UI has no word for: one of our own events as it is.
pub(super) fn custom(event_type: &str, value: &Value) -> Value {
    json!({ "type": "CUSTOM", "name": format!("{OURS}.{event_type}"), "value": value })
}

/// What clients call a tool by: stable for those that show some of them in their own way.
pub(crate) fn tool_name(kind: ToolKind, title: &str) -> String {
    let name = match kind {
        ToolKind::Read => "read",
        ToolKind::Edit => "edit",
        ToolKind::Delete => "delete",
        ToolKind::Move => "move",
        ToolKind::Search => "search",
        ToolKind::Execute => "execute",
        ToolKind::Think => "think",
        ToolKind::Fetch => "fetch",
        ToolKind::SwitchMode => "switch_mode",
        ToolKind::Push => "push",
        ToolKind::Other => title,
    };
    if name.is_empty() { "tool".to_owned() } else { name.to_owned() }
}

/// A request as an interrupt.
pub(super) fn interrupt(request: &PermissionRequest) -> Value {
    let answers = json!({ "type": "string", "enum": request.answers });
    let schema = json!({
        "type": "object", "required": ["answer"],
        "properties": { "answer": answers, "message": { "type": "string" } },
    });
    json!({
        "id": request.interrupt_id, "reason": "permission", "message": request.title,
        "toolCallId": request.tool_call_id, "responseSchema": schema, "metadata": { OURS: request },
    })
}

/// Figures of a model.
pub(super) fn usage(model: &str, usage: &Usage) -> Value {
    let counts = [
        ("inputTokens", usage.input_tokens),
        ("outputTokens", usage.output_tokens),
        ("reasoningTokens", usage.reasoning_tokens),
        ("cachedInputTokens", usage.cached_input_tokens),
    ];
    let counted = counts
        .into_iter()
        .filter_map(|(name, count)| count.map(|count| (name.to_owned(), Value::from(count.min(MAX_INTEGER)))));
    let mut figures: Map<String, Value> = counted.collect();
    if !model.is_empty() {
        figures.insert("model".to_owned(), model.into());
    }
    Value::Object(figures)
}
