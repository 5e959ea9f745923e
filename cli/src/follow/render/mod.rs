//! Live events for people: the agent's text and output on standard output, everything around it on standard error.

mod agent;
mod calls;
mod diff;
mod folded;
mod interrupts;
mod markdown;
mod usage;
mod words;

use std::{io, sync::Arc};

use ambient_wire::{
    live::Event,
    runner_event::{PlanEntry, RunnerEvent, ToolKind},
};
use serde::Deserialize;
use serde_json::Value;

use self::{
    calls::Calls,
    folded::Folded,
    markdown::Markdown,
    usage::Spent,
    words::{headline_of, sentence, text},
};
use super::Snapshot;
use crate::output::{
    Console, OutputFormat, Style, escape,
    lines::{Lines, Source},
};

pub(crate) use words::first_line;

/// What was printed last on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Block {
    #[default]
    Nothing,
    /// A message of the agent.
    Words(String),
    /// A thought.
    Thought(String),
    /// A tool call.
    Call,
    /// The line of a call in progress, which can still be replaced.
    Open(String),
}

/// Prints events one after another.
pub(crate) struct Renderer {
    console: Arc<Console>,
    format: OutputFormat,
    lines: Lines,
    calls: Calls,
    block: Block,
    plan: Vec<PlanEntry>,
    spent: Spent,
    /// For a conversation: calls take a line each, and what the agent says is drawn.
    folded: Option<Folded>,
    markdown: Option<Markdown>,
    /// What the last phase said, so that the next need not repeat it.
    told: String,
}

impl Renderer {
    pub(crate) fn new(console: Arc<Console>, format: OutputFormat) -> Self {
        let lines = Lines::new(console.clone());
        Self {
            console,
            format,
            lines,
            calls: Calls::default(),
            block: Block::default(),
            plan: Vec::new(),
            spent: Spent::default(),
            folded: None,
            markdown: None,
            told: String::new(),
        }
    }

    /// Shows a conversation rather than a run: without its routine, and with calls folded unless their details are wanted.
    pub(crate) fn of_conversation(console: Arc<Console>, details: bool) -> Self {
        let markdown = console.out_is_terminal().then(Markdown::new);
        Self { folded: Some(Folded::new(details)), markdown, ..Self::new(console, OutputFormat::Table) }
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

    /// Prints a request that waits, as if its event had arrived.
    pub(crate) fn interrupt(&mut self, data: &Value) -> io::Result<()> {
        if self.format == OutputFormat::Table { self.told_of_interrupt(data) } else { Ok(()) }
    }

    /// Ends the line in progress: something else is going to be written.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        self.draw_rest()?;
        self.lines.end_line()?;
        if matches!(self.block, Block::Open(_)) {
            self.block = Block::Call;
        }
        Ok(())
    }

    /// Ends the line in progress.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.pause()
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
                "tool" => self.outcome(text(message, "content"), message["exitCode"].as_i64())?,
                _ => self.said(message)?,
            }
        }
        Ok(())
    }

    /// The agent's text, and the calls it made with it.
    fn said(&mut self, message: &Value) -> io::Result<()> {
        if !text(message, "content").is_empty() {
            self.words(text(message, "id").to_owned(), text(message, "content"))?;
            self.block(Block::Nothing)?;
        }
        for call in message["toolCalls"].as_array().into_iter().flatten() {
            let kind = ToolKind::deserialize(&message["kind"]).ok();
            let line = headline_of(kind, text(&call["function"], "name"), text(&call["function"], "arguments"));
            self.call_line(&line)?;
        }
        Ok(())
    }

    fn for_people(&mut self, event: &Event) -> io::Result<()> {
        let data = &event.data;
        match event.event_type.as_str() {
            "session.phase" => self.phase(data),
            "session.condition" if self.folded.is_some() => Ok(()),
            "session.condition" => self.condition(data),
            "session.blocked" if !data.is_null() => {
                let why = sentence(text(data, "reason"), text(data, "blocked_on"));
                self.progress(Style::Yellow, &format!("  waiting: {why}"))
            }
            "session.messages_not_run" => {
                let told = match data["message_ids"].as_array().map_or(0, Vec::len) {
                    1 => "  not run: 1 message, which was still waiting for its turn (-o json has its id)".to_owned(),
                    several => {
                        format!(
                            "  not run: {several} messages, which were still waiting for their turns (-o json has their ids)"
                        )
                    }
                };
                self.progress(Style::Yellow, &told)
            }
            "session.interrupt" => self.told_of_interrupt(data),
            "session.deleted" => self.progress(Style::Bold, "● deleted"),
            "user.message" => self.prompted(text(data, "text")),
            "user.feedback" => {
                let thumb = if text(data, "rating") == "thumbs_up" { "good" } else { "bad" };
                let why = sentence(text(data, "reason"), text(data, "comment"));
                self.progress(
                    Style::Dim,
                    &format!("  {}", sentence(&format!("rated {thumb} by {}", text(data, "by")), &why)),
                )
            }
            // None: events that a later release may record, and those of earlier ones that only frame others.
            _ => RunnerEvent::read(data).map_or(Ok(()), |event| self.recorded(event)),
        }
    }

    fn told_of_interrupt(&mut self, data: &Value) -> io::Result<()> {
        interrupts::lines(data).iter().try_for_each(|(style, line)| self.progress(*style, line))
    }

    fn phase(&mut self, data: &Value) -> io::Result<()> {
        let (phase, reason) = (text(data, "phase"), text(data, "reason"));
        if self.folded.is_some() && matches!(phase, "Pending" | "Creating" | "Running" | "Stopping") {
            text(data, "message").clone_into(&mut self.told);
            return Ok(());
        }
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
        let (condition, reason) = (text(data, "type"), sentence(text(data, "reason"), text(data, "message")));
        let why = if reason == condition || reason.is_empty() { String::new() } else { format!(": {reason}") };
        self.progress(Style::Dim, &format!("  {not}{condition}{why}"))
    }

    fn prompted(&mut self, text: &str) -> io::Result<()> {
        self.progress(Style::Cyan, &format!("> {}", first_line(text)))
    }

    /// Something else begins on standard output: on a terminal an empty line sets it apart, except for one call after another.
    fn block(&mut self, next: Block) -> io::Result<()> {
        if self.block == next {
            return Ok(());
        }
        self.end_block()?;
        let is_call = |block: &Block| matches!(block, Block::Call | Block::Open(_));
        let are_calls = is_call(&self.block) && is_call(&next);
        let before = std::mem::replace(&mut self.block, next);
        if before != Block::Nothing && !are_calls && self.console.out_is_terminal() {
            self.console.data("\n")?;
        }
        Ok(())
    }

    /// What was said so far is whole: nothing of it is held back.
    fn end_block(&mut self) -> io::Result<()> {
        self.draw_rest()?;
        match self.block {
            Block::Words(_) => self.lines.end(Source::Words),
            Block::Thought(_) => self.lines.end(Source::Thoughts),
            Block::Call | Block::Open(_) | Block::Nothing => self.lines.end_line(),
        }
    }

    /// What was held back of the agent's words.
    fn draw_rest(&mut self) -> io::Result<()> {
        match self.markdown.as_mut().map(Markdown::finish) {
            Some(rest) if !rest.is_empty() => self.lines.write(Source::Words, &rest),
            _ => Ok(()),
        }
    }

    /// Which call begins, on a line of its own.
    fn call_line(&mut self, line: &str) -> io::Result<()> {
        self.block(Block::Call)?;
        self.lines.end_line()?;
        self.console.styled(Style::Bold, &format!("{}\n", escape::line(line)))
    }

    /// What a call came to.
    fn outcome(&mut self, content: &str, exit_code: Option<i64>) -> io::Result<()> {
        if !content.is_empty() {
            self.block(Block::Call)?;
        }
        self.lines.write(Source::Output, content)?;
        self.lines.end(Source::Output)?;
        self.lines.end(Source::Errors)?;
        match exit_code {
            None | Some(0) => Ok(()),
            Some(code) => self.console.styled(Style::Red, &format!("exit code {code}\n")),
        }
    }

    /// A line beside the output. If both streams go to the same terminal, it starts on a new line.
    fn progress(&mut self, style: Style, line: &str) -> io::Result<()> {
        self.aside()?;
        self.console.progress(style, line);
        Ok(())
    }

    fn aside(&mut self) -> io::Result<()> {
        if self.console.out_is_terminal() { self.pause() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
