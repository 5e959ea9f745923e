//! The terminal of a conversation. While a line is typed, what is written goes above it, line by line; while somebody is waited for, a status
//! line stands below it, until something else is written.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustyline::ExternalPrinter;

/// Longest part of a line that is held back while a line is typed, bytes.
const MAX_HELD: usize = 64 * 1024;

/// A handle on the terminal.
#[derive(Clone)]
pub(super) struct Screen {
    state: Arc<Mutex<State>>,
    redraws: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// Writes above the line that is typed.
    above: Option<Box<dyn ExternalPrinter + Send>>,
    is_typing: bool,
    /// A line that has not ended, while a line is typed.
    held: Vec<u8>,
    /// Whether a line of the output is in progress.
    is_within_line: bool,
    has_status: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { state: Arc::default(), redraws: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether lines of the output can be redrawn.
    pub(super) fn redraws(&self) -> Arc<AtomicBool> {
        self.redraws.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is usable whatever its last user did with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to write while a line is typed.
    pub(super) fn above(&self, printer: Box<dyn ExternalPrinter + Send>) {
        self.state().above = Some(printer);
    }

    /// A line is going to be typed, or has been.
    pub(super) fn typing(&self, is_typing: bool) {
        let mut state = self.state();
        state.erase_status();
        state.is_typing = is_typing;
        if !is_typing {
            let held = std::mem::take(&mut state.held);
            // Nobody is left to report to.
            let _ = state.put(&held);
        }
        self.redraws.store(!is_typing, Ordering::Relaxed);
    }

    /// Leaves the line that is being typed, if one is: nobody waits for its end.
    pub(super) fn leave(&self) {
        let is_typing = std::mem::take(&mut self.state().is_typing);
        if is_typing {
            // Pastes are marked no longer.
            let _ = write!(io::stdout(), "\u{1b}[?2004l\r\n").and_then(|()| io::stdout().flush());
        }
        self.typing(false);
    }

    /// Shows the status line, where no line is in progress.
    pub(super) fn status(&self, text: &str) {
        let mut state = self.state();
        if !state.is_typing && !state.is_within_line {
            let shown = write!(io::stdout(), "\r{text}\u{1b}[K").and_then(|()| io::stdout().flush());
            state.has_status = shown.is_ok();
        }
    }
}

impl State {
    fn erase_status(&mut self) {
        if std::mem::take(&mut self.has_status) {
            let _ = write!(io::stdout(), "\r\u{1b}[K").and_then(|()| io::stdout().flush());
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.is_within_line = *last != b'\n';
        let mut out = io::stdout();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Whole lines go above the line that is typed.
    fn put_above(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        let end = self.held.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let end = end.or((self.held.len() > MAX_HELD).then_some(self.held.len()));
        let (Some(end), Some(above)) = (end, &mut self.above) else { return Ok(()) };
        let lines: Vec<u8> = self.held.drain(..end).collect();
        above.print(String::from_utf8_lossy(&lines).into_owned()).map_err(io::Error::other)
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.erase_status();
        if state.is_typing {
            state.put_above(bytes)?;
        } else {
            state.put(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
