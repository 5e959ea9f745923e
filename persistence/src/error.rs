//! Errors of reads; those of appends are [`crate::AppendError`].

use sqlx::error::DatabaseError;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or is too busy; the same request may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database refused; a retry will not help.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// The migrations cannot be applied.
    #[error("migration: {0}")]
    Migration(#[from] ambient_postgres::MigrationError),
    /// Written by a release that this one does not understand. Never guessed at.
    #[error("{kind} {id} was written with schema version {found}, this release reads up to {known}")]
    UnknownSchemaVersion {
        /// Entity kind.
        kind: &'static str,
        /// Entity id.
        id: String,
        /// Stored.
        found: i32,
        /// Newest known.
        known: i32,
    },
    /// Stored data cannot be read as what it should be.
    #[error("stored {what} cannot be read: {reason}")]
    Corrupt {
        /// Which data.
        what: String,
        /// Why.
        reason: String,
    },
    /// A list was requested with a column, value or cursor that does not exist.
    #[error("{field}: {reason}")]
    BadQuery {
        /// The query's field.
        field: String,
        /// Why.
        reason: String,
    },
    /// A text contains a NUL character, which Postgres cannot store.
    #[error("{field}: must not contain NUL")]
    Nul {
        /// Path of the text, such as `input.spec.prompt`.
        field: String,
    },
    /// A value would not be read back unchanged (such as an integer beyond 2^53): refused before it is written.
    #[error("{field} cannot be stored exactly")]
    Unfaithful {
        /// `input`, `events` or `context`.
        field: &'static str,
    },
}

impl StoreError {
    pub(crate) fn bad_query(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadQuery { field: field.into(), reason: reason.into() }
    }
    pub(crate) fn corrupt(what: impl Into<String>, reason: &impl ToString) -> Self {
        Self::Corrupt { what: what.into(), reason: reason.to_string() }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_transient(&error) { Self::Unavailable(error.to_string()) } else { Self::Database(error) }
    }
}

/// Whether the same request may succeed later, on this or another connection.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

fn is_transient_code(code: &str) -> bool {
    // Connection exceptions, resources, operator intervention (shutdown, cancel), serialization, deadlock, lock timeout,
    // idle-in-transaction timeout.
    ["08", "53", "57"].iter().any(|class| code.starts_with(class))
        || matches!(code, "40001" | "40P01" | "55P03" | "25P03")
}

/// Whether a statement violated a unique index.
pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}
