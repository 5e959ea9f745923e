//! Events of a session in the protocol's words.

use agent_client_protocol::v1::schema as acp;
use ambient_wire::runner_event::{PlanEntry, RunnerEvent, ToolChange, ToolKind, ToolStatus, script_of};
use serde::Deserialize;
use serde_json::Value;

use super::tools::Tools;

/// What was told so far, as far as the next update depends on it.
#[derive(Debug, Default)]
pub(super) struct Updates {
    tools: Tools,
    /// The run, as a suffix for ids of calls: they are unique within one only.
    run: String,
}

impl Updates {
    /// What a runner has recorded.
    pub(super) fn of(&mut self, event: RunnerEvent) -> Vec<acp::SessionUpdate> {
        let update = match event {
            RunnerEvent::AgentText { message_id, text } => {
                acp::SessionUpdate::AgentMessageChunk(chunk(message_id, text.into()))
            }
            RunnerEvent::AgentContent { message_id, content } => {
                let block = acp::ContentBlock::deserialize(&content)
                    .unwrap_or_else(|_| ambient_wire::runner_event::content_in_words(&content).into());
                acp::SessionUpdate::AgentMessageChunk(chunk(message_id, block))
            }
            RunnerEvent::AgentThought { message_id, text } => {
                acp::SessionUpdate::AgentThoughtChunk(chunk(message_id, text.into()))
            }
            RunnerEvent::AgentPlan { entries } => {
                acp::SessionUpdate::Plan(acp::Plan::new(entries.into_iter().map(step).collect()))
            }
            RunnerEvent::AgentSettings { mode, commands, title, .. } => return settings(mode, commands, title),
            event => return self.of_calls(event),
        };
        // What a call has printed comes before what is said about it.
        self.tools.catch_up().into_iter().chain([update]).collect()
    }

    fn of_calls(&mut self, event: RunnerEvent) -> Vec<acp::SessionUpdate> {
        match event {
            RunnerEvent::TurnStarted { turn_id, .. } => {
                let run = turn_id.split('/').nth(1).filter(|run| *run != "1");
                self.run = run.map(|run| format!("@{run}")).unwrap_or_default();
                Vec::new()
            }
            RunnerEvent::ToolStarted { tool_call_id, title, kind, status, input, locations, content } => {
                let title = titled(title, kind, &input);
                let (kind, status, input) = (Some(kind), Some(status), Some(input));
                let (locations, content) = (Some(locations), Some(content));
                let change = ToolChange { kind, status, input, locations, content, ..ToolChange::default() };
                vec![self.tools.started(&self.id(&tool_call_id), &title, change)]
            }
            RunnerEvent::ToolUpdated { tool_call_id, change } => {
                vec![self.tools.updated(&self.id(&tool_call_id), change)]
            }
            RunnerEvent::ToolOutput { tool_call_id, text, .. } => {
                let id = self.id(&tool_call_id);
                self.tools.printed(&id, &text);
                Vec::new()
            }
            RunnerEvent::TurnEnded { .. } => self.tools.catch_up(),
            _ => Vec::new(),
        }
    }

    /// Whether something is still to be told; [`Updates::catch_up`] tells it.
    pub(super) fn is_behind(&self) -> bool {
        self.tools.is_behind()
    }

    pub(super) fn catch_up(&mut self) -> Vec<acp::SessionUpdate> {
        self.tools.catch_up()
    }

    /// The id of a call, unique in the session.
    pub(super) fn id(&self, tool_call_id: &str) -> String {
        format!("{tool_call_id}{}", self.run)
    }

    /// The messages so far in one piece, where their events are no longer kept.
    pub(super) fn of_snapshot(&mut self, data: &Value) -> Vec<acp::SessionUpdate> {
        data["messages"].as_array().into_iter().flatten().flat_map(|message| self.of_message(message)).collect()
    }

    fn of_message(&mut self, message: &Value) -> Vec<acp::SessionUpdate> {
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        match message["role"].as_str() {
            Some("user") => vec![said(text("id"), text("content"))],
            Some("tool") => {
                let failed =
                    message["status"] == "failed" || message["exitCode"].as_i64().is_some_and(|code| code != 0);
                let status = if failed { ToolStatus::Failed } else { ToolStatus::Completed };
                let exit_code = message["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok());
                let output = Some(Value::String(text("content")));
                let change = ToolChange { status: Some(status), output, exit_code, ..ToolChange::default() };
                vec![self.tools.updated(&text("toolCallId"), change)]
            }
            _ => {
                let words = (!text("content").is_empty())
                    .then(|| acp::SessionUpdate::AgentMessageChunk(chunk(text("id"), text("content").into())));
                let calls = message["toolCalls"].as_array().into_iter().flatten();
                let kind = ToolKind::deserialize(&message["kind"]).unwrap_or_default();
                let calls: Vec<_> = calls.map(|call| self.of_call(kind, call)).collect();
                words.into_iter().chain(calls).collect()
            }
        }
    }

    fn of_call(&mut self, kind: ToolKind, call: &Value) -> acp::SessionUpdate {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let input: Value = serde_json::from_str(&text(&call["function"]["arguments"])).unwrap_or_default();
        let title = titled(text(&call["function"]["name"]), kind, &input);
        let change = ToolChange { kind: Some(kind), input: Some(input), ..ToolChange::default() };
        self.tools.started(&text(&call["id"]), &title, change)
    }
}

/// What a person has said.
pub(super) fn said(message_id: String, text: String) -> acp::SessionUpdate {
    acp::SessionUpdate::UserMessageChunk(chunk(message_id, text.into()))
}

fn chunk(message_id: String, content: acp::ContentBlock) -> acp::ContentChunk {
    acp::ContentChunk::new(content).message_id(acp::MessageId::new(message_id))
}

/// A call has a title, whatever its agent says.
fn titled(title: String, kind: ToolKind, input: &Value) -> String {
    if !title.trim().is_empty() {
        return title;
    }
    let script = script_of(input).filter(|_| kind == ToolKind::Execute);
    script.unwrap_or_else(|| "tool".to_owned())
}

fn step(entry: PlanEntry) -> acp::PlanEntry {
    let priority = match entry.priority.as_str() {
        "high" => acp::PlanEntryPriority::High,
        "low" => acp::PlanEntryPriority::Low,
        _ => acp::PlanEntryPriority::Medium,
    };
    let status = match entry.status.as_str() {
        "completed" => acp::PlanEntryStatus::Completed,
        "in_progress" => acp::PlanEntryStatus::InProgress,
        _ => acp::PlanEntryStatus::Pending,
    };
    acp::PlanEntry::new(entry.content, priority, status)
}

fn settings(mode: Option<String>, commands: Option<Value>, title: Option<String>) -> Vec<acp::SessionUpdate> {
    let mode = mode.map(|mode| acp::SessionUpdate::CurrentModeUpdate(acp::CurrentModeUpdate::new(mode)));
    // As the agent says, and cut off if it was too much: what is no command is passed over.
    let commands = commands.map(|commands| {
        let commands = commands.as_array().into_iter().flatten();
        let commands = commands.filter_map(|one| acp::AvailableCommand::deserialize(one).ok()).collect();
        acp::SessionUpdate::AvailableCommandsUpdate(acp::AvailableCommandsUpdate::new(commands))
    });
    let title = title.map(|title| acp::SessionUpdate::SessionInfoUpdate(acp::SessionInfoUpdate::new().title(title)));
    mode.into_iter().chain(commands).chain(title).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(updates: &mut Updates, event: &Value) -> Vec<Value> {
        let event = RunnerEvent::read(event).unwrap();
        updates.of(event).into_iter().map(|update| serde_json::to_value(update).unwrap()).collect()
    }

    #[test]
    fn what_is_said_thought_and_planned_is_told_as_it_comes() {
        let mut updates = Updates::default();
        let text = told(&mut updates, &json!({"type": "agent.text", "message_id": "m", "text": "Hello"}));
        assert_eq!(
            json!(text),
            json!([{"sessionUpdate": "agent_message_chunk", "messageId": "m", "content": {"type": "text", "text": "Hello"}}])
        );
        let image = json!({"type": "image", "mimeType": "image/png", "data": "AA=="});
        let content = told(&mut updates, &json!({"type": "agent.content", "message_id": "m", "content": image}));
        assert_eq!(content[0]["content"]["type"], "image");
        let plan = told(
            &mut updates,
            &json!({"type": "agent.plan", "entries": [{"content": "a", "priority": "?", "status": "in_progress"}]}),
        );
        let expected = json!([{"content": "a", "priority": "medium", "status": "in_progress"}]);
        assert_eq!(plan[0]["entries"], expected);
        let commands = json!([{"name": "web", "description": "d"}, {"no": "command"}]);
        let set = told(&mut updates, &json!({"type": "agent.settings", "mode": "code", "commands": commands}));
        assert_eq!(set[0]["currentModeId"], "code");
        assert_eq!(set[1]["availableCommands"], json!([{"name": "web", "description": "d"}]));
    }

    #[test]
    fn a_call_is_told_with_its_diff_and_its_output_which_stays_when_something_else_changes() {
        let mut updates = Updates::default();
        told(&mut updates, &json!({"type": "turn.started", "turn_id": "s/2/1", "message_id": "m"}));
        let started = told(
            &mut updates,
            &json!({"type": "tool.started", "tool_call_id": "c", "title": "", "kind": "execute", "status": "in_progress",
                "input": {"command": "make"}, "locations": [{"path": "a", "line": 3}]}),
        );
        let expected = json!({"sessionUpdate": "tool_call", "toolCallId": "c@2", "title": "make", "kind": "execute",
            "status": "in_progress", "locations": [{"path": "a", "line": 3}], "rawInput": {"command": "make"}});
        assert_eq!(started[0], expected);
        for line in ["one\n", "``` two\n"] {
            let output = json!({"type": "tool.output", "tool_call_id": "c", "stream": "stdout", "text": line});
            assert_eq!(told(&mut updates, &output), Vec::<Value>::new());
        }
        assert!(updates.is_behind());
        let said = told(&mut updates, &json!({"type": "agent.text", "message_id": "m", "text": "."}));
        let printed = "````console\none\n``` two\n````";
        assert_eq!(said[0]["content"][0]["content"]["text"], printed);
        assert!(!updates.is_behind());
        let diff = json!({"type": "diff", "path": "/w/a", "old_text": "x", "new_text": "y"});
        let ended = told(
            &mut updates,
            &json!({"type": "tool.updated", "tool_call_id": "c", "status": "failed", "content": [diff], "output": "one",
                "exit_code": 2}),
        );
        let content = &ended[0]["content"];
        assert_eq!(content[0], json!({"type": "diff", "path": "/w/a", "oldText": "x", "newText": "y"}));
        assert_eq!(content[1]["content"]["text"], printed);
        assert_eq!(content[2]["content"]["text"], "exit code 2");
        assert_eq!(ended[0]["status"], "failed");
    }

    #[test]
    fn a_long_output_is_cut_at_its_beginning() {
        let mut updates = Updates::default();
        for n in 0..4000 {
            let text = format!("line {n} ü\n");
            told(&mut updates, &json!({"type": "tool.output", "tool_call_id": "c", "stream": "stdout", "text": text}));
        }
        let told = serde_json::to_value(updates.catch_up()).unwrap();
        let text = told[0]["content"][0]["content"]["text"].as_str().unwrap();
        assert!(text.len() < 33 * 1024 && text.starts_with("```console\n…\n") && text.contains("line 3999 ü"));
    }

    #[test]
    fn a_snapshot_is_told_as_if_its_events_had_come() {
        let messages = json!({"messages": [
            {"id": "u", "role": "user", "content": "Count."},
            {"id": "t", "role": "assistant", "content": "I will."},
            {"id": "c", "role": "assistant", "content": "", "kind": "execute",
                "toolCalls": [{"id": "c", "function": {"name": "make", "arguments": "{\"command\":\"make\"}"}}]},
            {"id": "c/result", "role": "tool", "toolCallId": "c", "content": "ok", "exitCode": 0}]});
        let told = serde_json::to_value(Updates::default().of_snapshot(&messages)).unwrap();
        let kinds: Vec<_> = told.as_array().unwrap().iter().map(|one| one["sessionUpdate"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["user_message_chunk", "agent_message_chunk", "tool_call", "tool_call_update"]);
        assert_eq!(told[3]["status"], "completed");
        assert_eq!(told[3]["content"][0]["content"]["text"], "```console\nok\n```");
    }
}
