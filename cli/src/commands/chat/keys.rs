//! Single keys, while no line is typed: the terminal hands them over at once and does not show them. Ctrl-C stays a signal.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    stdio,
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};
use tokio::sync::mpsc;

/// Most that is read at once, bytes: a paste comes in pieces.
const MAX_PIECE: usize = 1024;
/// Pieces that wait to be looked at.
const MAX_PIECES: usize = 16;
/// How long is waited for a key before it is seen whether it is still wanted.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The keyboard.
pub(super) struct Keys {
    pieces: mpsc::Receiver<String>,
    watched: Arc<Watched>,
    /// What the terminal was like, while it is watched.
    before: Option<Termios>,
    /// What it was like at first.
    original: Option<Termios>,
}

/// Whether keys are read. Whoever reads one holds the lock, so that none is taken from a line.
#[derive(Default)]
struct Watched {
    is_on: Mutex<bool>,
    changed: Condvar,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    pub(super) fn new() -> Self {
        let (sender, pieces) = mpsc::channel(MAX_PIECES);
        let watched = Arc::<Watched>::default();
        let reader = watched.clone();
        std::thread::spawn(move || while read(&reader, &sender).is_some() {});
        Self { pieces, watched, before: None, original: tcgetattr(stdio::stdin()).ok() }
    }

    /// Keys are read from now on, or no longer.
    pub(super) fn watch(&mut self, watches: bool) {
        if watches == self.before.is_some() {
            return;
        }
        if let Some(before) = self.before.take() {
            *self.watched.lock() = false;
            let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &before);
        } else if let Ok(before) = tcgetattr(stdio::stdin()) {
            let mut modes = before.clone();
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            // Who reads never waits: Ctrl-C takes away what was there to be read.
            modes.special_codes[SpecialCodeIndex::VMIN] = 0;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &modes);
            self.before = Some(before);
            *self.watched.lock() = true;
            self.watched.changed.notify_all();
        }
    }

    /// Leaves the terminal as it was found, whoever still reads a line from it.
    pub(super) fn restore(&mut self) {
        self.watch(false);
        if let Some(original) = self.original.take() {
            let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &original);
        }
    }

    /// What is pressed, none once the terminal is gone; for ever nothing while keys are not read. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        if self.before.is_none() {
            return std::future::pending().await;
        }
        self.pieces.recv().await
    }

    /// What was pressed after the last that was looked at: it belongs to the line that is typed next.
    pub(super) fn rest(&mut self) -> String {
        std::iter::from_fn(|| self.pieces.try_recv().ok()).collect()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Reads what is pressed, when it is wanted; none at the end.
fn read(watched: &Watched, pieces: &mpsc::Sender<String>) -> Option<()> {
    // A thread that nobody wants anything of any more waits until the process ends.
    drop(watched.changed.wait_while(watched.lock(), |is_on| !*is_on).unwrap_or_else(PoisonError::into_inner));
    if !has_input(&PATIENCE)? {
        return Some(());
    }
    let mut piece = [0; MAX_PIECE];
    let length = {
        let is_on = watched.lock();
        if *is_on && has_input(&NOW)? { rustix::io::read(stdio::stdin(), &mut piece).ok()? } else { 0 }
    };
    if length == 0 {
        return Some(());
    }
    let piece = String::from_utf8_lossy(&piece[..length]).into_owned();
    pieces.blocking_send(piece).ok()
}

/// Whether something can be read; none if nothing ever will.
fn has_input(patience: &Timespec) -> Option<bool> {
    let stdin = stdio::stdin();
    let mut input = [PollFd::new(&stdin, PollFlags::IN)];
    let ready = poll(&mut input, Some(patience));
    let is_gone = input[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    (!is_gone).then(|| ready.is_ok_and(|ready| ready > 0))
}
