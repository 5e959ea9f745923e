//! All SQL on runs: reading a run's state and the one place that changes it.
//!
//! A change is decided by a pure function (see `history`), which yields a [`Transition`](crate::model::Transition); [`commit`] writes it
//! in a statement that compares the run's revision and last event id. [`writer`] combines what is ready at the same time into
//! one such statement. Nobody holds a lock in the database while deciding.

mod activities;
pub(crate) mod commit;
pub(crate) mod dispatch;
mod load;
mod parts;
pub(crate) mod reset;
mod start;
mod statement;
#[cfg(test)]
pub(crate) mod tables;
pub(crate) mod writer;

pub(crate) use commit::CommitError;

use std::sync::Arc;

use ambient_postgres::Lanes;
use sqlx::{PgPool, Postgres, Transaction};

/// The engine's tables.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) pool: PgPool,
    /// For what every task passes through.
    pub(crate) lanes: Lanes,
    pub(crate) writer: Arc<writer::Writer>,
    /// Instead of the tables, where a change reads them.
    #[cfg(test)]
    pub(crate) tables: Option<Arc<dyn tables::Tables>>,
}

/// Begins a transaction on the pool.
///
/// In its own task, because sqlx 0.9.0 (its issue 4393) returns a connection with an open transaction to the pool if
/// the caller goes away before `begin` is answered, and whoever gets it next works inside that transaction.
#[allow(clippy::disallowed_methods, reason = "it comes to its end")]
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.begin().await }).await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}
