//! Why an engine does not start or cannot be read.

/// Why an engine could not start or be reached.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The database failed or cannot be reached.
    #[error("engine database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("engine schema: {0}")]
    Migration(#[from] ambient_postgres::MigrationError),
    /// The SDK's client refused the in-process connection.
    #[error("engine connection: {0}")]
    Connection(String),
    /// Stored data cannot be decoded; names the run.
    #[error("engine history: {0}")]
    Corrupt(String),
    /// The options are invalid; names the field.
    #[error("engine options: {0}")]
    Options(&'static str),
}
