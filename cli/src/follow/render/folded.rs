//! Tool calls on a line each: `✓ $ make test · 12 lines`. What they have printed is kept for a while, for whoever wants to see it.

use std::{collections::VecDeque, io};

use super::{Block, Renderer, calls::shown};
use crate::output::{Style, escape, lines::Source, table::cut};

/// Most of a call's output that is kept, bytes: the end of it.
const MAX_KEPT: usize = 64 * 1024;
/// Calls whose output is kept.
const MAX_CALLS: usize = 8;
/// Most lines shown of what a failed call has printed.
const MAX_LINES: usize = 8;
/// Columns for what a call came to, beside its title.
const FOR_OUTCOME: usize = 34;

/// Calls of a conversation.
#[derive(Debug)]
pub(super) struct Folded {
    /// They are shown in full.
    details: bool,
    kept: VecDeque<Outcome>,
}

impl Folded {
    pub(super) fn new(details: bool) -> Self {
        Self { details, kept: VecDeque::new() }
    }
}

/// What a call came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) line: String,
    /// What it has printed or returned, the end of it.
    pub(super) text: String,
    /// Lines of all that it has printed.
    pub(super) lines: usize,
    pub(super) failed: bool,
    pub(super) exit_code: Option<i32>,
}

impl Outcome {
    fn words(&self) -> String {
        let code = self.exit_code.filter(|code| *code != 0).map(|code| format!("exit code {code}"));
        let failed = (self.failed && code.is_none()).then(|| "failed".to_owned());
        let lines = match self.lines {
            0 => None,
            1 => Some("1 line".to_owned()),
            lines => Some(format!("{lines} lines")),
        };
        code.into_iter().chain(failed).chain(lines).map(|part| format!(" · {part}")).collect()
    }
}

/// Adds to a text that keeps its end, and counts lines.
pub(super) fn keep(kept: &mut String, lines: &mut usize, text: &str) {
    let goes_on = !kept.is_empty() && !kept.ends_with('\n');
    *lines += text.lines().count().saturating_sub(usize::from(goes_on));
    kept.push_str(text);
    if kept.len() > MAX_KEPT {
        let cut = kept.len() - MAX_KEPT / 2;
        let cut = (cut..kept.len()).find(|at| kept.is_char_boundary(*at)).unwrap_or_default();
        kept.drain(..cut);
    }
}

impl Renderer {
    pub(super) fn is_folded(&self) -> bool {
        self.folded.as_ref().is_some_and(|folded| !folded.details)
    }

    /// Shows calls in full from now on, and the last one's output at once; or folds them again.
    pub(crate) fn toggle_details(&mut self) -> io::Result<()> {
        let Some(folded) = &mut self.folded else { return Ok(()) };
        folded.details = !folded.details;
        let now = if folded.details { "calls are shown in full" } else { "calls are folded" };
        let last = folded.kept.iter().rposition(|kept| !kept.text.is_empty()).filter(|_| folded.details);
        let last = last.and_then(|last| folded.kept.remove(last));
        self.progress(Style::Dim, &format!("  {now}"))?;
        let Some(last) = last else { return Ok(()) };
        self.call_line(&last.line)?;
        if last.text.lines().count() < last.lines {
            self.console.styled(Style::Dim, "… the beginning is left out\n")?;
        }
        self.outcome(&last.text, last.exit_code.map(i64::from))
    }

    /// A call begins: its line stays open, so that what it came to can take its place.
    pub(super) fn open_line(&mut self, id: &str, line: &str) -> io::Result<()> {
        self.block(Block::Open(id.to_owned()))?;
        let line = self.fitting(line);
        let more = if line.ends_with('…') { "" } else { " …" };
        self.lines.write(Source::Calls, &format!("\u{1b}[2m▸ {line}{more}\u{1b}[0m"))
    }

    /// A call has ended: its line says how.
    pub(super) fn close_line(&mut self, id: &str, outcome: &Outcome) -> io::Result<()> {
        let next = Block::Open(id.to_owned());
        if self.block != next {
            self.block(next)?;
        }
        let (color, mark) = if outcome.failed { (31, '✗') } else { (32, '✓') };
        let (line, words) = (self.fitting(&outcome.line), outcome.words());
        let drawn = format!("\r\u{1b}[2K\u{1b}[{color}m{mark}\u{1b}[0m {line}\u{1b}[2m{words}\u{1b}[0m");
        self.lines.write(Source::Calls, &drawn)?;
        self.lines.end(Source::Calls)?;
        self.block = Block::Call;
        if outcome.failed { self.end_of(&outcome.text) } else { Ok(()) }
    }

    /// On one row, so that it can be replaced; without the mark that a line of its own begins with.
    fn fitting(&self, line: &str) -> String {
        let line = escape::line(line.strip_prefix("▸ ").unwrap_or(line)).into_owned();
        cut(&line, self.console.columns().saturating_sub(FOR_OUTCOME).max(FOR_OUTCOME))
    }

    /// The last lines of what a failed call has printed.
    fn end_of(&mut self, text: &str) -> io::Result<()> {
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(MAX_LINES);
        for line in &lines[from..] {
            let line = cut(line, self.console.columns().saturating_sub(3).max(FOR_OUTCOME));
            self.console.styled(Style::Dim, &format!("  {}\n", shown(&line)))?;
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, outcome: Outcome) {
        let Some(folded) = &mut self.folded else { return };
        folded.kept.push_back(outcome);
        if folded.kept.len() > MAX_CALLS {
            folded.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use ambient_wire::live::Event;
    use serde_json::{Value, json};

    use super::*;
    use crate::output::capture;

    /// A conversation as it is shown, on a terminal or not.
    fn conversation(terminal: bool, details: bool, events: &[Value]) -> String {
        let (console, out, err) = capture::console(terminal, false);
        let mut renderer = Renderer::of_conversation(console, details);
        for (seq, data) in (1..).zip(events) {
            let event_type = data["type"].as_str().unwrap().to_owned();
            let data = data.clone();
            renderer.event(&Event { seq, event_type, data, at: chrono::DateTime::UNIX_EPOCH }).unwrap();
        }
        renderer.finish().unwrap();
        // What is redrawn in place is shown as it ends up.
        let drawn = out.text().replace("\u{1b}[K", "");
        let last = |line: &str| line.rsplit('\r').next().unwrap_or_default().to_owned();
        let shown: Vec<String> = drawn.lines().map(last).collect();
        format!("{}\n--- beside it\n{}", shown.join("\n"), err.text())
    }

    fn turn() -> Vec<Value> {
        vec![
            json!({"type": "session.phase", "phase": "Running", "reason": "Running", "message": ""}),
            json!({"type": "session.condition", "status": "True", "reason": "Ready", "message": ""}),
            json!({"type": "agent.text", "message_id": "m", "text": "I will **look** at\n\u{1b}]0;title\u{7}`a.txt`\u{1b}[2J.\n"}),
            json!({"type": "tool.started", "tool_call_id": "1", "title": "make\u{1b}[8m", "kind": "execute", "status": "in_progress",
                "input": {"command": "make"}}),
            json!({"type": "tool.output", "tool_call_id": "1", "stream": "stdout", "text": "one\ntw"}),
            json!({"type": "tool.output", "tool_call_id": "1", "stream": "stdout", "text": "o\n"}),
            json!({"type": "tool.updated", "tool_call_id": "1", "status": "completed", "exit_code": 0}),
            json!({"type": "tool.started", "tool_call_id": "2", "title": "Edit \u{202e}a.txt", "kind": "edit", "status": "in_progress"}),
            json!({"type": "tool.started", "tool_call_id": "3", "title": "Read b", "kind": "read", "status": "completed",
                "content": [{"type": "text", "text": "b"}]}),
            json!({"type": "tool.updated", "tool_call_id": "2", "status": "completed",
                "content": [{"type": "diff", "path": "a.txt", "old_text": "one\n", "new_text": "two\n"}]}),
            json!({"type": "tool.started", "tool_call_id": "4", "title": "", "kind": "execute", "status": "in_progress",
                "input": {"command": "false"}}),
            json!({"type": "tool.updated", "tool_call_id": "4", "status": "failed", "output": "no\n", "exit_code": 1}),
            json!({"type": "repo.snapshot", "repo": "hello", "commit": "0123456789abcdef", "ref": "r", "patch": "", "patch_truncated": false,
                "patch_exact": true, "left_out": [], "running": 0}),
            json!({"type": "usage", "turn_id": "t", "source": "proxy", "input_tokens": 1200, "output_tokens": 34}),
            json!({"type": "turn.ended", "turn_id": "t", "message_id": "u", "last_message_seq": 1, "outcome": "finished"}),
        ]
    }

    #[test]
    fn a_conversation_has_its_calls_on_a_line_each_with_what_they_came_to() {
        insta::assert_snapshot!(conversation(true, false, &turn()));
    }

    #[test]
    fn a_conversation_elsewhere_than_at_a_terminal_has_the_agents_words_as_they_are() {
        insta::assert_snapshot!(conversation(false, false, &turn()));
    }

    #[test]
    fn a_conversation_with_details_has_what_calls_print() {
        insta::assert_snapshot!(conversation(true, true, &turn()));
    }
}
