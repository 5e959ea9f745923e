//! Text on standard output.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write as _},
    process,
};

use ambient_cli::Exit;

/// Writes a line. That its reader has gone ends neither a server nor a check with a verdict; any other write error ends the program.
#[expect(clippy::exit, reason = "where println! would panic")]
pub(super) fn say(line: impl Display) {
    if let Err(exit) = write(&format!("{line}\n"))
        && exit != Exit::BrokenPipe
    {
        process::exit(exit.code().into());
    }
}

/// Writes a command's only output; if that fails, the program ends as a client's command would.
#[expect(clippy::exit, reason = "where print! would panic")]
pub(super) fn print(text: &str) {
    if let Err(exit) = write(text) {
        process::exit(exit.code().into());
    }
}

fn write(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            return Exit::BrokenPipe;
        }
        eprintln!("ambient: cannot write to standard output: {error}");
        Exit::Io
    })
}
