//! Lines that are typed: with editing and a history. A thread of its own reads them, because that cannot be cancelled.

use std::path::PathBuf;

use rustyline::{
    Completer, Config, Editor, Helper, Highlighter, Hinter,
    error::ReadlineError,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};
use tokio::sync::{mpsc, oneshot};

use super::screen::Screen;
use crate::{commands::session::attach, error::CliError};

/// Lines of the history.
const MAX_HISTORY: usize = 1000;

/// What came of asking for a line.
#[derive(Debug)]
pub(super) enum Typed {
    /// A line, or several if it has a block of code.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// A line to be asked for.
struct Asked {
    prompt: &'static str,
    /// What it begins with.
    initial: String,
    /// Whether it is one of those to come back to.
    is_remembered: bool,
}

/// Whoever types.
pub(super) struct Typist {
    asks: mpsc::Sender<Asked>,
    typed: mpsc::Receiver<Typed>,
    is_asked: bool,
    screen: Screen,
}

impl Typist {
    /// Reads from the process's terminal; the history is in a file.
    pub(super) async fn start(screen: &Screen, history: Option<PathBuf>, color: bool) -> Result<Self, CliError> {
        let (asks, asked) = mpsc::channel(1);
        let (sender, typed) = mpsc::channel(1);
        let (ready, is_ready) = oneshot::channel();
        let above = screen.clone();
        std::thread::spawn(move || {
            let editor = editor(history.as_ref(), color).and_then(|mut editor| {
                above.above(Box::new(editor.create_external_printer()?));
                Ok(editor)
            });
            match editor {
                Ok(editor) => {
                    let _ = ready.send(Ok(()));
                    read(editor, history.as_ref(), asked, &sender);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        let failed = |why: String| CliError::refused(crate::Exit::Io, format!("the terminal cannot be read: {why}"));
        is_ready.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        Ok(Self { asks, typed, is_asked: false, screen: screen.clone() })
    }

    /// Whether a line is being typed.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Asks for a line, unless one is being typed.
    pub(super) fn ask(&mut self, prompt: &'static str, initial: String, is_remembered: bool) {
        if !self.is_asked {
            self.screen.typing(true);
            self.is_asked = self.asks.try_send(Asked { prompt, initial, is_remembered }).is_ok();
        }
    }

    /// What is typed next; for ever none if no line was asked for. Cancel-safe.
    pub(super) async fn next(&mut self) -> Typed {
        if !self.is_asked {
            return std::future::pending().await;
        }
        let typed = self.typed.recv().await.unwrap_or(Typed::End);
        self.is_asked = false;
        self.screen.typing(false);
        typed
    }
}

/// A message may have several lines: in a block of code, or where one ends with a backslash.
#[derive(Completer, Helper, Highlighter, Hinter)]
struct Lines;

impl Validator for Lines {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let goes_on = text.ends_with('\\') || attach::is_within_block(text);
        Ok(if goes_on { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

type LineEditor = Editor<Lines, FileHistory>;

fn editor(history: Option<&PathBuf>, color: bool) -> rustyline::Result<LineEditor> {
    let color = if color { rustyline::ColorMode::Enabled } else { rustyline::ColorMode::Disabled };
    let config = Config::builder().max_history_size(MAX_HISTORY)?.history_ignore_dups(true)?.history_ignore_space(true);
    let config = config.color_mode(color).bracketed_paste(true).build();
    let kept = FileHistory::with_config(&config);
    let mut editor = LineEditor::with_history(config, kept)?;
    editor.set_helper(Some(Lines));
    if let Some(path) = history {
        // There may be none yet, and without one it can be talked too.
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = editor.load_history(path);
    }
    Ok(editor)
}

fn read(
    mut editor: LineEditor,
    history: Option<&PathBuf>,
    mut asked: mpsc::Receiver<Asked>,
    typed: &mpsc::Sender<Typed>,
) {
    while let Some(Asked { prompt, initial, is_remembered }) = asked.blocking_recv() {
        let styled = (prompt, format!("\u{1b}[1;36m{prompt}\u{1b}[0m"));
        let line = match editor.readline_with_initial(&styled, (&initial, "")) {
            Ok(line) => {
                if is_remembered && editor.add_history_entry(line.as_str()).unwrap_or(false) {
                    let _ = history.map(|path| editor.append_history(path));
                }
                Typed::Line(line.replace("\\\n", "\n"))
            }
            Err(ReadlineError::Interrupted) => Typed::Interrupted,
            Err(_) => Typed::End,
        };
        if typed.blocking_send(line).is_err() {
            return;
        }
    }
}
