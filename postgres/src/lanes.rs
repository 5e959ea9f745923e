//! A few connections separate from the pool, for the statements that everything passes through.
//!
//! A pool checks a connection before and after each use, which turns one round trip into three. A lane goes back
//! unchecked, and only after a statement that ended; whatever else happens to it, it is closed, and the database
//! rolls back what it had begun. A statement that meets a connection the database has dropped fails, and its caller
//! retries.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest wait for a free lane.
const WAIT: Duration = Duration::from_secs(10);
/// Prepared statements kept per connection: one for every combination of sections that a writer meets.
const STATEMENTS: usize = 128;

/// The connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Lanes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: PgConnectOptions,
    runtime: tokio::runtime::Handle,
    idle: Mutex<Vec<PgConnection>>,
    free: Arc<Semaphore>,
}

/// One connection, taken. Dropped without [`Lane::finish`] it is closed.
#[derive(Debug)]
pub struct Lane {
    lanes: Lanes,
    connection: PgConnection,
    permit: OwnedSemaphorePermit,
}

impl Lanes {
    /// At most `count` connections with these options, opened on demand, for statements that find few rows by a
    /// key or in an index's order. To be called on the runtime that the connections should live on.
    #[must_use]
    pub fn new(options: &PgConnectOptions, count: usize) -> Self {
        let options = options.clone().statement_cache_capacity(STATEMENTS).options([
            // Planned once per connection and always the same way: a plan made while the tables were empty must not be
            // one that reads them in full.
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]);
        let runtime = tokio::runtime::Handle::current();
        let free = Arc::new(Semaphore::new(count.max(1)));
        Self { inner: Arc::new(Inner { options, runtime, idle: Mutex::default(), free }) }
    }

    /// For statements that find every row by its key. An index may only be used to look up keys, never to be read in full,
    /// which looks cheapest to the planner as long as a table is empty.
    #[must_use]
    pub fn by_key(options: &PgConnectOptions, count: usize) -> Self {
        let options = options.clone().options([("enable_indexscan", "off"), ("enable_indexonlyscan", "off")]);
        Self::new(&options, count)
    }

    /// A connection, new or used before.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] if none becomes free in 10 s; else why none can be opened.
    pub async fn take(&self) -> Result<Lane, sqlx::Error> {
        let permit = match tokio::time::timeout(WAIT, self.inner.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(sqlx::Error::PoolClosed),
            Err(_) => return Err(sqlx::Error::PoolTimedOut),
        };
        let idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            // On the lanes' own runtime, whoever calls: a connection belongs to the runtime that opened it.
            None => {
                let options = self.inner.options.clone();
                let opened = self.inner.runtime.spawn(async move { PgConnection::connect_with(&options).await });
                opened.await.map_err(|_| sqlx::Error::PoolClosed)??
            }
        };
        Ok(Lane { lanes: self.clone(), connection, permit })
    }

    /// No lane is handed out any more; idle ones are closed cleanly.
    pub async fn close(&self) {
        self.inner.free.close();
        let idle = std::mem::take(&mut *self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            // Dropping it would close it, too.
            let _ = connection.close().await;
        }
    }
}

impl Lane {
    /// The connection.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Hands the lane back, unless the result says that the connection is broken; then the idle ones are suspect too.
    /// No transaction may be open.
    ///
    /// # Errors
    /// Those of `result`.
    pub fn finish<T>(self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let mut idle = self.lanes.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if result.as_ref().err().is_some_and(is_broken) {
            idle.clear();
        } else if !self.lanes.inner.free.is_closed() {
            idle.push(self.connection);
        }
        drop(idle);
        drop(self.permit);
        result
    }
}

/// Whether an error concerns the connection, so that nothing is known about a statement in progress.
#[must_use]
pub fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        // 57P: the server shuts down; 08: connection exceptions
        sqlx::Error::Database(e) => e.code().is_some_and(|c| c.starts_with("57P") || c.starts_with("08")),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => false,
        _ => true,
    }
}
