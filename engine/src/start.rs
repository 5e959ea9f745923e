//! Start, stop and supervision of an engine.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ambient_postgres::{Lanes, Schema};
use chrono::{DateTime, Utc};
use sqlx::{PgPool, postgres::PgPoolOptions};
use temporalio_client::{Connection, ConnectionOptions, callback_based::CallbackBasedGrpcService};
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;

use crate::{
    clock::Clock,
    deferred,
    due::Due,
    effects,
    engine::{Engine, Inner},
    error::EngineError,
    handoff,
    hint::Hint,
    hot::Hot,
    lease::Lease,
    liveness,
    matching::{Matching, Watchers},
    options::EngineOptions,
    pollers, retention,
    search_attributes::Registry,
    service,
    shelf::Shelf,
    store::{Store, writer::Writer},
    timers, wake,
};

/// Connections besides the pool and the lease's own: one listens, the others send hints.
const SESSION_CONNECTIONS: u32 = 3;
/// Connections that write. One writes; the other takes over while a broken one is given up.
const WRITERS: usize = 2;
/// Limits of the lanes. A statement on the hot path takes milliseconds; one that takes this long waits for a lock it will not get.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "30s"), ("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "30s")];

/// Locks that keep this process from racing with itself on one run.
const STRIPES: usize = 4096;

/// Longest wait for releasing the lease at shutdown.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

impl Engine {
    /// Migrates the schema `engine`, takes a leased row for this process and starts the background tasks on the
    /// current runtime.
    ///
    /// # Errors
    /// When the database cannot be reached or migrated, or an option is empty.
    pub async fn start(pool: PgPool, options: EngineOptions) -> Result<Self, EngineError> {
        if options.namespace.is_empty() {
            return Err(EngineError::Options("namespace is empty"));
        }
        Self::migrate(&pool).await?;
        let session = PgPoolOptions::new()
            .max_connections(SESSION_CONNECTIONS)
            .connect_with((*pool.connect_options()).clone())
            .await?;
        let (lease, (now, wall)) = Lease::take(&session, &options.identity).await?;
        let connect = pool.connect_options().as_ref().clone().options(LIMITS);
        let lanes = Lanes::new(&connect, options.connections);
        let writer = Lanes::by_key(&connect, WRITERS);
        let writer = Arc::new(Writer::new(writer, tokio::runtime::Handle::current()));
        let store = Store {
            lanes,
            pool,
            writer,
            #[cfg(test)]
            tables: None,
        };
        let (engine, hints) = Self::assemble(options, store, session, lease, Clock::new(now, wall), STRIPES);
        engine.background(wake::listen(engine.clone()));
        engine.background(wake::send(engine.clone(), hints));
        engine.background(wake::safety(engine.clone()));
        engine.background(liveness::keep(engine.clone()));
        engine.background(handoff::reclaim(engine.clone()));
        engine.background(deferred::run(engine.clone()));
        engine.background(timers::run(engine.clone()));
        engine.background(pollers::publish(engine.clone()));
        engine.background(retention::run(engine.clone()));
        engine.announce().await;
        Ok(engine)
    }

    /// The assembled parts, on the current runtime; nothing runs yet. Also returns the hints to be sent.
    pub(crate) fn assemble(
        options: EngineOptions,
        store: Store,
        session: PgPool,
        lease: Lease,
        clock: Clock,
        stripes: usize,
    ) -> (Self, mpsc::Receiver<Hint>) {
        let (hints, to_send) = mpsc::channel(wake::QUEUED);
        let inner = Inner {
            options,
            store,
            session,
            runtime: tokio::runtime::Handle::current(),
            clock,
            lease,
            matching: Matching::default(),
            hot: Hot::default(),
            deferred: Shelf::default(),
            runs: Watchers::default(),
            closed: Watchers::default(),
            queries: Watchers::default(),
            attributes: Registry::default(),
            due: Due::new(),
            effects: Semaphore::new(effects::PARALLEL),
            effects_in_hand: Mutex::default(),
            listener_id: Uuid::new_v4(),
            hints,
            stopped: watch::Sender::new(false),
            tasks: Mutex::default(),
            stripes: (0..stripes).map(|_| tokio::sync::Mutex::new(())).collect(),
            accepting: AtomicBool::new(true),
            calls: Arc::default(),
        };
        (Self { inner: Arc::new(inner) }, to_send)
    }

    /// Migrates the schema `engine`, which has its own migrations table.
    ///
    /// # Errors
    /// When the database cannot be reached, or a migration fails or is not allowed.
    pub async fn migrate(pool: &PgPool) -> Result<(), EngineError> {
        let mut connection = pool.acquire().await?;
        connection.close_on_drop();
        Ok(Schema::new("engine", "_sqlx_migrations", sqlx::migrate!("./migrations")).migrate(&mut connection).await?)
    }

    /// The service to use in place of a network connection.
    #[must_use]
    pub fn service(&self) -> CallbackBasedGrpcService {
        service::callback(self.clone())
    }

    /// A connection for `temporalio_client::Client` and workers.
    ///
    /// # Errors
    /// When the SDK's client refuses the connection.
    pub async fn connection(&self) -> Result<Connection, EngineError> {
        let failed = |e: &dyn std::fmt::Display| EngineError::Connection(e.to_string());
        let target = url::Url::parse("http://engine.in-process").map_err(|e| failed(&e))?;
        let options = ConnectionOptions::new(target)
            .identity(self.inner.options.identity.clone())
            .service_override(self.service())
            .dns_load_balancing(None)
            .build();
        Connection::connect(options).await.map_err(|e| failed(&e))
    }

    /// Whether the engine can work: the lease is held and the database has responded recently.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn readiness(&self) -> Result<(), String> {
        if self.is_stopping() {
            return Err("the engine is shutting down".to_owned());
        }
        if self.inner.lease.is_held() {
            return Ok(());
        }
        let age = self.inner.lease.age().as_secs_f32();
        Err(format!("the engine's lease was last renewed {age:.1} s ago: the database does not answer"))
    }

    /// Moves engine time forward, for tests: timers, activity and run timeouts, retries and event times follow. Leases
    /// and workflow-task timeouts do not.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn advance_clock(&self, by: Duration) -> Result<(), EngineError> {
        let (now, wall): (DateTime<Utc>, DateTime<Utc>) = sqlx::query_as(
            "with c as (update engine.clock set shift = shift + make_interval(secs => $1) returning shift)
             select clock_timestamp() + shift, clock_timestamp() from c",
        )
        .bind(by.as_secs_f64())
        .fetch_one(&self.inner.store.pool)
        .await?;
        self.inner.clock.set(now, wall);
        self.inner.due.look();
        self.hint(Hint::Clock);
        Ok(())
    }

    /// Stops the background tasks and releases this process's work so that other processes take over at once. Long polls
    /// return empty; other calls are refused from here on. Shut workers down first, or their tasks are run again.
    pub async fn shutdown(&self) {
        if !self.inner.accepting.swap(false, Ordering::AcqRel) {
            return;
        }
        self.inner.stopped.send_replace(true);
        for task in self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        let release = async {
            self.flush_all().await;
            liveness::release(self).await
        };
        match tokio::time::timeout(RELEASE_TIMEOUT, release).await {
            Ok(Ok(())) => self.announce().await,
            Ok(Err(status)) => tracing::warn!(%status, "lease not released, it will run out"),
            Err(_) => tracing::warn!("lease not released in time, it will run out"),
        }
        self.inner.lease.hang_up().await;
        self.inner.session.close().await;
    }

    /// Stops renewing the lease without releasing it, as a dead process would. For recovery tests only.
    #[doc(hidden)]
    pub fn abandon_lease(&self) {
        self.inner.lease.abandon();
    }

    /// Releases what shows that this process is alive, as the end of its connections does. For recovery tests only.
    #[doc(hidden)]
    pub async fn hang_up(&self) {
        self.inner.lease.hang_up().await;
    }

    /// Tells the other processes that one arrived or left.
    async fn announce(&self) {
        let payload = format!("{}\np", self.inner.listener_id.simple());
        let sent =
            sqlx::query("select pg_notify('ambient_engine', $1)").bind(payload).execute(&self.inner.session).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "other processes not told");
        }
        self.inner.lease.renew_now.notify_one();
    }
}
