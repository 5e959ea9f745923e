//! Embedded workflow engine: the part of Temporal's `WorkflowService` that `temporalio-sdk` uses, in process, on Postgres.
//!
//! Plugged into the SDK's client in place of a network connection (`ConnectionOptions::service_override`), so workflows,
//! workers and clients are ordinary Temporal code, and histories are Temporal histories. Any number of processes share one
//! database; nothing but the database is shared.
//!
//! ```no_run
//! # async fn example(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let engine = ambient_engine::Engine::start(pool, ambient_engine::EngineOptions::default()).await?;
//! let connection = engine.connection().await?; // for temporalio_client::Client::new
//! # Ok(())
//! # }
//! ```
//!
//! How it is built: `rpc` answers requests, `history` decides what a request changes (pure), `store` writes the change
//! (the only place that appends to a history), `matching`, `handoff` and `wake` bring tasks to pollers, `timers` handles what is due,
//! `lease` frees the work of dead processes, `effects` carries changes over to other runs.

mod clock;
mod effects;
mod engine;
mod handoff;
mod history;
mod hot;
mod lease;
mod matching;
mod proto;
mod retry;
mod rpc;
mod service;
mod start;
mod store;
mod timers;
mod token;
mod wake;

pub use engine::Engine;

/// How an engine presents itself.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The one namespace served; requests for another are `NotFound`.
    pub namespace: String,
    /// Shown as the owner of this process's row, for people.
    pub identity: String,
    /// Connections of the engine's own for giving out and taking in tasks, besides the pool, two that write, and the three that listen
    /// and keep the lease.
    pub connections: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { namespace: "default".to_owned(), identity: format!("{}@engine", std::process::id()), connections: 8 }
    }
}

/// Why an engine could not start or be reached.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The database failed or cannot be reached.
    #[error("engine database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("engine schema: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The SDK's client refused the in-process connection.
    #[error("engine connection: {0}")]
    Connection(String),
    /// The options cannot be used; names the field.
    #[error("engine options: {0}")]
    Options(&'static str),
}
