//! The end of a log file, for the message about the process that wrote it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

const LONGEST: u64 = 4096;
const LINES: usize = 15;

/// The last lines of `path`, none from before byte `begin`; empty if it cannot be read.
#[must_use]
pub fn log_tail(path: &Path, begin: u64) -> String {
    let text = read_end(path, begin).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn read_end(path: &Path, begin: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(length.saturating_sub(LONGEST))))?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
