//! What runners record, for people.

use std::io;

use ambient_wire::{
    git::GitPushed,
    runner_event::{
        Conversation, ENDED_BY_REQUEST, NetworkRefusal, PermissionRequest, PlanEntry, RepoSnapshot, RunnerEvent,
        ToolChange, TurnOutcome, TurnResult, content_in_words,
    },
};

use super::{
    Block, Renderer,
    markdown::Markdown,
    words::{first_line, sentence},
};
use crate::output::{Style, lines::Source, table::cut};

/// Most steps of a plan that are shown.
const MAX_ENTRIES: usize = 50;

impl Renderer {
    /// Prints what a runner has recorded.
    pub(super) fn recorded(&mut self, event: RunnerEvent) -> io::Result<()> {
        match event {
            RunnerEvent::ToolStarted { tool_call_id, title, kind, status, input, locations, content } => {
                let (title, kind, status) = (Some(title), Some(kind), Some(status));
                let (input, locations, content) = (Some(input), Some(locations), Some(content));
                let change = ToolChange { title, kind, status, input, locations, content, ..ToolChange::default() };
                self.call_started(&tool_call_id, change)
            }
            RunnerEvent::ToolUpdated { tool_call_id, change } => self.call_changed(&tool_call_id, change),
            RunnerEvent::ToolOutput { tool_call_id, stream, text } => self.call_output(&tool_call_id, stream, &text),
            RunnerEvent::Usage { source, usage, .. } => {
                self.spent.take(source, usage);
                Ok(())
            }
            RunnerEvent::PermissionDecided { request, allowed, rule } => {
                self.learn(&request);
                self.announce(&request.tool_call_id)?;
                let (decided, what) = (if allowed { "allowed" } else { "rejected" }, asked_for(&request));
                self.progress(Style::Dim, &format!("  {decided} by rule ({}): {what}", first_line(&rule)))
            }
            RunnerEvent::PermissionRequested { request } => self.asked(&request),
            other => {
                self.announce_waiting()?;
                self.said_or_happened(other)
            }
        }
    }

    fn said_or_happened(&mut self, event: RunnerEvent) -> io::Result<()> {
        match event {
            RunnerEvent::AgentText { message_id, text } => self.words(message_id, &text),
            RunnerEvent::AgentContent { message_id, content } => self.words(message_id, &content_in_words(&content)),
            RunnerEvent::AgentThought { message_id, text } => self.thought(message_id, &text),
            RunnerEvent::AgentPlan { entries } => self.planned(entries),
            RunnerEvent::TurnResult { result, message, .. } => self.turn_result(&result, message),
            RunnerEvent::TurnEnded { .. } => match self.spent.words() {
                Some(spent) => self.progress(Style::Dim, &format!("  {spent}")),
                None => Ok(()),
            },
            other => self.happened(other),
        }
    }

    pub(super) fn words(&mut self, message_id: String, text: &str) -> io::Result<()> {
        let next = Block::Words(message_id);
        let is_new = self.block != next;
        self.block(next)?;
        let columns = self.console.columns();
        match &mut self.markdown {
            None => self.lines.write(Source::Words, text),
            Some(markdown) => {
                if is_new {
                    *markdown = Markdown::new();
                }
                let drawn = markdown.push(text, columns);
                self.lines.write(Source::Words, &drawn)
            }
        }
    }

    /// Only on a terminal: elsewhere it could not be told apart from what the agent says.
    fn thought(&mut self, message_id: String, text: &str) -> io::Result<()> {
        if !self.console.out_is_terminal() || text.is_empty() {
            return Ok(());
        }
        let next = Block::Thought(message_id);
        if self.block != next {
            self.block(next)?;
            self.lines.write(Source::Thoughts, "✻ ")?;
        }
        self.lines.write(Source::Thoughts, text)
    }

    /// A checklist, shown again only when it has changed.
    fn planned(&mut self, entries: Vec<PlanEntry>) -> io::Result<()> {
        if self.plan == entries {
            return Ok(());
        }
        self.progress(Style::Bold, "  plan:")?;
        for entry in entries.iter().take(MAX_ENTRIES) {
            let (style, mark) = match entry.status.as_str() {
                "completed" => (Style::Dim, '☑'),
                "in_progress" => (Style::Bold, '▶'),
                _ => (Style::Plain, '☐'),
            };
            self.progress(style, &format!("  {mark} {}", first_line(&entry.content)))?;
        }
        if entries.len() > MAX_ENTRIES {
            self.progress(Style::Dim, &format!("  … {} more steps", entries.len() - MAX_ENTRIES))?;
        }
        self.plan = entries;
        Ok(())
    }

    /// Shows what the request is about; `session.interrupt` asks.
    fn asked(&mut self, request: &PermissionRequest) -> io::Result<()> {
        self.learn(request);
        self.announce(&request.tool_call_id)?;
        self.show_diffs(&request.tool_call_id)
    }

    /// How the agent's work on a message went, if not well.
    fn turn_result(&mut self, result: &TurnResult, message: String) -> io::Result<()> {
        self.end_block()?;
        let code = result.code.as_deref().unwrap_or_default();
        let told = match result.outcome {
            TurnOutcome::Finished => {
                let why = result.stop_reason.as_deref().filter(|why| !matches!(*why, "end_turn" | "cancelled"));
                return why
                    .map_or(Ok(()), |why| self.progress(Style::Yellow, &format!("  the agent stopped early: {why}")));
            }
            _ if matches!(code, "Interrupted" | "Terminated") => {
                self.progress(Style::Yellow, &format!("  turn stopped: {message}"))
            }
            _ => self.progress(Style::Red, &format!("  turn failed: {}", sentence(code, &message))),
        };
        self.told = message;
        told
    }

    fn happened(&mut self, event: RunnerEvent) -> io::Result<()> {
        match event {
            RunnerEvent::AttemptStarted { attempt, resumed: true, .. } => {
                self.progress(Style::Dim, &format!("  runner is back (attempt {attempt})"))
            }
            RunnerEvent::AgentStarted { name, version, conversation, .. } => {
                let remembers = match conversation {
                    Conversation::New => "",
                    Conversation::Loaded => "; it remembers what was said",
                    Conversation::Retold => "; it was told what was said before, shortened",
                };
                self.progress(Style::Dim, &format!("  agent: {name} {version}{remembers}"))
            }
            RunnerEvent::AgentEnded { exit_code, reason, .. } => {
                let code = exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
                self.progress(Style::Red, &format!("  the agent has ended{code}: {reason}"))
            }
            RunnerEvent::AgentSettings { mode, model, .. } => {
                let mode = mode.map(|mode| format!("mode {mode}"));
                let told: Vec<String> = mode.into_iter().chain(model.map(|model| format!("model {model}"))).collect();
                if told.is_empty() { Ok(()) } else { self.progress(Style::Dim, &format!("  {}", told.join(", "))) }
            }
            RunnerEvent::NetworkRefused { host, port, reason, count } => {
                self.progress(Style::Dim, &format!("  {}", refusal(&host, port, reason, count)))
            }
            RunnerEvent::AgentNotice { text } => self.progress(Style::Yellow, &format!("  {text}")),
            RunnerEvent::RunnerExited { code, reason } => {
                // The phases already say this.
                if [ENDED_BY_REQUEST, self.told.as_str()].contains(&reason.as_str()) {
                    return Ok(());
                }
                self.progress(Style::Dim, &format!("  runner ended: {code} {reason}"))
            }
            other => self.repository(other),
        }
    }

    fn repository(&mut self, event: RunnerEvent) -> io::Result<()> {
        match event {
            RunnerEvent::RepoNotices { repo, notices } => {
                notices.iter().try_for_each(|notice| self.progress(Style::Yellow, &format!("  {repo}: {notice}")))
            }
            RunnerEvent::RepoSnapshot { .. } if self.folded.is_some() => Ok(()),
            RunnerEvent::RepoSnapshot { snapshot: RepoSnapshot { repo, commit, running, .. } } => {
                let moving = match running {
                    0 => String::new(),
                    n => format!(", while {n} processes of the agent were running"),
                };
                self.progress(Style::Dim, &format!("  snapshot of {repo}: {}{moving}", cut(&commit, 13)))
            }
            RunnerEvent::RepoSnapshotFailed { repo, reason } => {
                self.progress(Style::Yellow, &format!("  no snapshot of {}", sentence(&repo, &reason)))
            }
            RunnerEvent::RepoPushed { repo, pushed } => self.pushed(&repo, &pushed),
            RunnerEvent::RepoPushFailed { repo, url, branch, reason } => {
                let told = format!("{repo}: not pushed to {branch} of {url}: {reason}");
                self.progress(Style::Yellow, &format!("  {}", first_line(&told)))
            }
            RunnerEvent::RepoAbandoned { repo, abandoned } => {
                let back: String = abandoned.commit.chars().take(12).collect();
                self.progress(Style::Dim, &format!("  {repo}: abandoned, back at {back}"))
            }
            _ => Ok(()),
        }
    }

    fn pushed(&mut self, repo: &str, pushed: &GitPushed) -> io::Result<()> {
        self.progress(Style::Dim, &format!("  {}", pushed.words()))?;
        pushed.remarks().try_for_each(|remark| self.progress(Style::Yellow, &format!("  {repo}: {remark}")))
    }
}

/// What may not be reached, on one line.
fn refusal(host: &str, port: u16, reason: NetworkRefusal, count: u64) -> String {
    let what = if host.is_empty() { "further hosts".to_owned() } else { format!("{host}:{port}") };
    let why = match reason {
        NetworkRefusal::NoNetwork => "the session has no network",
        NetworkRefusal::NotAllowed => "not in the session's allow-list",
        NetworkRefusal::NotPublic => "its address is not public and not in the session's allow-list",
    };
    let times = if count == 1 { String::new() } else { format!(", {count} times") };
    format!("network: {what} refused{times}: {why}")
}

/// What is asked for, on one line.
fn asked_for(request: &PermissionRequest) -> String {
    match &request.command {
        Some(command) => format!("$ {}", first_line(command)),
        None => first_line(&request.title),
    }
}
