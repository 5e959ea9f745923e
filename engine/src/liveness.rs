//! Keeps this process's lease alive, and deals with the work of processes that lost theirs (`lease`).
//!
//! Renewed every second, lost after three on the database's wall clock. Individual tasks are not renewed: when the row goes,
//! that process's workflow tasks are offered again at once, and its activities end with a heartbeat timeout under their
//! retry policy. A process that was only paused finds its row gone, takes a new one, and its old task tokens are stale.
//!
//! The connection that renews holds an advisory lock in the process's name. When a process is killed, its connections end
//! and the lock is released at once: a process without its lock that has missed a renewal is considered dead without waiting
//! for the three seconds. (Not if the database server has just started: then everyone's locks are gone.)

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use temporalio_common::protos::temporal::api::enums::v1::TimeoutType;
use tonic::Status;
use uuid::Uuid;

use crate::{
    change::{Decision, Unchanged},
    engine::Engine,
    hint::Hint,
    history::commands::{Activities, Needs},
    lease::{ask, guard, insert, open},
    model::{Activity, Effect, Target, TaskState},
    proto::db,
};

/// How often a process renews its row.
const RENEW: Duration = Duration::from_secs(1);
/// How soon to check again on a process whose lock is free.
const SUSPECT: Duration = Duration::from_millis(200);
/// Longest time a renewal may take, including opening a connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// Runs released at the same time: about one batch of the writer, so that they share commits.
const PARALLEL: usize = 64;

/// Renews until the engine stops.
pub(crate) async fn keep(engine: Engine) {
    loop {
        let lease = &engine.inner.lease;
        if lease.is_abandoned() {
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

/// The time until the next renewal.
async fn renew(engine: &Engine) -> Result<Duration, sqlx::Error> {
    let lease = &engine.inner.lease;
    let mut line = lease.line.lock().await;
    let mut asked = Instant::now();
    // Taken out until it has answered: a connection that has not answered is not used again.
    let (connection, renewal) = match line.take() {
        Some(connection) => match ask(connection, lease.process()).await {
            Ok(answer) => answer,
            // Disconnected, and the lock went with it: reconnect at once, or the others will consider this process dead.
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
        lease.renewed(asked);
        *line = Some(connection);
    }
    lease.met(renewal.live);
    for dead in renewal.dead {
        spawn_free(engine, dead);
    }
    Ok(if renewal.suspect { SUSPECT } else { RENEW })
}

/// Not in the renewing loop: releasing many runs must not delay the next renewal.
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

/// Releases the work of processes that no longer have a row (released, or claimed by one that was paused), and retries effects
/// that this process owes but lost track of (a commit whose response never arrived).
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
        engine.spawn_effect(Effect::stored(id, &data)?);
    }
    Ok(())
}

/// The row is gone: others have released our work. Start over under a new id.
async fn retake(engine: &Engine) -> Result<(), sqlx::Error> {
    let lease = &engine.inner.lease;
    tracing::warn!(process = %lease.process(), "lease lost, taking a new one");
    metrics::counter!("engine_lease_lost_total").increment(1);
    let asked = Instant::now();
    let process = Uuid::new_v4();
    insert(&engine.inner.session, process, &engine.inner.options.identity).await?;
    lease.renamed(process, asked);
    engine.hint_everything();
    Ok(())
}

/// Releases everything a process holds and removes its row. May run in several processes at once.
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
        let needs = Needs { activities: Activities::Stored(activity.scheduled_event_id), ..Needs::default() };
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
        engine.spawn_effect(Effect::stored(id, &data)?);
    }
    Ok(())
}

/// Releases everything so that others need not wait for the lease to expire.
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
