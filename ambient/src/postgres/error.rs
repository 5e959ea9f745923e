//! What can go wrong with the embedded PostgreSQL, each with a remedy.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the embedded PostgreSQL does not run.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No binaries, or only of too old a version.
    #[error(
        "no PostgreSQL {oldest} or newer (found: {found}): install the Debian package `postgresql`, or run scripts/setup, \
         or put initdb and postgres on PATH, or set AMBIENT_DATABASE_URL to a server of yours"
    )]
    NoBinaries {
        /// Oldest supported major version.
        oldest: u32,
        /// What was found.
        found: String,
    },
    /// The cluster was written by a major version that is not installed.
    #[error("{} was written by PostgreSQL version {major}; installed: {found}. Install that version again", data.display())]
    WrongVersion {
        /// The data directory.
        data: PathBuf,
        /// Version that wrote it.
        major: u32,
        /// What was found.
        found: String,
    },
    /// We are root and there is no account to run it under.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`: add one, or set \
         AMBIENT_DATABASE_URL to a server of yours"
    )]
    NoAccount,
    /// PostgreSQL needs a name for its user.
    #[error(
        "uid {uid} has no entry in the user database, without which PostgreSQL does not start: add one, or set \
         AMBIENT_DATABASE_URL to a server of yours"
    )]
    UnknownUid {
        /// Ours, or that of the data's owner.
        uid: u32,
    },
    /// The account cannot reach its files.
    #[error("user {account}, under whom PostgreSQL runs, may not enter {}: chmod o+x it, or set another data_dir", dir.display())]
    Barrier {
        /// Name of the account.
        account: String,
        /// The folder in the way.
        dir: PathBuf,
    },
    /// A Unix socket could not be created there.
    #[error(
        "the socket folder {} has {bytes} bytes, at most {longest} are possible: set data_dir to a shorter path",
        folder.display()
    )]
    SocketPathTooLong {
        /// The folder.
        folder: PathBuf,
        /// Length of its path, bytes.
        bytes: usize,
        /// Longest possible, bytes.
        longest: usize,
    },
    /// There is a cluster but no password for it.
    #[error("{} is missing, the password of the database in {}: restore it from a backup", file.display(), data.display())]
    PasswordLost {
        /// Where the password was.
        file: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
    /// `initdb` failed.
    #[error("{}: {reason}", program.display())]
    Initdb {
        /// The program.
        program: PathBuf,
        /// Its output.
        reason: String,
    },
    /// The server ended before it was ready.
    #[error("PostgreSQL ended at once ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// Exit status.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server is alive but does not respond.
    #[error("PostgreSQL is not ready after {seconds} s ({reason}); the end of {}:\n{tail}", log.display())]
    NotReady {
        /// How long we waited.
        seconds: u64,
        /// The error of the last attempt to connect.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server does not end.
    #[error("PostgreSQL (pid {pid}) has not ended {seconds} s after a fast shutdown; see {}", log.display())]
    NotStopped {
        /// Its process.
        pid: i32,
        /// How long we waited.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// Another process is starting or stopping the same cluster.
    #[error("another process has been starting or stopping PostgreSQL for {seconds} s ({})", lock.display())]
    Busy {
        /// How long we waited.
        seconds: u64,
        /// The lock it holds.
        lock: PathBuf,
    },
    /// The server refused our request.
    #[error("embedded PostgreSQL: {0}")]
    Refused(#[from] sqlx::Error),
    /// A file or program cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
}

impl PostgresError {
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
