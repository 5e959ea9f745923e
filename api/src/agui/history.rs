//! The messages so far, as AG-UI has them.

use ambient_domain::session::Session;
use ambient_wire::runner_event::ToolKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::projector::frames::{OURS, tool_name};
use crate::{
    authority::{Authorized, Right},
    error::ApiResult,
};

/// A `MESSAGES_SNAPSHOT` of everything so far.
pub(crate) async fn read<R: Right>(session: &Authorized<Session, R>) -> ApiResult<Value> {
    Ok(event(session.messages().await?))
}

/// From a snapshot of a live log: what AG-UI has no field for goes into the metadata.
pub(super) fn event(mut snapshot: Value) -> Value {
    let messages = snapshot["messages"].take();
    let messages: Vec<Value> = match messages {
        Value::Array(messages) => messages.into_iter().map(message).collect(),
        _ => Vec::new(),
    };
    let ours = json!({ "coversSeq": snapshot["covers_seq"], "omitted": snapshot["omitted"] });
    json!({ "type": "MESSAGES_SNAPSHOT", "messages": messages, "metadata": { OURS: ours } })
}

fn message(mut message: Value) -> Value {
    let mut ours = Map::new();
    if let Value::Object(fields) = &mut message {
        for field in ["exitCode", "status", "kind", "truncated"] {
            ours.extend(fields.remove(field).map(|value| (field.to_owned(), value)));
        }
    }
    let kind = ours.get("kind").and_then(|kind| ToolKind::deserialize(kind).ok());
    if let (Some(kind), Some(function)) = (kind, message.pointer_mut("/toolCalls/0/function")) {
        let title = function["name"].as_str().unwrap_or_default().to_owned();
        function["name"] = tool_name(kind, &title).into();
        ours.insert("title".to_owned(), title.into());
    }
    if !ours.is_empty() {
        message["metadata"] = json!({ OURS: ours });
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_only_fields_of_ag_ui() {
        let function = json!({ "name": "make test", "arguments": "{}" });
        let call = json!({ "id": "c", "type": "function", "function": function });
        let snapshot = json!({ "type": "MESSAGES_SNAPSHOT", "covers_seq": 4, "omitted": 1, "messages": [
            { "id": "u", "role": "user", "content": "hi" },
            { "id": "c", "role": "assistant", "content": "", "kind": "execute", "toolCalls": [call] },
            { "id": "c/result", "role": "tool", "content": "no", "toolCallId": "c", "exitCode": 2, "status": "failed" },
        ] });
        let call = json!({ "id": "c", "type": "function", "function": { "name": "execute", "arguments": "{}" } });
        assert_eq!(
            event(snapshot),
            json!({ "type": "MESSAGES_SNAPSHOT", "metadata": { "ambient": { "coversSeq": 4, "omitted": 1 } }, "messages": [
                { "id": "u", "role": "user", "content": "hi" },
                { "id": "c", "role": "assistant", "content": "", "toolCalls": [call],
                    "metadata": { "ambient": { "kind": "execute", "title": "make test" } } },
                { "id": "c/result", "role": "tool", "content": "no", "toolCallId": "c",
                    "metadata": { "ambient": { "exitCode": 2, "status": "failed" } } },
            ] })
        );
    }
}
