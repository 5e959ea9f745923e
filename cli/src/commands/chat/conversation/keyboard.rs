//! Who has the keyboard: a line that is typed, or, while the agent works, whoever presses a key.

use std::time::{Duration, Instant};

use ambient_wire::runner_event::PermissionAnswer;

use super::{super::Terminal, Chat, PROMPT};
use crate::{error::CliError, output::Style};

const INSTEAD: &str = "instead › ";
/// What is pressed this soon after a request was shown was not meant for it.
const UNSEEN: Duration = Duration::from_millis(300);
/// How often the status line is drawn anew.
pub(super) const TICK: Duration = Duration::from_millis(500);
pub(super) const CTRL_D: char = '\u{4}';
const CTRL_O: char = '\u{f}';

impl Chat<'_> {
    /// Who reads the keyboard: the line that is typed, or single keys.
    pub(super) fn hand_over_the_keyboard(&mut self) -> Result<(), CliError> {
        let wants_line = self.typing.is_some() || self.rejecting.is_some() || !self.is_working();
        let (is_told, rejects) = (self.is_told(), self.rejecting.is_some());
        self.working_since = if self.is_working() { self.working_since.or_else(|| Some(Instant::now())) } else { None };
        self.has_worked |= self.is_working();
        let Some(Terminal { typist, keys, .. }) = &mut self.terminal else { return Ok(()) };
        if typist.is_asked() || !is_told {
            return Ok(());
        }
        keys.watch(!wants_line);
        if wants_line {
            self.renderer.pause()?;
            if std::mem::take(&mut self.has_worked) {
                self.connection.console.data("\n")?;
            }
            let prompt = if rejects { INSTEAD } else { PROMPT };
            let pressed = self.typing.take().unwrap_or_default() + &keys.rest();
            let initial = match ended_line(&pressed) {
                Ok(line) => {
                    self.entered = Some(line);
                    return Ok(());
                }
                Err(begun) => begun,
            };
            typist.ask(prompt, initial, !rejects);
        }
        Ok(())
    }

    /// Ctrl-C, while no line is typed.
    pub(super) fn interrupted(&mut self) -> Result<bool, CliError> {
        if std::mem::replace(&mut self.is_leaving, true) || !self.is_working() {
            return Ok(true);
        }
        self.renderer.pause()?;
        self.connection.console.progress(Style::Yellow, "  ending the turn … (Ctrl-C again leaves)");
        self.stop();
        Ok(false)
    }

    /// A key, while the agent works.
    pub(super) fn pressed(&mut self, keys: &str) -> Result<bool, CliError> {
        let Some(key) = keys.chars().next() else { return Ok(false) };
        if let Some(request) = self.questions.oldest().map(str::to_owned) {
            let was_seen = self.asked_at.is_none_or(|at| at.elapsed() >= UNSEEN);
            match keys.trim_end_matches(['\r', '\n']) {
                _ if !was_seen => {}
                "a" => self.answer(request, PermissionAnswer::Once, None),
                "A" if self.questions.can_be_always() => self.answer(request, PermissionAnswer::Always, None),
                "r" => self.answer(request, PermissionAnswer::Reject, None),
                "m" => self.rejecting = Some(request),
                // The status line says what can be pressed.
                _ => {}
            }
            if !key.is_control() {
                return Ok(false);
            }
        }
        match key {
            CTRL_D => return Ok(true),
            CTRL_O => self.renderer.toggle_details()?,
            // A line that is typed while the agent works waits its turn.
            key if !key.is_control() => self.typing = Some(keys.to_owned()),
            _ => {}
        }
        Ok(false)
    }

    pub(super) fn shows_status(&self) -> bool {
        self.is_working() && self.terminal.as_ref().is_some_and(|terminal| !terminal.typist.is_asked())
    }

    /// What is waited for, below everything else.
    pub(super) fn show_status(&mut self) -> bool {
        let (Some(Terminal { screen, .. }), Some(since)) = (&self.terminal, self.working_since) else { return false };
        let what = match self.session.phase.as_deref() {
            _ if self.questions.can_be_always() => {
                "the agent waits: a once, A always, r reject, m reject with a message"
            }
            _ if self.questions.oldest().is_some() => "the agent waits: a once, r reject, m reject with a message",
            _ if self.turns.is_running() => "working",
            Some("Running") => "waiting for its turn",
            _ => "starting",
        };
        let text = format!("{what} · {} s · Ctrl-C ends the turn", since.elapsed().as_secs());
        let text = if self.connection.console.has_colors() { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text };
        screen.status(&text);
        false
    }
}

/// What was pressed as a line, if it was ended, or else as the beginning of one.
fn ended_line(pressed: &str) -> Result<String, String> {
    let text = pressed.trim_end_matches(['\r', '\n']);
    let clean = text.replace(|c: char| c.is_control() && c != '\n', " ");
    if text.len() < pressed.len() && !clean.trim().is_empty() && !clean.contains('\n') { Ok(clean) } else { Err(clean) }
}

#[cfg(test)]
mod tests {
    use super::ended_line;

    #[test]
    fn what_was_pressed_is_a_line_if_it_was_ended() {
        let begun = |text: &str| Err(text.to_owned());
        assert_eq!(ended_line("hang\n"), Ok("hang".to_owned()));
        assert_eq!(ended_line("ha"), begun("ha"));
        assert_eq!(ended_line("\n"), begun(""));
        assert_eq!(ended_line("one\ntwo\n"), begun("one\ntwo"), "a paste can be looked at before it is sent");
        assert_eq!(ended_line("a\u{1b}[A"), begun("a [A"));
    }
}
