//! Events that several agents record alike.

use ambient_wire::runner_event::{RunnerEvent, ToolChange, ToolKind, ToolStatus};
use serde_json::json;

/// A piece of what an agent says.
pub(crate) fn text(message_id: &str, text: &str) -> RunnerEvent {
    RunnerEvent::AgentText { message_id: message_id.to_owned(), text: text.to_owned() }
}

/// A shell call begins.
pub(crate) fn shell_call(tool_call_id: &str, title: &str, script: &str) -> RunnerEvent {
    RunnerEvent::ToolStarted {
        tool_call_id: tool_call_id.to_owned(),
        title: title.to_owned(),
        kind: ToolKind::Execute,
        status: ToolStatus::InProgress,
        input: json!({ "script": script }),
        locations: Vec::new(),
        content: Vec::new(),
    }
}

/// A shell call has ended.
pub(crate) fn shell_result(tool_call_id: &str, output: &str, exit_code: Option<i32>) -> RunnerEvent {
    let status = if exit_code == Some(0) { ToolStatus::Completed } else { ToolStatus::Failed };
    let change = ToolChange { status: Some(status), output: Some(output.into()), exit_code, ..ToolChange::default() };
    RunnerEvent::ToolUpdated { tool_call_id: tool_call_id.to_owned(), change }
}
