//! Why a command failed, and how that is reported.

use std::io;

use ambient_wire::error::Error as Envelope;

use crate::{config::ConfigError, exit::Exit, output::escape};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Wrong arguments; names the flag.
    #[error("{0}")]
    Usage(String),
    /// The configuration is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server did not answer.
    #[error(
        "cannot reach the server at {url} ({cause}); is it running? start it with 'ambient up'{}",
        if *.sent { "\nthe request may have been carried out" } else { "" }
    )]
    Unreachable {
        /// The server.
        url: String,
        /// Innermost cause.
        cause: String,
        /// Whether a changing request may have arrived.
        sent: bool,
    },
    /// A live channel that could not be resumed in time.
    #[error("connection lost after seq {after_seq} and not back within {seconds} s ({cause})")]
    Lost {
        /// Last event seen.
        after_seq: i64,
        /// How long resuming was tried, seconds.
        seconds: u64,
        /// The last cause.
        cause: String,
    },
    /// The server refused.
    #[error("{}", .error.reason)]
    Api {
        /// HTTP status.
        status: u16,
        /// Its error body.
        error: Box<Envelope>,
    },
    /// A response that cannot be understood.
    #[error("cannot understand the server's response: {0}")]
    Protocol(String),
    /// A local file or stream.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Nobody reads standard output any more.
    #[error("standard output was closed")]
    BrokenPipe,
    /// It took too long.
    #[error("{0}")]
    Timeout(String),
    /// A refusal of our own, before or after asking the server.
    #[error("{message}")]
    Refused {
        /// The reason, for people.
        message: String,
        /// The exit code.
        exit: Exit,
    },
}

impl CliError {
    /// A failure that exits with `exit`.
    pub(crate) fn refused(exit: Exit, message: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), exit }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Config(_) => Exit::Config,
            Self::Unreachable { .. } | Self::Lost { .. } => Exit::Unavailable,
            Self::Api { status, .. } => Exit::of_status(*status),
            Self::Protocol(_) => Exit::Protocol,
            Self::Io { .. } => Exit::Io,
            Self::BrokenPipe => Exit::BrokenPipe,
            Self::Timeout(_) => Exit::Timeout,
            Self::Refused { exit, .. } => *exit,
        }
    }

    /// The error as shown to people: the reason, the fields at fault unless the reason names them, what to do, and what to look
    /// for in the server's log if the server is at fault.
    #[must_use]
    pub fn report(&self) -> String {
        let Self::Api { status, error } = self else {
            return format!("error: {}\n", escape::text(&self.to_string()));
        };
        let mut text = format!("error: {}\n", escape::text(&as_commands(&error.reason)));
        for detail in error.details.iter().filter(|detail| !error.reason.contains(&detail.problem)) {
            text += &format!("  {}: {}\n", escape::line(&detail.field), escape::line(&detail.problem));
        }
        if let Some(advice) = advice(*status, &error.reason) {
            text += &format!("  {advice}\n");
        }
        if *status >= 500 && !error.operation_id.is_empty() {
            text += &format!("  request {} in the server's log\n", escape::line(&error.operation_id));
        }
        text
    }
}

/// Rewords what the server says about requests in terms of commands.
fn as_commands(reason: &str) -> String {
    let reason = reason.replace("start=true", "--start");
    let start = format!("POST {}/sessions/", ambient_wire::BASE);
    let replaced = reason.split_once(&start).and_then(|(before, rest)| {
        let (id, after) = rest.split_once("/start")?;
        Some(format!("{before}'ambient session start {id}'{after}"))
    });
    replaced.unwrap_or(reason)
}

/// A hint on what to do.
fn advice(status: u16, reason: &str) -> Option<&'static str> {
    let of_kind = |kind: &str| reason.starts_with(&format!("{kind} with id="));
    match status {
        401 => Some("set AMBIENT_TOKEN or choose a context with 'ambient context use'"),
        404 if of_kind("Project") => Some("see 'ambient project list'"),
        404 if of_kind("Session") => Some("see 'ambient session list -A'"),
        404 if of_kind("WorkflowExecution") => Some("see 'ambient executions list -A'"),
        404 if of_kind("Operation") => Some("see 'ambient operations list -A'"),
        _ => None,
    }
}

impl From<io::Error> for CliError {
    /// The error for a failed write to standard output.
    fn from(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Io { what: "cannot write to standard output".to_owned(), source }
    }
}
