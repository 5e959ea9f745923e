//! Tool calls: what an agent tells of them, in the words of the log.

use std::collections::{BTreeMap, VecDeque};

use agent_client_protocol::v1::schema as acp;
use ambient_wire::runner_event::{Location, RunnerEvent, ToolChange, ToolContent, ToolKind, ToolStatus};
use serde_json::Value;

use super::content::{self, MAX_TEXT};

/// Most calls remembered; the oldest are forgotten.
const MAX_CALLS: usize = 4096;
/// Most parts of what a call has produced, and files that it is about.
const MAX_PARTS: usize = 200;
/// Largest text of a diff, bytes, on each side.
const MAX_DIFF: usize = 256 * 1024;

/// What of a call matters when permission is asked for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) title: String,
    pub(super) kind: ToolKind,
    pub(super) input: Value,
    pub(super) paths: Vec<String>,
}

/// The calls of an agent. Agents tell of updates, or ask for permission, before they tell of a call: then it begins with that.
#[derive(Default)]
pub(super) struct Tools {
    calls: BTreeMap<String, Known>,
    order: VecDeque<String>,
}

impl Tools {
    pub(super) fn get(&self, id: &str) -> Option<&Known> {
        self.calls.get(id)
    }

    /// A call is told of, as a whole.
    pub(super) fn call(&mut self, call: acp::ToolCall) -> RunnerEvent {
        let fields = acp::ToolCallUpdateFields::new()
            .title(call.title)
            .kind(call.kind)
            .status(call.status)
            .content((!call.content.is_empty()).then_some(call.content))
            .locations((!call.locations.is_empty()).then_some(call.locations))
            .raw_input(call.raw_input)
            .raw_output(call.raw_output);
        self.update(&call.tool_call_id.0, fields)
    }

    /// A call has changed.
    pub(super) fn update(&mut self, id: &str, fields: acp::ToolCallUpdateFields) -> RunnerEvent {
        let id = content::short(id);
        let change = change(fields);
        let is_new = !self.calls.contains_key(&id);
        if is_new {
            if self.order.len() >= MAX_CALLS
                && let Some(oldest) = self.order.pop_front()
            {
                self.calls.remove(&oldest);
            }
            self.order.push_back(id.clone());
        }
        let known = self.calls.entry(id.clone()).or_default();
        known.learn(&change);
        if !is_new {
            return RunnerEvent::ToolUpdated { tool_call_id: id, change };
        }
        RunnerEvent::ToolStarted {
            tool_call_id: id,
            title: change.title.unwrap_or_default(),
            kind: change.kind.unwrap_or_default(),
            status: change.status.unwrap_or_default(),
            input: change.input.unwrap_or_default(),
            locations: change.locations.unwrap_or_default(),
            content: change.content.unwrap_or_default(),
        }
    }
}

impl Known {
    fn learn(&mut self, change: &ToolChange) {
        if let Some(title) = &change.title {
            self.title.clone_from(title);
        }
        if let Some(kind) = change.kind {
            self.kind = kind;
        }
        if let Some(input) = &change.input {
            self.input = input.clone();
        }
        let diffs = change.content.iter().flatten().filter_map(|part| match part {
            ToolContent::Diff { path, .. } => Some(path),
            _ => None,
        });
        let paths: Vec<String> = change.locations.iter().flatten().map(|at| &at.path).chain(diffs).cloned().collect();
        if !paths.is_empty() {
            self.paths = paths;
            self.paths.sort();
            self.paths.dedup();
        }
    }

    /// The command that the call runs, if its arguments tell of one.
    pub(super) fn command(&self) -> Option<String> {
        if let Some(Value::Array(commands)) = self.input.get("commands") {
            // Each is a command of its own.
            let commands: Vec<&str> = commands.iter().filter_map(Value::as_str).collect();
            return Some(commands.join("\n"));
        }
        let given = ["command", "cmd", "script", "commands"].iter().find_map(|name| self.input.get(name))?;
        match given {
            Value::String(command) => Some(command.clone()),
            Value::Array(words) => {
                let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
                Some(match words.as_slice() {
                    // A shell that is given its script.
                    [shell, flag, script] if is_shell(shell) && flag.starts_with('-') && flag.ends_with('c') => {
                        (*script).to_owned()
                    }
                    words => words.join(" "),
                })
            }
            _ => None,
        }
    }
}

fn is_shell(program: &str) -> bool {
    ["sh", "bash", "zsh", "dash"].contains(&program.rsplit('/').next().unwrap_or_default())
}

fn change(fields: acp::ToolCallUpdateFields) -> ToolChange {
    // The protocol has no field for it; agents that say it, say it so.
    let exit_code = fields.raw_output.as_ref().and_then(|output| output["exit_code"].as_i64());
    ToolChange {
        title: fields.title.map(|title| content::short_or_marked(&title)),
        kind: fields.kind.map(kind),
        status: fields.status.map(status),
        input: fields.raw_input.map(|input| content::value(input, MAX_TEXT)),
        locations: fields.locations.map(|all| all.iter().take(MAX_PARTS).map(location).collect()),
        content: fields.content.map(|all| all.into_iter().take(MAX_PARTS).map(part).collect()),
        output: fields.raw_output.map(|output| content::value(output, MAX_TEXT)),
        exit_code: exit_code.and_then(|code| i32::try_from(code).ok()),
    }
}

fn location(at: &acp::ToolCallLocation) -> Location {
    Location { path: content::short_or_marked(&at.path.to_string_lossy()), line: at.line }
}

fn part(part: acp::ToolCallContent) -> ToolContent {
    match part {
        acp::ToolCallContent::Content(acp::Content { content: acp::ContentBlock::Text(text), .. }) => {
            ToolContent::Text { text: content::text(text.text, MAX_TEXT).0 }
        }
        acp::ToolCallContent::Content(other) => ToolContent::Other { content: content::block(&other.content) },
        acp::ToolCallContent::Diff(diff) => {
            let old = diff.old_text.map(|text| content::text(text, MAX_DIFF));
            let (new_text, is_cut) = content::text(diff.new_text, MAX_DIFF);
            let truncated = is_cut || old.as_ref().is_some_and(|(_, is_cut)| *is_cut);
            let path = content::short_or_marked(&diff.path.to_string_lossy());
            ToolContent::Diff { path, old_text: old.map(|(text, _)| text), new_text, truncated }
        }
        acp::ToolCallContent::Terminal(terminal) => {
            ToolContent::Terminal { terminal_id: content::short(&terminal.terminal_id.0) }
        }
        other => {
            ToolContent::Other { content: content::value(serde_json::to_value(other).unwrap_or_default(), MAX_TEXT) }
        }
    }
}

fn kind(kind: acp::ToolKind) -> ToolKind {
    match kind {
        acp::ToolKind::Read => ToolKind::Read,
        acp::ToolKind::Edit => ToolKind::Edit,
        acp::ToolKind::Delete => ToolKind::Delete,
        acp::ToolKind::Move => ToolKind::Move,
        acp::ToolKind::Search => ToolKind::Search,
        acp::ToolKind::Execute => ToolKind::Execute,
        acp::ToolKind::Think => ToolKind::Think,
        acp::ToolKind::Fetch => ToolKind::Fetch,
        acp::ToolKind::SwitchMode => ToolKind::SwitchMode,
        _ => ToolKind::Other,
    }
}

fn status(status: acp::ToolCallStatus) -> ToolStatus {
    match status {
        acp::ToolCallStatus::InProgress => ToolStatus::InProgress,
        acp::ToolCallStatus::Completed => ToolStatus::Completed,
        acp::ToolCallStatus::Failed => ToolStatus::Failed,
        _ => ToolStatus::Pending,
    }
}
