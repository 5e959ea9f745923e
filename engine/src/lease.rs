//! The leased row each process holds, and what happens to the work of a process that lost its own.
//!
//! Renewed every second, lost after three on the database's wall clock. No task is renewed by itself: when the row goes,
//! the workflow tasks of that process are offered again at once, and its activities end as a heartbeat timeout under their
//! retry policy. A process that was only paused finds its row gone, takes a new one, and its old task tokens are stale.
//!
//! The connection that renews holds an advisory lock in the name of the process. When a process is killed, its connections end
//! and the lock is free at once: a process without its lock that has missed a renewal is taken for dead without waiting for
//! the three seconds. (Not while the database server has just started: then everybody's locks are gone.)

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use temporalio_common::protos::temporal::api::enums::v1::TimeoutType;
use tokio::sync::Notify;
use tonic::Status;
use uuid::Uuid;

use crate::{
    EngineError,
    change::{Decision, Unchanged},
    clock::jittered,
    engine::Engine,
    history::commands::Needs,
    proto::db,
    store::{Activity, Target, TaskState},
    wake::Hint,
};

/// How often a process renews its row.
const RENEW: Duration = Duration::from_secs(1);
/// A process that has not renewed for so long gives out no tasks. Less than the 3 s after which others free its work.
const HELD: Duration = Duration::from_millis(2500);
/// How soon to look again at a process whose lock is free.
const SUSPECT: Duration = Duration::from_millis(200);
/// Longest time a renewal may take, with a connection that has to be opened.
const PATIENCE: Duration = Duration::from_secs(2);
/// Runs freed at the same time: about a batch of the writer, so that they share commits.
const PARALLEL: usize = 64;

/// This process's row, and what it knows of the others.
#[derive(Debug)]
pub(crate) struct Lease {
    process: RwLock<Uuid>,
    renewed: Mutex<Instant>,
    live: RwLock<HashSet<Uuid>>,
    pub(crate) renew_now: Notify,
    /// A process has gone: look for what it left.
    pub(crate) sweep_now: Notify,
    /// Processes whose work is being freed here.
    freeing: Mutex<HashSet<Uuid>>,
    /// Tests stop renewing to play a dead process.
    abandoned: AtomicBool,
    /// The connection that renews and holds the lock; none until there is one again.
    line: tokio::sync::Mutex<Option<PgConnection>>,
    options: PgConnectOptions,
}

/// Engine time and wall clock.
type Times = (DateTime<Utc>, DateTime<Utc>);

#[derive(sqlx::FromRow)]
struct Renewal {
    held: i64,
    now: DateTime<Utc>,
    wall: DateTime<Utc>,
    live: Vec<Uuid>,
    dead: Vec<Uuid>,
    /// A live one is without its lock.
    suspect: bool,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lease {
    /// Takes a row. Returns the lease, engine time and wall clock.
    pub(crate) async fn take(pool: &sqlx::PgPool, identity: &str) -> Result<(Self, Times), EngineError> {
        let process = Uuid::new_v4();
        let renewed = Instant::now();
        let times = insert(pool, process, identity).await?;
        let lease = Self {
            process: RwLock::new(process),
            renewed: Mutex::new(renewed),
            live: RwLock::default(),
            renew_now: Notify::new(),
            sweep_now: Notify::new(),
            freeing: Mutex::default(),
            abandoned: AtomicBool::new(false),
            line: tokio::sync::Mutex::default(),
            options: (*pool.connect_options()).clone(),
        };
        *lease.line.lock().await = Some(open(&lease.options, process).await?);
        Ok((lease, times))
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

    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Lets go of the lock, as the end of the process does.
    pub(crate) async fn hang_up(&self) {
        if let Some(line) = self.line.lock().await.take() {
            // It is gone either way.
            let _ = line.close().await;
        }
    }
}

/// A connection with the lock of a process.
async fn open(options: &PgConnectOptions, process: Uuid) -> Result<PgConnection, sqlx::Error> {
    let options = options.clone().options([("lock_timeout", "1s"), ("statement_timeout", "2s")]);
    let mut line = PgConnection::connect_with(&options).await?;
    sqlx::query("select pg_advisory_lock(engine.presence($1))").bind(process).execute(&mut line).await?;
    Ok(line)
}

async fn insert(pool: &sqlx::PgPool, process: Uuid, identity: &str) -> Result<Times, sqlx::Error> {
    let sql = "insert into engine.processes (process_id, identity) values ($1, $2)
               returning engine.now(), clock_timestamp()";
    sqlx::query_as(sql).bind(process).bind(identity).fetch_one(pool).await
}

/// Renews until the engine stops.
pub(crate) async fn keep(engine: Engine) {
    loop {
        let lease = &engine.inner.lease;
        if lease.abandoned.load(Ordering::Acquire) {
            return;
        }
        let next = match tokio::time::timeout(PATIENCE, renew(&engine)).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::warn!(%error, "lease not renewed");
                RENEW
            }
            Err(_) => {
                tracing::warn!("lease not renewed: the database does not answer");
                Duration::ZERO
            }
        };
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = lease.renew_now.notified() => {}
        }
    }
}

/// Locks are taken for a statement's time only to see whether they are free. After a start of the server they mean nothing until
/// everybody has had time to come back.
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

/// The time until the next renewal.
async fn renew(engine: &Engine) -> Result<Duration, sqlx::Error> {
    let lease = &engine.inner.lease;
    let mut line = lease.line.lock().await;
    let mut asked = Instant::now();
    // Taken out until it has answered: one that has not is not used again.
    let (connection, renewal) = match line.take() {
        Some(connection) => match ask(connection, lease.process()).await {
            Ok(answer) => answer,
            // Cut off, and with it the lock is gone: another one at once, or the others take this process for dead.
            Err(error) => {
                tracing::warn!(%error, "the connection that renews the lease has ended");
                asked = Instant::now();
                ask(open(&lease.options, lease.process()).await?, lease.process()).await?
            }
        },
        None => ask(open(&lease.options, lease.process()).await?, lease.process()).await?,
    };
    engine.inner.clock.set(renewal.now, renewal.wall);
    if renewal.held == 0 {
        drop(connection);
        retake(engine).await?;
        *line = Some(open(&lease.options, lease.process()).await?);
    } else {
        *guard(&lease.renewed) = asked;
        *line = Some(connection);
    }
    *lease.live.write().unwrap_or_else(PoisonError::into_inner) = renewal.live.into_iter().collect();
    for dead in renewal.dead {
        spawn_free(engine, dead);
    }
    Ok(if renewal.suspect { SUSPECT } else { RENEW })
}

async fn ask(mut line: PgConnection, process: Uuid) -> Result<(PgConnection, Renewal), sqlx::Error> {
    let renewal = sqlx::query_as(RENEWAL).bind(process).fetch_one(&mut line).await?;
    Ok((line, renewal))
}

/// Not in the renewing loop: freeing many runs must not delay the next renewal.
fn spawn_free(engine: &Engine, dead: Uuid) {
    if !guard(&engine.inner.lease.freeing).insert(dead) {
        return;
    }
    let task_engine = engine.clone();
    engine.inner.runtime.spawn(async move {
        tracing::info!(process = %dead, "freeing the work of a dead process");
        if let Err(status) = free(&task_engine, dead).await {
            tracing::warn!(%status, process = %dead, "work of a dead process not freed yet");
        }
        guard(&task_engine.inner.lease.freeing).remove(&dead);
        // Its timers are ours now.
        task_engine.inner.due.look();
    });
}

/// Frees work of processes that have no row any more (released, or claimed by one that was paused), and tries effects again
/// that this process owes but lost sight of (a commit whose answer never came).
pub(crate) async fn sweep(engine: &Engine) -> Result<(), Status> {
    let lost: Vec<Uuid> = sqlx::query_scalar(
        "select process from engine.activities a where state = 1
             and not exists (select 1 from engine.processes p where p.process_id = a.process)
         union select process from engine.effects e
             where not exists (select 1 from engine.processes p where p.process_id = e.process)
         union select wft_process from engine.runs r where wft_due_at is not null and wft_state = 2
             and not exists (select 1 from engine.processes p where p.process_id = r.wft_process)",
    )
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    for process in lost {
        spawn_free(engine, process);
    }
    let owed: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "select effect_id, data from engine.effects
         where process = $1 and owed_since < clock_timestamp() - interval '5 s' limit 256",
    )
    .bind(engine.inner.lease.process())
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    for (id, data) in owed {
        engine.spawn_effect(crate::effects::Effect::stored(id, &data)?);
    }
    Ok(())
}

/// The row is gone: others have freed our work. Start over under a new id.
async fn retake(engine: &Engine) -> Result<(), sqlx::Error> {
    let lease = &engine.inner.lease;
    tracing::warn!(process = %lease.process(), "lease lost, taking a new one");
    metrics::counter!("engine_lease_lost_total").increment(1);
    let asked = Instant::now();
    let process = Uuid::new_v4();
    insert(&engine.inner.session, process, &engine.inner.options.identity).await?;
    *lease.process.write().unwrap_or_else(PoisonError::into_inner) = process;
    *guard(&lease.renewed) = asked;
    engine.hint_everything();
    Ok(())
}

/// Frees everything a process holds and removes its row. May run in several processes at once.
pub(crate) async fn free(engine: &Engine, process: Uuid) -> Result<(), Status> {
    free_workflow_tasks(engine, process).await?;
    free_activities(engine, process).await?;
    take_over_effects(engine, process).await?;
    sqlx::query("delete from engine.processes where process_id = $1")
        .bind(process)
        .execute(&engine.inner.store.pool)
        .await
        .map_err(db)?;
    Ok(())
}

fn ignore_gone<T>(result: Result<T, Unchanged>) -> Result<(), Status> {
    match result {
        Ok(_) | Err(Unchanged::NotOpen | Unchanged::Duplicate) => Ok(()),
        Err(Unchanged::Status(status)) => Err(status),
    }
}

async fn free_workflow_tasks(engine: &Engine, process: Uuid) -> Result<(), Status> {
    let runs: Vec<Uuid> = sqlx::query_scalar(
        "select run_id from engine.runs where wft_due_at is not null
         and ((wft_state = 2 and wft_process = $1) or (wft_state = 1 and sticky_process = $1))",
    )
    .bind(process)
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    let results = stream::iter(runs).map(|run| async move {
        let target = Target::Run(run);
        let change = engine.change(&target, Needs::default(), |t, _| {
            if t.run.wft_state == TaskState::Started && t.run.wft_process == Some(process) {
                t.time_out_task()?;
            } else if t.run.wft_state == TaskState::Scheduled && t.run.sticky_process == Some(process) {
                t.reroute_task();
            } else {
                return Ok(Decision::Keep(()));
            }
            Ok(Decision::Write(()))
        });
        ignore_gone(change.await)
    });
    results.buffer_unordered(PARALLEL).collect::<Vec<_>>().await.into_iter().collect()
}

async fn free_activities(engine: &Engine, process: Uuid) -> Result<(), Status> {
    let held: Vec<Activity> = sqlx::query_as("select * from engine.activities where state = 1 and process = $1")
        .bind(process)
        .fetch_all(&engine.inner.store.pool)
        .await
        .map_err(db)?;
    let results = stream::iter(held).map(|activity| async move {
        let needs = Needs { activity: Some(activity.scheduled_event_id), ..Needs::default() };
        let target = Target::Run(activity.run_id);
        let change = engine.change(&target, needs, |t, pending| {
            let mine = pending.activities.iter().find(|a| {
                a.scheduled_event_id == activity.scheduled_event_id && a.is_started() && a.process == Some(process)
            });
            let Some(current) = mine else { return Ok(Decision::Keep(())) };
            t.time_out_activity(current, TimeoutType::Heartbeat)?;
            Ok(Decision::Write(()))
        });
        ignore_gone(change.await)
    });
    results.buffer_unordered(PARALLEL).collect::<Vec<_>>().await.into_iter().collect()
}

async fn take_over_effects(engine: &Engine, process: Uuid) -> Result<(), Status> {
    let rows: Vec<(Uuid, Vec<u8>)> =
        sqlx::query_as("update engine.effects set process = $2 where process = $1 returning effect_id, data")
            .bind(process)
            .bind(engine.inner.lease.process())
            .fetch_all(&engine.inner.store.pool)
            .await
            .map_err(db)?;
    for (id, data) in rows {
        engine.spawn_effect(crate::effects::Effect::stored(id, &data)?);
    }
    Ok(())
}

/// Gives everything up so that others need not wait for the lease to run out.
pub(crate) async fn release(engine: &Engine) -> Result<(), Status> {
    let process = engine.inner.lease.process();
    free_workflow_tasks(engine, process).await?;
    free_activities(engine, process).await?;
    sqlx::query("delete from engine.processes where process_id = $1")
        .bind(process)
        .execute(&engine.inner.store.pool)
        .await
        .map_err(db)?;
    engine.hint(Hint::Processes);
    Ok(())
}

/// A wait that differs a little from process to process.
pub(crate) fn backoff(attempt: u32) -> Duration {
    jittered(Duration::from_millis(50).saturating_mul(1 << attempt.min(7)))
}
