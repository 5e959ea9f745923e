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

/// A connection that was idle for longer is asked whether it lives before it is used.
const ASK_IDLE: Duration = Duration::from_secs(1);

/// Connections beside the pool for transactions of appends.
const LANES: usize = 6;
/// A batch of appends that has to wait for a lock is taken apart after this, so that only the item concerned waits.
const BATCH_LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Limits of the connections. Every wait has one.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// Connections of the pool.
    pub max_connections: u32,
    /// Waiting for a connection of the pool.
    pub acquire_timeout: Duration,
    /// Waiting for a lock of another transaction.
    pub lock_timeout: Duration,
    /// A statement.
    pub statement_timeout: Duration,
    /// A transaction whose client does nothing.
    pub idle_in_transaction_timeout: Duration,
    /// Sent data that is not acknowledged by the peer.
    pub tcp_user_timeout: Duration,
    /// One attempt of an append, over all.
    pub append_timeout: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Every transaction is read-only: the database refuses whatever would write.
    pub read_only: bool,
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
        }
    }
}

/// The store. Clones share one pool.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    connect: PgConnectOptions,
    /// For appends with a transaction or statement of their own.
    pub(crate) lanes: Lanes,
    pub(crate) group: Arc<Group>,
    pub(crate) append_timeout: Duration,
    /// When and why the last append was given up; none since one went through.
    refused: watch::Sender<Option<(Instant, String)>>,
}

/// How long an append that was given up counts against readiness: while none comes, nothing would show that they go through again.
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
            // Asking a connection whether it lives costs a round trip: only one that was idle is asked.
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
            // The pool has tried all that time, and does not tell what it met.
            Err(sqlx::Error::PoolTimedOut) => return Err(why_not(&connect, options.acquire_timeout).await.into()),
            pool => pool?,
        };
        let lanes = Lanes::by_key(&connect, LANES);
        let group = connect.clone().options([("lock_timeout", BATCH_LOCK_TIMEOUT.as_millis().to_string())]);
        let group = Arc::new(Group::new(Lanes::by_key(&group, WRITERS)));
        let (append_timeout, refused) = (options.append_timeout, watch::Sender::new(None));
        Ok(Self { pool, connect, lanes, group, append_timeout, refused })
    }

    /// Brings the schema `ambient` up to this release. Several servers may call it at once.
    ///
    /// # Errors
    /// When a migration fails or is not allowed, or the database is of a newer release.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        // A connection of its own: a long migration must not end by the limits of a request.
        let mut connection = PgConnection::connect_with(&self.connect).await?;
        // Migrations and their table live in the schema `ambient`, apart from those of the engine.
        Schema::new("ambient", "_migrations", sqlx::migrate!("../migrations")).migrate(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Closes every connection; what is asked afterwards fails.
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

    /// Whether the database answers, and takes what is written: one whose disk is full still answers.
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
                Err(StoreError::Unavailable(format!("it takes no writes: {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// An append was given up, or (none) went through.
    pub(crate) fn note_refusal(&self, reason: Option<&str>) {
        self.refused.send_if_modified(|refused| {
            let changed = refused.is_some() || reason.is_some();
            *refused = reason.map(|reason| (Instant::now(), reason.to_owned()));
            changed
        });
    }

    /// How what is said to the database travels.
    ///
    /// # Errors
    /// As of [`Self::ping`].
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
