//! Live events for people: the agent's text and output on standard output, everything around it on standard error.

use std::{collections::BTreeMap, io, sync::Arc};

use ambient_wire::{
    custom::{self, ENDED_BY_REQUEST},
    git::GitPushed,
    live::Event,
};
use serde::Deserialize;
use serde_json::Value;

use super::Snapshot;
use crate::output::{
    Console, OutputFormat, Style, escape,
    lines::{Lines, Source},
    table::cut,
};

/// Most tool calls remembered at once, and most bytes of one call's arguments.
const MAX_CALLS: usize = 256;
const MAX_ARGUMENTS: usize = 64 << 10;
/// Longest line made from an agent's text, characters.
const MAX_LINE: usize = 160;

/// A tool call between its start and its result.
#[derive(Debug, Default)]
struct Call {
    name: String,
    arguments: String,
    announced: bool,
    streamed: bool,
}

/// Prints events one after another.
pub(crate) struct Renderer {
    console: Arc<Console>,
    format: OutputFormat,
    calls: BTreeMap<String, Call>,
    lines: Lines,
    /// What the last phase said, so that the next need not repeat it.
    told: String,
}

impl Renderer {
    pub(crate) fn new(console: Arc<Console>, format: OutputFormat) -> Self {
        let lines = Lines::new(console.clone());
        Self { console, format, calls: BTreeMap::new(), lines, told: String::new() }
    }

    /// Prints an event in the requested format.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        match self.format {
            OutputFormat::Table => self.for_people(event),
            OutputFormat::Name => Ok(()),
            OutputFormat::Json => self.console.json_line(&serde_json::to_string(event)?),
        }
    }

    /// Prints the messages so far as if their events had arrived.
    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        match self.format {
            OutputFormat::Table => self.messages(&snapshot.data),
            OutputFormat::Name => Ok(()),
            OutputFormat::Json => self.console.json_line(&snapshot.data.to_string()),
        }
    }

    /// Ends the line in progress.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.lines.end_line()
    }

    fn messages(&mut self, data: &Value) -> io::Result<()> {
        if let Some(omitted) = data["omitted"].as_u64().filter(|omitted| *omitted > 0) {
            self.progress(
                Style::Dim,
                &format!("  {omitted} earlier messages are left out; --after-seq 0 shows everything"),
            )?;
        }
        for message in data["messages"].as_array().into_iter().flatten() {
            match text(message, "role") {
                "user" => self.prompted(text(message, "content"))?,
                "tool" => self.outcome(text(message, "content"), &message["exitCode"])?,
                _ => self.said(message)?,
            }
        }
        Ok(())
    }

    /// The agent's text, and the calls it made with it.
    fn said(&mut self, message: &Value) -> io::Result<()> {
        self.lines.write(Source::Words, text(message, "content"))?;
        self.lines.end(Source::Words)?;
        for call in message["toolCalls"].as_array().into_iter().flatten() {
            let line = headline(text(&call["function"], "name"), text(&call["function"], "arguments"));
            self.console.styled(Style::Bold, &format!("{}\n", escape::line(&line)))?;
        }
        Ok(())
    }

    fn for_people(&mut self, event: &Event) -> io::Result<()> {
        let data = &event.data;
        match event.event_type.as_str() {
            "session.phase" => self.phase(data),
            "session.condition" => self.condition(data),
            "session.blocked" if !data.is_null() => {
                self.progress(Style::Yellow, &format!("  waiting: {}", sentence(data, "reason", "blocked_on")))
            }
            "session.deleted" => self.progress(Style::Bold, "● deleted"),
            "user.message" => self.prompted(text(data, "text")),
            "RUN_ERROR" => self.turn_ended(data),
            "TEXT_MESSAGE_CONTENT" | "TEXT_MESSAGE_CHUNK" => self.lines.write(Source::Words, text(data, "delta")),
            "TEXT_MESSAGE_START" | "TEXT_MESSAGE_END" => self.lines.end(Source::Words),
            "TOOL_CALL_START" => {
                self.call_started(text(data, "toolCallId"), text(data, "toolCallName"));
                Ok(())
            }
            "TOOL_CALL_ARGS" => {
                self.call_arguments(text(data, "toolCallId"), text(data, "delta"));
                Ok(())
            }
            "TOOL_CALL_END" => self.announce(text(data, "toolCallId")),
            "TOOL_CALL_RESULT" => self.result(data),
            "CUSTOM" => self.custom(text(data, "name"), &data["value"]),
            // Events that a later release may send, and those that only frame others.
            _ => Ok(()),
        }
    }

    fn phase(&mut self, data: &Value) -> io::Result<()> {
        let (phase, reason) = (text(data, "phase"), text(data, "reason"));
        let style = match phase {
            "Failed" => Style::Red,
            "Completed" => Style::Green,
            _ => Style::Bold,
        };
        let mut line = format!("● {phase}");
        if reason != phase && !reason.is_empty() {
            line += &format!(" ({reason})");
        }
        let message = text(data, "message");
        if !message.is_empty() && message != self.told {
            line += &format!(": {message}");
        }
        message.clone_into(&mut self.told);
        self.progress(style, &line)
    }

    fn condition(&mut self, data: &Value) -> io::Result<()> {
        let not = if text(data, "status") == "True" { "" } else { "not " };
        let (condition, reason) = (text(data, "type"), sentence(data, "reason", "message"));
        let why = if reason == condition || reason.is_empty() { String::new() } else { format!(": {reason}") };
        self.progress(Style::Dim, &format!("  {not}{condition}{why}"))
    }

    /// A turn that did not finish: it was stopped, or it failed.
    fn turn_ended(&mut self, data: &Value) -> io::Result<()> {
        text(data, "message").clone_into(&mut self.told);
        match text(data, "code") {
            "Interrupted" | "Terminated" => {
                self.progress(Style::Yellow, &format!("  turn stopped: {}", text(data, "message")))
            }
            _ => self.progress(Style::Red, &format!("  turn failed: {}", sentence(data, "code", "message"))),
        }
    }

    fn prompted(&mut self, text: &str) -> io::Result<()> {
        self.progress(Style::Cyan, &format!("> {}", first_line(text)))
    }

    fn call_started(&mut self, id: &str, name: &str) {
        // A call without a result is kept; the oldest is evicted.
        if self.calls.len() >= MAX_CALLS {
            self.calls.pop_first();
        }
        self.calls.insert(id.to_owned(), Call { name: name.to_owned(), ..Call::default() });
    }

    fn call_arguments(&mut self, id: &str, delta: &str) {
        if let Some(call) = self.calls.get_mut(id).filter(|call| call.arguments.len() + delta.len() <= MAX_ARGUMENTS) {
            call.arguments.push_str(delta);
        }
    }

    /// Says which call it is, once its arguments are complete.
    fn announce(&mut self, id: &str) -> io::Result<()> {
        let Some(call) = self.calls.get_mut(id).filter(|call| !call.announced) else {
            return Ok(());
        };
        call.announced = true;
        let line = headline(&call.name, &call.arguments);
        self.lines.end_line()?;
        self.console.styled(Style::Bold, &format!("{}\n", escape::line(&line)))
    }

    fn output(&mut self, value: &Value) -> io::Result<()> {
        let id = text(value, "toolCallId");
        self.announce(id)?;
        if let Some(call) = self.calls.get_mut(id) {
            call.streamed = true;
        }
        let source = if text(value, "stream") == "stderr" { Source::Errors } else { Source::Output };
        self.lines.write(source, text(value, "text"))
    }

    fn result(&mut self, data: &Value) -> io::Result<()> {
        let id = text(data, "toolCallId");
        self.announce(id)?;
        let streamed = self.calls.remove(id).is_some_and(|call| call.streamed);
        self.outcome(if streamed { "" } else { text(data, "content") }, &data["exitCode"])
    }

    fn outcome(&mut self, content: &str, exit_code: &Value) -> io::Result<()> {
        self.lines.write(Source::Output, content)?;
        self.lines.end(Source::Output)?;
        self.lines.end(Source::Errors)?;
        match exit_code.as_i64() {
            None | Some(0) => Ok(()),
            Some(code) => self.console.styled(Style::Red, &format!("exit code {code}\n")),
        }
    }

    fn custom(&mut self, name: &str, value: &Value) -> io::Result<()> {
        match name {
            custom::TOOL_OUTPUT => self.output(value),
            custom::ATTEMPT_STARTED if value["resumed"] == true => {
                self.progress(Style::Dim, &format!("  runner is back (attempt {})", value["attempt"]))
            }
            custom::SNAPSHOT => {
                let commit = cut(text(value, "commit"), 13);
                let running = value["running"].as_u64().filter(|running| *running > 0);
                let moving =
                    running.map(|n| format!(", while {n} processes of the agent were running")).unwrap_or_default();
                self.progress(Style::Dim, &format!("  snapshot of {}: {commit}{moving}", text(value, "repo")))
            }
            custom::PUSHED => {
                let Ok(pushed) = GitPushed::deserialize(value) else { return Ok(()) };
                self.progress(Style::Dim, &format!("  {}", pushed.words()))?;
                let repo = text(value, "repo");
                pushed.remarks().try_for_each(|remark| self.progress(Style::Yellow, &format!("  {repo}: {remark}")))
            }
            custom::REPO_NOTICES => {
                let repo = text(value, "repo");
                for notice in value["notices"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.progress(Style::Yellow, &format!("  {repo}: {notice}"))?;
                }
                Ok(())
            }
            custom::SNAPSHOT_FAILED => {
                self.progress(Style::Yellow, &format!("  no snapshot of {}", sentence(value, "repo", "reason")))
            }
            // The phases already say this.
            custom::EXIT if [ENDED_BY_REQUEST, self.told.as_str()].contains(&text(value, "reason")) => Ok(()),
            custom::EXIT => {
                self.progress(Style::Dim, &format!("  runner ended: {} {}", value["code"], text(value, "reason")))
            }
            _ => Ok(()),
        }
    }

    /// A line beside the output. If both streams go to the same terminal, it starts on a new line.
    fn progress(&mut self, style: Style, line: &str) -> io::Result<()> {
        if self.console.out_is_terminal() {
            self.lines.end_line()?;
        }
        self.console.progress(style, line);
        Ok(())
    }
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_default()
}

/// `word: explanation`, leaving out what is empty.
fn sentence(data: &Value, word: &str, explanation: &str) -> String {
    match (text(data, word), text(data, explanation)) {
        (word, "") => word.to_owned(),
        ("", explanation) => explanation.to_owned(),
        (word, explanation) => format!("{word}: {explanation}"),
    }
}

fn first_line(text: &str) -> String {
    // A fence says nothing, but its content does.
    let is_fence = |line: &str| line.starts_with("```") || line.starts_with("~~~");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !is_fence(line.trim_start()));
    let first = cut(lines.next().unwrap_or_default().trim(), MAX_LINE);
    if lines.next().is_some() { format!("{first} …") } else { first }
}

/// A call on one line: a shell call as its first command, any other as name and arguments.
fn headline(name: &str, arguments: &str) -> String {
    let parsed: Value = serde_json::from_str(arguments).unwrap_or_default();
    let named = ["script", "command", "cmd"].into_iter().find_map(|key| parsed[key].as_str());
    // The script agent's arguments are the script itself.
    let script = named.or_else(|| (name == "shell" && !parsed.is_object()).then_some(arguments));
    match script {
        Some(script) => format!("$ {}", first_line(script)),
        None => cut(format!("[{name}] {}", arguments.trim()).trim_end(), MAX_LINE),
    }
}

#[cfg(test)]
mod tests;
