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
//! `lease` frees the work of dead processes, `effects` carries changes over to other runs, `retention` removes old histories, `server`
//! answers on a socket.

mod change;
mod clock;
mod deferred;
mod effects;
mod engine;
mod export;
mod handoff;
mod history;
mod hot;
pub mod integrity;
mod lease;
mod matching;
mod pollers;
mod proto;
mod recorded;
mod retention;
mod retry;
mod rpc;
mod search_attributes;
mod server;
mod service;
mod start;
mod store;
#[cfg(test)]
mod testing;
mod timers;
mod token;
mod wake;

use std::time::Duration;

pub use engine::Engine;
pub use export::{After, HistoryReader, StoredRun};
pub use server::{Bounds, Limits as ServeLimits, ServeError, Tls};

/// A week: what went wrong on a Friday can be looked at after the weekend, and a version that runs for some days replays histories of
/// every kind before the next one is deployed.
const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// How an engine presents itself, and how long it remembers.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The one namespace served; requests for another are `NotFound`.
    pub namespace: String,
    /// Shown as the owner of this process's row, for people.
    pub identity: String,
    /// How long the history of a closed run is kept, at least; zero is for ever.
    pub retention: Duration,
    /// Connections of the engine's own for giving out and taking in tasks, besides the pool, two that write, three that listen and send
    /// hints, and the one that keeps the lease.
    pub connections: usize,
    /// Longest that a change waits for the workflow task it causes, to be written with its end. Under load a task waits its turn; a
    /// worker that is slower than this costs a second statement.
    pub deferral: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            identity: format!("{}@engine", std::process::id()),
            retention: DEFAULT_RETENTION,
            connections: 8,
            deferral: Duration::from_millis(250),
        }
    }
}

#[cfg(test)]
impl EngineOptions {
    /// Changes wait for their tasks, however slow the machine is.
    pub(crate) fn patient() -> Self {
        Self { deferral: Duration::from_secs(20), ..Self::default() }
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
    Migration(#[from] ambient_postgres::MigrationError),
    /// The SDK's client refused the in-process connection.
    #[error("engine connection: {0}")]
    Connection(String),
    /// What is stored cannot be decoded; names the run.
    #[error("engine history: {0}")]
    Corrupt(String),
    /// The options cannot be used; names the field.
    #[error("engine options: {0}")]
    Options(&'static str),
}
