//! AG-UI events.

use serde_json::{Value, json};

/// One of our own events.
pub(crate) fn custom(name: &str, value: impl Into<Value>) -> Value {
    json!({ "type": "CUSTOM", "name": name, "value": value.into() })
}

/// A text of the assistant, in one piece.
pub(crate) fn text(message_id: &str, delta: &str) -> Vec<Value> {
    vec![
        json!({ "type": "TEXT_MESSAGE_START", "messageId": message_id, "role": "assistant" }),
        json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": message_id, "delta": delta }),
        json!({ "type": "TEXT_MESSAGE_END", "messageId": message_id }),
    ]
}

/// A tool call with its arguments, in one piece.
pub(crate) fn tool_call(tool_call_id: &str, name: &str, arguments: &str) -> Vec<Value> {
    vec![
        json!({ "type": "TOOL_CALL_START", "toolCallId": tool_call_id, "toolCallName": name }),
        json!({ "type": "TOOL_CALL_ARGS", "toolCallId": tool_call_id, "delta": arguments }),
        json!({ "type": "TOOL_CALL_END", "toolCallId": tool_call_id }),
    ]
}

/// The end of a tool call.
pub(crate) fn tool_result(tool_call_id: &str, content: &str, exit_code: Option<i32>) -> Value {
    json!({
        "type": "TOOL_CALL_RESULT", "messageId": format!("{tool_call_id}/result"), "toolCallId": tool_call_id,
        "content": content, "role": "tool", "exitCode": exit_code,
    })
}
