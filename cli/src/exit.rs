//! Exit codes: each has one meaning, documented in `--help` (taken from `sysexits.h` where it fits).

use std::process::ExitCode;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; `run`: the session completed.
    Success = 0,
    /// Refused or failed; `run`: the session failed.
    Failure = 1,
    /// No such object (404).
    NotFound = 4,
    /// The object's state forbids it, or the object has changed (409, 412).
    Conflict = 5,
    /// Wrong arguments.
    Usage = 64,
    /// The server refused the input (400, 413, 422).
    Rejected = 65,
    /// The server cannot be reached, or has been too busy for too long.
    Unavailable = 69,
    /// A local file or stream failed.
    Io = 74,
    /// The server's response cannot be understood.
    Protocol = 76,
    /// Not authenticated or not allowed (401, 403).
    Denied = 77,
    /// The configuration is missing or wrong.
    Config = 78,
    /// It took too long.
    Timeout = 124,
    /// Interrupted, or stopped by someone.
    Interrupted = 130,
    /// The reader of standard output has gone away.
    BrokenPipe = 141,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code for a failing HTTP status.
    #[must_use]
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            400 | 413 | 422 => Self::Rejected,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            409 | 412 => Self::Conflict,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table of exit codes as `--help` shows it.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0    done (run: the session completed)
  1    refused or failed (run: the session failed)
  3    replay check: this program decides differently from what was recorded
  4    not found
  5    conflicts with the object's state, or it changed meanwhile
  64   wrong arguments
  65   the server refused the input; the message names the field
  69   the server cannot be reached, or is too busy
  74   a local file or stream failed
  76   the server's response cannot be understood, or is not Ambient's
  77   not authenticated or not allowed
  78   the configuration is missing or wrong
  124  timed out (run: the session's timeout)
  130  interrupted (run: the session was stopped)
  141  the reader of standard output has gone away";
