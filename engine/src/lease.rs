//! The leased row each process holds.
//!
//! Renewed every second, lost after three on the database's wall clock. The connection that renews it holds an advisory lock in the
//! process's name: when a process is killed, its connections end and the lock is released at once. `liveness` handles what follows
//! from either.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::error::EngineError;

/// A process that has not renewed for this long hands out no tasks. Less than the 3 s after which others release its work.
const HELD: Duration = Duration::from_millis(2500);

/// This process's row, and what it knows about the others.
#[derive(Debug)]
pub(crate) struct Lease {
    process: RwLock<Uuid>,
    renewed: Mutex<Instant>,
    live: RwLock<HashSet<Uuid>>,
    pub(crate) renew_now: Notify,
    /// A process has gone: look for what it left behind.
    pub(crate) sweep_now: Notify,
    /// Processes whose work is being released here.
    pub(crate) freeing: Mutex<HashSet<Uuid>>,
    /// Tests stop renewing to simulate a dead process.
    abandoned: AtomicBool,
    /// The connection that renews and holds the lock; none until there is one again.
    pub(crate) line: tokio::sync::Mutex<Option<PgConnection>>,
    pub(crate) options: PgConnectOptions,
}

/// Engine time and wall clock.
type Times = (DateTime<Utc>, DateTime<Utc>);

#[derive(sqlx::FromRow)]
pub(crate) struct Renewal {
    pub(crate) held: i64,
    pub(crate) now: DateTime<Utc>,
    pub(crate) wall: DateTime<Utc>,
    pub(crate) live: Vec<Uuid>,
    pub(crate) dead: Vec<Uuid>,
    /// A live process has lost its lock.
    pub(crate) suspect: bool,
}

pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lease {
    /// Takes a row. Returns the lease, engine time and wall clock.
    pub(crate) async fn take(pool: &sqlx::PgPool, identity: &str) -> Result<(Self, Times), EngineError> {
        let process = Uuid::new_v4();
        let renewed = Instant::now();
        let times = insert(pool, process, identity).await?;
        let lease = Self::of(process, renewed, (*pool.connect_options()).clone());
        *lease.line.lock().await = Some(open(&lease.options, process).await?);
        Ok((lease, times))
    }

    /// A row that was taken at `renewed`, without the connection that keeps it.
    pub(crate) fn of(process: Uuid, renewed: Instant, options: PgConnectOptions) -> Self {
        Self {
            process: RwLock::new(process),
            renewed: Mutex::new(renewed),
            live: RwLock::default(),
            renew_now: Notify::new(),
            sweep_now: Notify::new(),
            freeing: Mutex::default(),
            abandoned: AtomicBool::new(false),
            line: tokio::sync::Mutex::default(),
            options,
        }
    }

    pub(crate) fn process(&self) -> Uuid {
        *self.process.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_held(&self) -> bool {
        guard(&self.renewed).elapsed() < HELD
    }

    pub(crate) fn age(&self) -> Duration {
        guard(&self.renewed).elapsed()
    }

    pub(crate) fn is_live(&self, process: Uuid) -> bool {
        self.live.read().unwrap_or_else(PoisonError::into_inner).contains(&process)
    }

    pub(crate) fn has_company(&self) -> bool {
        !self.live.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The row was renewed by a statement sent at `asked`.
    pub(crate) fn renewed(&self, asked: Instant) {
        *guard(&self.renewed) = asked;
    }

    /// The row was lost, and a new one was taken by a statement sent at `asked`.
    pub(crate) fn renamed(&self, process: Uuid, asked: Instant) {
        *self.process.write().unwrap_or_else(PoisonError::into_inner) = process;
        self.renewed(asked);
    }

    /// The other live processes.
    pub(crate) fn met(&self, live: Vec<Uuid>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live.into_iter().collect();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Releases the lock, as the end of the process does.
    pub(crate) async fn hang_up(&self) {
        if let Some(line) = self.line.lock().await.take() {
            // It is gone either way.
            let _ = line.close().await;
        }
    }
}

/// A connection holding a process's lock.
pub(crate) async fn open(options: &PgConnectOptions, process: Uuid) -> Result<PgConnection, sqlx::Error> {
    let options = options.clone().options([("lock_timeout", "1s"), ("statement_timeout", "2s")]);
    let mut line = PgConnection::connect_with(&options).await?;
    sqlx::query("select pg_advisory_lock(engine.presence($1))").bind(process).execute(&mut line).await?;
    Ok(line)
}

pub(crate) async fn insert(pool: &sqlx::PgPool, process: Uuid, identity: &str) -> Result<Times, sqlx::Error> {
    let sql = "insert into engine.processes (process_id, identity) values ($1, $2)
               returning engine.now(), clock_timestamp()";
    sqlx::query_as(sql).bind(process).bind(identity).fetch_one(pool).await
}

/// Locks are taken for one statement, only to see whether they are free. After a server restart they mean nothing until
/// every process has had time to come back.
const RENEWAL: &str = "
with me as (update engine.processes set renewed_at = clock_timestamp() where process_id = $1 returning 1),
others as materialized (
    select process_id, clock_timestamp() - renewed_at as age,
           pg_postmaster_start_time() < clock_timestamp() - interval '5 s'
               and pg_try_advisory_xact_lock(engine.presence(process_id)) as unlocked
    from engine.processes where process_id <> $1),
judged as (select process_id, unlocked, age > interval '3 s' or (unlocked and age > interval '1.5 s') as dead from others)
select (select count(*) from me) as held, engine.now() as now, clock_timestamp() as wall,
       array(select process_id from judged where not dead) as live,
       array(select process_id from judged where dead) as dead,
       exists (select 1 from judged where not dead and unlocked) as suspect";

pub(crate) async fn ask(mut line: PgConnection, process: Uuid) -> Result<(PgConnection, Renewal), sqlx::Error> {
    let renewal = sqlx::query_as(RENEWAL).bind(process).fetch_one(&mut line).await?;
    Ok((line, renewal))
}
