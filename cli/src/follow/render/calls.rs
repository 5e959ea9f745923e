//! Tool calls between their start and their end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ambient_wire::runner_event::{
    OutputStream, PermissionRequest, ToolChange, ToolContent, ToolKind, ToolStatus, content_in_words, output_in_words,
};
use serde_json::{Value, json};

use super::{
    Block, Renderer, diff, folded,
    words::{command_line, headline},
};
use crate::output::{Style, escape, lines::Source, table::cut};

/// Most tool calls remembered at once.
const MAX_CALLS: usize = 256;
/// Most lines shown of what a call that is no command has returned: it is for the agent.
const MAX_RETURNED: usize = 5;
/// Among the changes of files that were shown: what a push would bring.
const PATCH: &str = "\0patch";
/// Most characters of one of these lines.
const MAX_COLUMNS: usize = 160;

/// Calls by id.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<String, Call>,
    /// In the order in which they came.
    order: std::collections::VecDeque<String>,
}

/// A tool call between its start and its result.
#[derive(Debug, Default)]
struct Call {
    title: String,
    kind: ToolKind,
    input: Value,
    content: Vec<ToolContent>,
    output: Option<Value>,
    exit_code: Option<i32>,
    announced: bool,
    streamed: bool,
    over: bool,
    /// Changes of files that were shown.
    shown: BTreeSet<String>,
    /// Output that is folded away, the end of it, and its lines.
    printed: String,
    printed_lines: usize,
}

impl Calls {
    /// Until its result; the oldest is evicted.
    fn keep(&mut self, id: &str, call: Call) {
        if self.calls.insert(id.to_owned(), call).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > MAX_CALLS {
            self.order.pop_front().and_then(|oldest| self.calls.remove(&oldest));
        }
    }

    fn forget(&mut self, id: &str) {
        self.calls.remove(id);
        self.order.retain(|known| known != id);
    }

    /// Those that were not announced, since what they are about was still to come.
    fn waiting(&self) -> Vec<String> {
        self.order.iter().filter(|id| self.calls.get(*id).is_some_and(|call| !call.announced)).cloned().collect()
    }
}

impl Call {
    fn take(&mut self, change: ToolChange) {
        let ToolChange { title, kind, status, input, locations: _, content, output, exit_code } = change;
        self.title = title.unwrap_or(std::mem::take(&mut self.title));
        self.kind = kind.unwrap_or(self.kind);
        self.input = input.unwrap_or(std::mem::take(&mut self.input));
        self.content = content.unwrap_or(std::mem::take(&mut self.content));
        self.output = output.or(self.output.take());
        self.exit_code = exit_code.or(self.exit_code);
        self.over |= matches!(status, Some(ToolStatus::Completed | ToolStatus::Failed));
    }

    /// Agents often say what a call is about only when it has begun: a command is worth waiting for.
    fn is_known(&self, status: ToolStatus) -> bool {
        if self.kind == ToolKind::Execute {
            return command_line(self.kind, &self.input).is_some();
        }
        status != ToolStatus::Pending || self.input.as_object().is_some_and(|input| !input.is_empty())
    }

    /// What it has returned, as far as it was not shown yet.
    fn returned(&self) -> String {
        // What a push would bring was shown when it was asked for.
        if self.streamed || self.kind == ToolKind::Push {
            return String::new();
        }
        if let Some(text) = self.output.as_ref().and_then(output_in_words) {
            return text.to_owned();
        }
        let words = self.content.iter().filter_map(|content| match content {
            ToolContent::Text { text } => Some(text.clone()),
            ToolContent::Other { content } => Some(content_in_words(content)),
            ToolContent::Diff { .. } | ToolContent::Terminal { .. } => None,
        });
        words.collect::<Vec<_>>().join("\n")
    }
}

impl Renderer {
    pub(super) fn call_started(&mut self, id: &str, change: ToolChange) -> io::Result<()> {
        self.announce_waiting()?;
        let status = change.status.unwrap_or_default();
        let mut call = Call::default();
        call.take(change);
        let known = call.is_known(status) || call.over;
        self.calls.keep(id, call);
        if known {
            self.announce(id)?;
            self.show_diffs_at_once(id)?;
        }
        self.end_if_over(id, status)
    }

    pub(super) fn call_changed(&mut self, id: &str, change: ToolChange) -> io::Result<()> {
        let status = change.status.unwrap_or_default();
        // It began before what this reader sees: what it has returned is all there is.
        let call = match self.calls.calls.get_mut(id) {
            Some(call) => call,
            None => {
                self.calls.keep(id, Call { announced: true, ..Call::default() });
                self.calls.calls.entry(id.to_owned()).or_default()
            }
        };
        call.take(change);
        if call.is_known(status) || call.over {
            self.announce(id)?;
            self.show_diffs_at_once(id)?;
        }
        self.end_if_over(id, status)
    }

    pub(super) fn call_output(&mut self, id: &str, stream: OutputStream, text: &str) -> io::Result<()> {
        self.announce(id)?;
        match self.calls.calls.get_mut(id) {
            Some(call) => call.streamed = true,
            // It began before what this reader sees: its result repeats what is shown from here on.
            None => self.calls.keep(id, Call { announced: true, streamed: true, ..Call::default() }),
        }
        if self.is_folded() {
            if let Some(call) = self.calls.calls.get_mut(id) {
                folded::keep(&mut call.printed, &mut call.printed_lines, text);
            }
            return Ok(());
        }
        self.block(Block::Call)?;
        let source = if stream == OutputStream::Stderr { Source::Errors } else { Source::Output };
        self.lines.write(source, text)
    }

    /// What a request says about its call, if that was not known.
    pub(super) fn learn(&mut self, request: &PermissionRequest) {
        let call = self.calls.calls.get_mut(&request.tool_call_id);
        if let (Some(call), Some(command)) = (call.filter(|call| !call.announced), &request.command) {
            (call.kind, call.input) = (request.kind, json!({ "command": command }));
        }
    }

    /// Says which calls have begun, whether more will be known of them or not.
    pub(super) fn announce_waiting(&mut self) -> io::Result<()> {
        self.calls.waiting().iter().try_for_each(|id| self.announce(id))
    }

    pub(super) fn announce(&mut self, id: &str) -> io::Result<()> {
        let Some(call) = self.calls.calls.get_mut(id).filter(|call| !call.announced) else {
            return Ok(());
        };
        call.announced = true;
        let line = headline(call.kind, &call.title, &call.input);
        if self.is_folded() { self.open_line(id, &line) } else { self.call_line(&line) }
    }

    /// Where calls are folded, changes of files are shown when the call is over, or asks.
    fn show_diffs_at_once(&mut self, id: &str) -> io::Result<()> {
        if self.is_folded() { Ok(()) } else { self.show_diffs(id) }
    }

    /// Each change of a file once, although agents repeat them.
    pub(super) fn show_diffs(&mut self, id: &str) -> io::Result<()> {
        let Some(call) = self.calls.calls.get_mut(id) else { return Ok(()) };
        let mut diffs = Vec::new();
        for content in &call.content {
            if let ToolContent::Diff { path, old_text, new_text, truncated } = content
                && call.shown.len() < MAX_CALLS
                && call.shown.insert(format!("{path}\0{}\0{new_text}", old_text.as_deref().unwrap_or_default()))
            {
                diffs.push(diff::of(path, old_text.as_deref(), new_text, *truncated));
            }
        }
        if call.kind == ToolKind::Push && call.shown.insert(PATCH.to_owned()) {
            let texts = call.content.iter().filter_map(|content| match content {
                ToolContent::Text { text } => Some(text.as_str()),
                _ => None,
            });
            diffs.push(diff::patch("What would go there:", texts));
        }
        for diff in diffs {
            self.block(Block::Call)?;
            self.lines.end_line()?;
            self.console.styled(Style::Dim, &format!("  {}\n", escape::line(&diff.summary)))?;
            for (style, line) in diff.lines {
                self.console.styled(style, &format!("  {}\n", shown(&line)))?;
            }
        }
        Ok(())
    }

    fn end_if_over(&mut self, id: &str, status: ToolStatus) -> io::Result<()> {
        let Some(call) = self.calls.calls.get(id).filter(|call| call.over) else { return Ok(()) };
        let (returned, exit_code) = (call.returned(), call.exit_code);
        let is_command = call.kind == ToolKind::Execute || call.exit_code.is_some();
        let has_failed = status == ToolStatus::Failed;
        if self.folded.is_some() {
            let line = headline(call.kind, &call.title, &call.input);
            let (text, lines) = match call.printed_lines {
                0 => (returned.clone(), returned.lines().count()),
                lines => (call.printed.clone(), lines),
            };
            let failed = has_failed || exit_code.is_some_and(|code| code != 0);
            let outcome = folded::Outcome { line, text, lines, failed, exit_code };
            if self.is_folded() {
                self.close_line(id, &outcome)?;
                self.show_diffs(id)?;
                self.calls.forget(id);
                self.remember(outcome);
                return Ok(());
            }
            self.remember(outcome);
        }
        let Some(call) = self.calls.calls.get(id) else { return Ok(()) };
        // Whose kind is not known gets its output shown: it may be a command's.
        let is_unknown = call.title.is_empty();
        self.calls.forget(id);
        if is_command || is_unknown || has_failed {
            self.outcome(&returned, exit_code.map(i64::from))?;
        } else {
            self.folded(&returned)?;
        }
        match exit_code {
            None if has_failed => self.console.styled(Style::Red, "failed\n"),
            _ => Ok(()),
        }
    }
}

impl Renderer {
    /// The first lines, and how many more there are.
    fn folded(&mut self, text: &str) -> io::Result<()> {
        let count = text.lines().count();
        let most = if count <= MAX_RETURNED { count } else { MAX_RETURNED - 1 };
        for line in text.lines().take(most) {
            self.console.styled(Style::Dim, &format!("  {}\n", shown(&cut(line, MAX_COLUMNS))))?;
        }
        if count > most {
            self.console.styled(Style::Dim, &format!("  … {} more lines\n", count - most))?;
        }
        Ok(())
    }
}

/// A line of a file: tabs stay.
pub(super) fn shown(line: &str) -> String {
    line.split('\t').map(escape::line).collect::<Vec<_>>().join("\t")
}
