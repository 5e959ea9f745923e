//! Lines on standard input and output. Threads of their own read and write: neither read nor write can be cancelled, and they must not keep the
//! process from exiting.

use std::io::{self, BufRead, Write};

pub(super) use ambient_wire::lines::Line;
use ambient_wire::lines::Pieces;
use tokio::sync::{mpsc, oneshot};

/// Longest line, bytes: a message of 1 MiB, escaped, with what else belongs to it. The rest of a longer one is skipped.
const MAX_LINE: usize = 16 << 20;

/// Reads lines; the channel is closed at the end of input.
pub(super) fn read() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        // An error is an end too: there is nothing more to read.
        while let Ok(Some(line)) = next(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A line to be written, and where its writer learns that it is.
pub(super) type Written = (String, oneshot::Sender<io::Result<()>>);

/// Writes lines, each whole and at once.
pub(super) fn write() -> mpsc::Sender<Written> {
    let (sender, mut receiver) = mpsc::channel::<Written>(1);
    std::thread::spawn(move || {
        while let Some((mut line, done)) = receiver.blocking_recv() {
            line.push('\n');
            let mut out = io::stdout().lock();
            let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            // If nobody waits, nobody has to know.
            let _ = done.send(written);
        }
    });
    sender
}

fn next(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut pieces = Pieces::new(MAX_LINE);
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(pieces.end());
        }
        let (used, line) = pieces.take(piece);
        reader.consume(used);
        if line.is_some() {
            return Ok(line);
        }
    }
}
