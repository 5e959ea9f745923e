//! Live events for people: the agent's own words and output on standard output, what happens around it on standard error.

use std::{collections::BTreeMap, io, sync::Arc};

use ambient_wire::{live::Event, runner::custom};
use serde_json::Value;

use crate::output::{Console, OutputFormat, Style, escape, table::cut};

/// Most tool calls that are remembered at once, and most bytes of one's arguments.
const MAX_CALLS: usize = 256;
const MAX_ARGUMENTS: usize = 64 << 10;
/// Longest line that is made of an agent's text, characters.
const MAX_LINE: usize = 160;

/// A tool call between its start and its result.
#[derive(Debug, Default)]
struct Call {
    name: String,
    arguments: String,
    announced: bool,
    streamed: bool,
}

/// Prints events one after the other.
pub(crate) struct Renderer {
    console: Arc<Console>,
    format: OutputFormat,
    calls: BTreeMap<String, Call>,
    /// Whether the last line of the agent's output is not ended yet.
    line_is_open: bool,
}

impl Renderer {
    pub(crate) fn new(console: Arc<Console>, format: OutputFormat) -> Self {
        Self { console, format, calls: BTreeMap::new(), line_is_open: false }
    }

    /// Prints an event in the format that was asked for.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        match self.format {
            OutputFormat::Table => self.for_people(event),
            OutputFormat::Name => Ok(()),
            OutputFormat::Json => self.console.data(&(serde_json::to_string(event)? + "\n")),
        }
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
            "user.message" => self.message(data),
            "RUN_ERROR" => self.progress(Style::Red, &format!("  turn failed: {}", sentence(data, "code", "message"))),
            "TEXT_MESSAGE_CONTENT" | "TEXT_MESSAGE_CHUNK" => self.content(Style::Plain, text(data, "delta")),
            "TEXT_MESSAGE_START" | "TEXT_MESSAGE_END" => self.end_line(),
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
            // What a later release may send, and what only frames the rest.
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
        if !message.is_empty() {
            line += &format!(": {message}");
        }
        self.progress(style, &line)
    }

    fn condition(&mut self, data: &Value) -> io::Result<()> {
        let (condition, status) = (text(data, "type"), text(data, "status"));
        let line = format!("  {condition} {status} {}", sentence(data, "reason", "message"));
        self.progress(Style::Dim, line.trim_end())
    }

    fn message(&mut self, data: &Value) -> io::Result<()> {
        let first = first_line(text(data, "text"));
        self.progress(Style::Cyan, &format!("> {first}"))
    }

    fn call_started(&mut self, id: &str, name: &str) {
        // A call without a result stays; the oldest makes room.
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
        self.end_line()?;
        self.console.styled(Style::Bold, &format!("{}\n", escape::line(&line)))
    }

    fn output(&mut self, value: &Value) -> io::Result<()> {
        let id = text(value, "toolCallId");
        self.announce(id)?;
        if let Some(call) = self.calls.get_mut(id) {
            call.streamed = true;
        }
        let style = if text(value, "stream") == "stderr" { Style::Yellow } else { Style::Plain };
        self.content(style, text(value, "text"))
    }

    fn result(&mut self, data: &Value) -> io::Result<()> {
        let id = text(data, "toolCallId");
        self.announce(id)?;
        let streamed = self.calls.remove(id).is_some_and(|call| call.streamed);
        if !streamed {
            self.content(Style::Plain, text(data, "content"))?;
        }
        self.end_line()?;
        match data["exitCode"].as_i64() {
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
                self.progress(Style::Dim, &format!("  snapshot of {}: {commit}", text(value, "repo")))
            }
            custom::SNAPSHOT_FAILED => {
                self.progress(Style::Yellow, &format!("  no snapshot of {}", sentence(value, "repo", "reason")))
            }
            custom::EXIT => {
                self.progress(Style::Dim, &format!("  runner ended: {} {}", value["code"], text(value, "reason")))
            }
            _ => Ok(()),
        }
    }

    /// The agent's output; ends no line that it does not end.
    fn content(&mut self, style: Style, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.line_is_open = !text.ends_with('\n');
        self.console.styled(style, &escape::text(text))
    }

    fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.line_is_open) { self.console.data("\n") } else { Ok(()) }
    }

    /// A line beside the output. Where both streams meet on a terminal it begins a line of its own.
    fn progress(&mut self, style: Style, line: &str) -> io::Result<()> {
        if self.console.out_is_terminal() {
            self.end_line()?;
        }
        self.console.progress(style, &escape::line(line));
        Ok(())
    }
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_default()
}

/// `word: explanation`, as far as there is something to say.
fn sentence(data: &Value, word: &str, explanation: &str) -> String {
    match (text(data, word), text(data, explanation)) {
        (word, "") => word.to_owned(),
        ("", explanation) => explanation.to_owned(),
        (word, explanation) => format!("{word}: {explanation}"),
    }
}

fn first_line(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = cut(lines.next().unwrap_or_default(), MAX_LINE);
    if lines.next().is_some() { format!("{first} …") } else { first }
}

/// A call in one line: a shell's as its first command, any other as name and arguments.
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::capture;

    fn events() -> Vec<Event> {
        let event = |(n, (event_type, mut data)): (usize, (&str, Value))| {
            if event_type.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                data["type"] = json!(event_type);
            }
            Event { seq: n as i64 + 1, event_type: event_type.to_owned(), data, at: chrono::DateTime::UNIX_EPOCH }
        };
        let output = |id: &str, stream: &str, text: &str| json!({"name": "ambient.tool_output", "value": {"toolCallId": id, "stream": stream, "text": text}});
        let told = vec![
            ("session.phase", json!({"phase": "Pending", "reason": "Pending", "message": "", "run": 1})),
            ("user.message", json!({"text": "# Task\nDo it", "is_prompt": true})),
            (
                "session.condition",
                json!({"type": "RunnerStarted", "status": "True", "reason": "Running", "message": ""}),
            ),
            ("session.phase", json!({"phase": "Running", "reason": "Running", "message": "", "run": 1})),
            ("RUN_STARTED", json!({"runId": "r"})),
            ("TEXT_MESSAGE_START", json!({"messageId": "m"})),
            ("TEXT_MESSAGE_CONTENT", json!({"messageId": "m", "delta": "Let me "})),
            ("TEXT_MESSAGE_CONTENT", json!({"messageId": "m", "delta": "look.\u{1b}[2J"})),
            ("TEXT_MESSAGE_END", json!({"messageId": "m"})),
            ("TOOL_CALL_START", json!({"toolCallId": "a", "toolCallName": "shell"})),
            ("TOOL_CALL_ARGS", json!({"toolCallId": "a", "delta": "{\"script\":\"make "})),
            ("TOOL_CALL_ARGS", json!({"toolCallId": "a", "delta": "test\\necho done\"}"})),
            ("TOOL_CALL_END", json!({"toolCallId": "a"})),
            ("CUSTOM", output("a", "stdout", "one\ntw")),
            ("CUSTOM", output("a", "stdout", "o")),
            ("CUSTOM", output("a", "stderr", "!\r\n")),
            ("TOOL_CALL_RESULT", json!({"toolCallId": "a", "content": "one\ntwo!\n", "exitCode": 3})),
            ("TOOL_CALL_START", json!({"toolCallId": "c", "toolCallName": "shell"})),
            ("TOOL_CALL_ARGS", json!({"toolCallId": "c", "delta": "\ncargo test"})),
            ("TOOL_CALL_END", json!({"toolCallId": "c"})),
            ("TOOL_CALL_RESULT", json!({"toolCallId": "c", "content": "", "exitCode": 0})),
            ("TOOL_CALL_START", json!({"toolCallId": "b", "toolCallName": "read_file"})),
            ("TOOL_CALL_ARGS", json!({"toolCallId": "b", "delta": "{\"path\":\"a.txt\"}"})),
            ("TOOL_CALL_RESULT", json!({"toolCallId": "b", "content": "content"})),
            (
                "CUSTOM",
                json!({"name": "ambient.snapshot", "value": {"repo": "demo", "commit": "0123456789abcdef", "ref": "x"}}),
            ),
            ("CUSTOM", json!({"name": "ambient.snapshot_failed", "value": {"repo": "other", "reason": "disk full"}})),
            ("CUSTOM", json!({"name": "ambient.attempt_started", "value": {"attempt": 2, "resumed": true}})),
            ("RUN_ERROR", json!({"code": "ScriptFailed", "message": "block 1 ended with 3"})),
            ("A_LATER_RELEASES", json!({"x": 1})),
            ("session.blocked", json!({"reason": "StopIncomplete", "blocked_on": "process 12"})),
            ("session.blocked", Value::Null),
            ("CUSTOM", json!({"name": "ambient.exit", "value": {"code": 3, "reason": "script failed"}})),
            ("session.phase", json!({"phase": "Stopping", "reason": "RunnerExit", "message": "exit code 3"})),
            ("session.phase", json!({"phase": "Failed", "reason": "RunnerExit", "message": "exit code 3"})),
        ];
        told.into_iter().enumerate().map(event).collect()
    }

    #[test]
    fn the_agents_words_and_output_are_told_apart_from_progress() {
        let (console, out, err) = capture::console(false, false);
        let mut renderer = Renderer::new(console, OutputFormat::Table);
        for event in events() {
            renderer.event(&event).unwrap();
        }
        insta::assert_snapshot!(out.text(), @r#"
        Let me look.\u{1b}[2J
        $ make test …
        one
        two!
        exit code 3
        $ cargo test
        [read_file] {"path":"a.txt"}
        content
        "#);
        insta::assert_snapshot!(err.text(), @"
        ● Pending
        > # Task …
          RunnerStarted True Running
        ● Running
          snapshot of demo: 0123456789ab…
          no snapshot of other: disk full
          runner is back (attempt 2)
          turn failed: ScriptFailed: block 1 ended with 3
          waiting: StopIncomplete: process 12
          runner ended: 3 script failed
        ● Stopping (RunnerExit): exit code 3
        ● Failed (RunnerExit): exit code 3
        ");
    }

    #[test]
    fn json_is_one_event_a_line() {
        let (console, out, err) = capture::console(false, false);
        let mut renderer = Renderer::new(console, OutputFormat::Json);
        for event in events() {
            renderer.event(&event).unwrap();
        }
        let read: Vec<Event> = out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, events());
        assert_eq!(err.text(), "");
    }

    #[test]
    fn on_a_terminal_progress_never_ends_up_behind_half_a_line() {
        let (console, out, _) = capture::console(true, false);
        let mut renderer = Renderer::new(console, OutputFormat::Table);
        let event = |event_type: &str, data: Value| Event {
            seq: 1,
            event_type: event_type.to_owned(),
            data,
            at: chrono::DateTime::UNIX_EPOCH,
        };
        renderer.event(&event("TEXT_MESSAGE_CONTENT", json!({"delta": "half"}))).unwrap();
        renderer.event(&event("session.phase", json!({"phase": "Stopping"}))).unwrap();
        assert_eq!(out.text(), "half\n");
    }
}
