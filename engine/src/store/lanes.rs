//! A few connections of the engine's own for the statements every task passes through.
//!
//! The pool checks a connection before and after each use, which makes three round trips of one. Here a connection goes
//! back without a check, and only after a statement that ended; whatever else happens to it, it is closed. A statement
//! that meets a connection the server has dropped fails as `Unavailable`, and its caller tries again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Longest wait for a free lane.
const WAIT: Duration = Duration::from_secs(10);
/// Prepared statements kept per connection: one for every combination of sections the writer meets.
const STATEMENTS: usize = 128;

/// The connections.
#[derive(Debug)]
pub(crate) struct Lanes {
    options: PgConnectOptions,
    runtime: tokio::runtime::Handle,
    idle: Mutex<Vec<PgConnection>>,
    free: Semaphore,
}

/// One connection, taken. Dropped without [`Lane::finish`] it is closed.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    pub(crate) connection: PgConnection,
    permit: SemaphorePermit<'a>,
}

impl Lanes {
    /// For statements that find few rows by a key or in the order of an index. Called on the engine's runtime.
    pub(crate) fn new(options: &PgConnectOptions, count: usize) -> Self {
        // A statement of the hot path takes milliseconds; one that takes this long waits for a lock it will not get.
        let options = options.clone().statement_cache_capacity(STATEMENTS).options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
            // Planned once per connection and always the same way: a plan made while the tables were empty must not be
            // one that reads them whole.
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]);
        let runtime = tokio::runtime::Handle::current();
        Self { options, runtime, idle: Mutex::default(), free: Semaphore::new(count.max(1)) }
    }

    /// For statements that find every row by its key. An index may only be used to look keys up, never to be read whole,
    /// which is what looks cheapest to the planner as long as a table is empty.
    pub(crate) fn by_key(options: &PgConnectOptions, count: usize) -> Self {
        let options = options.clone().options([("enable_indexscan", "off"), ("enable_indexonlyscan", "off")]);
        Self::new(&options, count)
    }

    pub(crate) async fn take(&self) -> Result<Lane<'_>, sqlx::Error> {
        let permit = match tokio::time::timeout(WAIT, self.free.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(sqlx::Error::PoolClosed),
            Err(_) => return Err(sqlx::Error::PoolTimedOut),
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            // On the engine's runtime, whoever calls: a connection belongs to the runtime that opened it.
            None => {
                let options = self.options.clone();
                let opened = self.runtime.spawn(async move { PgConnection::connect_with(&options).await });
                opened.await.map_err(|_| sqlx::Error::PoolClosed)??
            }
        };
        Ok(Lane { lanes: self, connection, permit })
    }
}

impl Lane<'_> {
    /// Hands the lane back, unless the result says that the connection is broken; then the others are suspect too.
    pub(crate) fn finish<T>(self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let mut idle = self.lanes.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if result.as_ref().err().is_some_and(is_broken) {
            idle.clear();
        } else {
            idle.push(self.connection);
        }
        drop(idle);
        drop(self.permit);
        result
    }
}

pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        // 57P: the server shuts down; 08: connection exceptions
        sqlx::Error::Database(e) => e.code().is_some_and(|c| c.starts_with("57P") || c.starts_with("08")),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => false,
        _ => true,
    }
}
