//! Lines on standard output.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _},
};

/// `EX_IOERR` of sysexits.h.
const IO: i32 = 74;

/// Writes a line. A reader that has seen enough (`ambient config | head`) is not a failure; any other write error ends the
/// program.
#[expect(clippy::exit, reason = "where println! would panic")]
pub(super) fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("ambient: cannot write to standard output: {error}");
            std::process::exit(IO);
        }
        _ => {}
    }
}
