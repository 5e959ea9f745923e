//! The connection pool and its limits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ambient_postgres::{Lanes, Schema, Transport};
use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::watch;

use crate::{
    append::{Group, WRITERS},
    error::StoreError,
};

/// A connection that has been idle for longer is checked before it is used.
const ASK_IDLE: Duration = Duration::from_secs(1);

/// Connections outside the pool for transactions of appends.
const LANES: usize = 6;
/// A batch of appends that waits for a lock this long is split up, so that only the item concerned waits.
const BATCH_LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Limits on connections. Every wait has one.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// Connections in the pool.
    pub max_connections: u32,
    /// Timeout for getting a connection from the pool.
    pub acquire_timeout: Duration,
    /// Timeout for getting a lock held by another transaction.
    pub lock_timeout: Duration,
    /// Timeout for a statement.
    pub statement_timeout: Duration,
    /// Timeout for a transaction whose client is idle.
    pub idle_in_transaction_timeout: Duration,
    /// Timeout for sent data that the peer does not acknowledge.
    pub tcp_user_timeout: Duration,
    /// Timeout for one attempt at an append, in total.
    pub append_timeout: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Every transaction is read-only: the database refuses any write.
    pub read_only: bool,
    /// This server exports traces: turns that end and executions that are started are noted for it.
    pub traces: bool,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            max_connections: 16,
            acquire_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(10),
            tcp_user_timeout: Duration::from_secs(10),
            append_timeout: Duration::from_secs(15),
            application_name: "ambient".to_owned(),
            read_only: false,
            traces: false,
        }
    }
}

/// The store. Clones share one pool.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    connect: PgConnectOptions,
    /// For appends that need their own transaction or statement.
    pub(crate) lanes: Lanes,
    pub(crate) group: Arc<Group>,
    pub(crate) append_timeout: Duration,
    pub(crate) traces: bool,
    /// When and why the last append was given up; none once one has succeeded.
    refused: watch::Sender<Option<(Instant, String)>>,
}

/// How long an append that was given up counts against readiness: if no more come, nothing would show that they succeed again.
const REFUSED: Duration = Duration::from_secs(10);

/// Why no connection can be made.
async fn why_not(connect: &PgConnectOptions, patience: Duration) -> sqlx::Error {
    match tokio::time::timeout(patience, PgConnection::connect_with(connect)).await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    }
}

impl Database {
    /// Connects.
    ///
    /// # Errors
    /// When the URL is wrong or the database cannot be reached.
    pub async fn connect(url: &str, options: DatabaseOptions) -> Result<Self, StoreError> {
        let connect = connect_options(url, &options)?;
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            // Checking a connection costs a round trip: only an idle one is checked.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > ASK_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(connect.clone())
            .await;
        let pool = match pool {
            // The pool kept trying all that time, and does not say what went wrong.
            Err(sqlx::Error::PoolTimedOut) => return Err(why_not(&connect, options.acquire_timeout).await.into()),
            pool => pool?,
        };
        let lanes = Lanes::by_key(&connect, LANES);
        let group = connect.clone().options([("lock_timeout", BATCH_LOCK_TIMEOUT.as_millis().to_string())]);
        let group = Arc::new(Group::new(Lanes::by_key(&group, WRITERS)));
        let (append_timeout, traces, refused) = (options.append_timeout, options.traces, watch::Sender::new(None));
        Ok(Self { pool, connect, lanes, group, append_timeout, traces, refused })
    }

    /// Migrates the schema `ambient` to this release. Several servers may call it at once.
    ///
    /// # Errors
    /// When a migration fails or is not allowed, or the database belongs to a newer release.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        // Its own connection: the limits of a request must not end a long migration.
        let mut connection = PgConnection::connect_with(&self.connect).await?;
        // Migrations and their table live in the schema `ambient`, separate from the engine's.
        Schema::new("ambient", "_migrations", sqlx::migrate!("../migrations")).migrate(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Closes every connection; requests after that fail.
    pub async fn close(&self) {
        self.group.close().await;
        self.lanes.close().await;
        self.pool.close().await;
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Options for a connection outside the pool.
    #[must_use]
    pub fn connect_options(&self) -> &PgConnectOptions {
        &self.connect
    }

    /// Whether the database responds and accepts writes: one whose disk is full still responds.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1").execute(&self.pool).await?;
        self.takes_writes()
    }

    fn takes_writes(&self) -> Result<(), StoreError> {
        match &*self.refused.borrow() {
            Some((at, reason)) if at.elapsed() < REFUSED => {
                Err(StoreError::Unavailable(format!("it accepts no writes: {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// An append was given up, or (none) succeeded.
    pub(crate) fn note_refusal(&self, reason: Option<&str>) {
        self.refused.send_if_modified(|refused| {
            let changed = refused.is_some() || reason.is_some();
            *refused = reason.map(|reason| (Instant::now(), reason.to_owned()));
            changed
        });
    }

    /// How the connection to the database is secured.
    ///
    /// # Errors
    /// Same as [`Self::ping`].
    pub async fn transport(&self) -> Result<Transport, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let transport = Transport::of(&mut connection, self.connect.get_ssl_mode()).await?;
        self.takes_writes()?;
        Ok(transport)
    }
}

fn connect_options(url: &str, options: &DatabaseOptions) -> Result<PgConnectOptions, StoreError> {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let connect = ambient_postgres::connect_options(url)?;
    Ok(connect.application_name(&options.application_name).options([
        ("lock_timeout", millis(options.lock_timeout)),
        ("statement_timeout", millis(options.statement_timeout)),
        ("idle_in_transaction_session_timeout", millis(options.idle_in_transaction_timeout)),
        ("tcp_user_timeout", millis(options.tcp_user_timeout)),
        ("tcp_keepalives_idle", "10".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("default_transaction_read_only", if options.read_only { "on" } else { "off" }.to_owned()),
    ]))
}
