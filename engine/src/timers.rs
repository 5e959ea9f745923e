//! What is due: timers, timeouts, retries. The loop sleeps until the next due time; it does not poll.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use temporalio_common::protos::temporal::api::enums::v1::TimeoutType;
use tonic::Status;
use uuid::Uuid;

use crate::{
    change::{Decision, Unchanged},
    clock::{backoff, jittered},
    engine::Engine,
    history::commands::{Activities, Needs, Pending},
    matching::Kind,
    model::{Activity, Target, TaskState, Transition},
    proto::{self, db},
};

/// Rows of each kind handled in one round.
const BATCH: i64 = 256;
/// Runs changed concurrently.
const PARALLEL: usize = 8;
/// Longest sleep: covers due times set by processes that died before the hint arrived.
const SAFETY: Duration = Duration::from_secs(5);

/// Handles what is due until the engine stops.
pub(crate) async fn run(engine: Engine) {
    let mut failures = 0;
    loop {
        // Changes made from here on are compared with this plan: none is missed between reading and sleeping.
        engine.inner.due.plan(SAFETY);
        let wait = match round(&engine).await {
            Ok(wait) => {
                failures = 0;
                wait
            }
            Err(status) => {
                tracing::warn!(%status, "due work not handled");
                failures += 1;
                backoff(failures)
            }
        };
        let due = &engine.inner.due;
        let until = due.planned.lock().map_or_else(|p| *p.into_inner(), |p| *p).min(Instant::now() + wait);
        due.plan(until.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = due.changed.notified() => {}
        }
    }
}

/// One pass over everything; returns the time until the next.
async fn round(engine: &Engine) -> Result<Duration, Status> {
    // Each kind gets its turn even if another fails.
    let results =
        [fire_timers(engine).await, workflow_tasks(engine).await, activities(engine).await, run_timeouts(engine).await];
    let mut more = false;
    for result in results {
        more |= result?;
    }
    if more { Ok(Duration::ZERO) } else { next(engine).await }
}

/// Time until the earliest due time, at most the safety interval.
async fn next(engine: &Engine) -> Result<Duration, Status> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from least(
            (select min(fire_at) from engine.timers) - engine.now(),
            (select min(due_at) from engine.activities where due_at is not null) - engine.now(),
            (select min(timeout_at) from engine.runs where timeout_at is not null) - engine.now(),
            (select min(wft_due_at) from engine.runs where wft_due_at is not null) - clock_timestamp()))::float8",
    )
    .fetch_one(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    let safety = jittered(SAFETY);
    Ok(seconds.map_or(safety, |s| Duration::try_from_secs_f64(s.max(0.001)).unwrap_or(safety).min(safety)))
}

/// Changes each of the runs; a run that is gone or has moved on no longer concerns us.
async fn each<I: Send>(
    engine: &Engine,
    items: impl IntoIterator<Item = (Uuid, I)>,
    needs: Needs,
    decide: impl Fn(&mut Transition, &Pending, &I) -> Result<bool, Status> + Sync,
) -> Result<(), Status> {
    let decide = &decide;
    let results = stream::iter(items).map(|(run, item)| async move {
        let changed = engine
            .change(&Target::Run(run), needs, |t, pending| {
                Ok(if decide(t, pending, &item)? { Decision::Write(()) } else { Decision::Keep(()) })
            })
            .await;
        match changed {
            Ok(_) | Err(Unchanged::NotOpen | Unchanged::Duplicate) => Ok(()),
            Err(Unchanged::Status(status)) => Err(status),
        }
    });
    results.buffer_unordered(PARALLEL).collect::<Vec<_>>().await.into_iter().collect()
}

fn full<T>(rows: &[T]) -> bool {
    i64::try_from(rows.len()).is_ok_and(|n| n >= BATCH)
}

async fn fire_timers(engine: &Engine) -> Result<bool, Status> {
    let due: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "select run_id, timer_id, started_event_id from engine.timers where fire_at <= (select clock_timestamp() + shift from engine.clock)
         order by fire_at limit $1",
    )
    .bind(BATCH)
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    let more = full(&due);
    let mut runs: HashMap<Uuid, Vec<(String, i64)>> = HashMap::new();
    for (run, timer, started) in due {
        runs.entry(run).or_default().push((timer, started));
    }
    let needs = Needs { timers: true, ..Needs::default() };
    each(engine, runs, needs, |t, pending, due: &Vec<(String, i64)>| {
        for (timer, started) in due.iter().filter(|d| pending.timers.contains(d)) {
            t.fire_timer(timer, *started);
        }
        Ok(!t.ended_timers.is_empty())
    })
    .await?;
    Ok(more)
}

async fn workflow_tasks(engine: &Engine) -> Result<bool, Status> {
    let due: Vec<Uuid> = sqlx::query_scalar(
        "select run_id from engine.runs where wft_due_at <= (select clock_timestamp()) order by wft_due_at limit $1",
    )
    .bind(BATCH)
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    let more = full(&due);
    each(engine, due.into_iter().map(|run| (run, ())), Needs::default(), |t, _, ()| {
        if t.run.wft_due_at.is_none_or(|at| at > t.wall) {
            return Ok(false);
        }
        match t.run.wft_state {
            TaskState::Started => t.time_out_task()?,
            TaskState::Scheduled if t.run.wft_queue != t.run.task_queue => t.time_out_sticky(),
            // The back-off is over: writing wakes the queue.
            TaskState::Scheduled | TaskState::None => t.run.wft_due_at = None,
        }
        Ok(true)
    })
    .await?;
    Ok(more)
}

async fn run_timeouts(engine: &Engine) -> Result<bool, Status> {
    let due: Vec<Uuid> = sqlx::query_scalar(
        "select run_id from engine.runs where timeout_at <= (select clock_timestamp() + shift from engine.clock) order by timeout_at limit $1",
    )
    .bind(BATCH)
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    let more = full(&due);
    let needs = Needs { children: true, ..Needs::default() };
    each(engine, due.into_iter().map(|run| (run, ())), needs, |t, pending, ()| {
        t.time_out_run(&pending.children, &engine.inner.options.namespace)?;
        Ok(true)
    })
    .await?;
    Ok(more)
}

/// Which timeout of an activity has passed.
fn passed(activity: &Activity, now: DateTime<Utc>) -> Option<TimeoutType> {
    let over = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= now);
    if over(activity.expires_at) {
        return Some(TimeoutType::ScheduleToClose);
    }
    if !activity.is_started() {
        return over(activity.start_by).then_some(TimeoutType::ScheduleToStart);
    }
    let started = activity.started_at?;
    if over(proto::deadline(started, activity.start_to_close_ms)) {
        return Some(TimeoutType::StartToClose);
    }
    let alive = activity.heartbeat_at.unwrap_or(started).max(started);
    over(proto::deadline(alive, activity.heartbeat_ms)).then_some(TimeoutType::Heartbeat)
}

async fn activities(engine: &Engine) -> Result<bool, Status> {
    let due: Vec<Activity> = sqlx::query_as(
        "select * from engine.activities where due_at <= (select clock_timestamp() + shift from engine.clock) order by due_at limit $1",
    )
    .bind(BATCH)
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    let more = full(&due);
    let now: DateTime<Utc> = if due.is_empty() {
        return Ok(false);
    } else {
        sqlx::query_scalar("select engine.now()").fetch_one(&engine.inner.store.pool).await.map_err(db)?
    };
    let (timed_out, waiting): (Vec<_>, Vec<_>) = due.into_iter().partition(|a| passed(a, now).is_some());
    postpone(engine, &waiting).await?;
    let needs = Needs { activities: Activities::All, ..Needs::default() };
    let items = timed_out.into_iter().map(|a| (a.run_id, a.scheduled_event_id));
    each(engine, items, needs, |t, pending, scheduled| {
        let current = pending.activities.iter().find(|a| a.scheduled_event_id == *scheduled);
        let Some((activity, kind)) = current.and_then(|a| Some((a, passed(a, t.now)?))) else { return Ok(false) };
        t.time_out_activity(activity, kind)?;
        Ok(true)
    })
    .await?;
    Ok(more)
}

/// Nothing has timed out: retries have become ready, or heartbeats have moved deadlines. Those that someone else is working on are
/// checked again.
async fn postpone(engine: &Engine, activities: &[Activity]) -> Result<(), Status> {
    if activities.is_empty() {
        return Ok(());
    }
    let due_at = |a: &Activity| match a.is_started() {
        true => a.started_due_at(),
        false => proto::earlier(a.start_by, a.expires_at),
    };
    let moved: Vec<(String, i16)> = sqlx::query_as(
        "with picked as (
             select a.run_id, a.scheduled_event_id, k.due_at from engine.activities a
             join unnest($1::uuid[], $2::bigint[], $3::int[], $4::smallint[], $5::timestamptz[])
                  as k (run_id, id, attempt, state, due_at)
               on a.run_id = k.run_id and a.scheduled_event_id = k.id and a.attempt = k.attempt and a.state = k.state
             where a.due_at is not null for update of a skip locked)
         update engine.activities a set due_at = p.due_at from picked p
         where a.run_id = p.run_id and a.scheduled_event_id = p.scheduled_event_id
         returning a.task_queue, a.state",
    )
    .bind(activities.iter().map(|a| a.run_id).collect::<Vec<_>>())
    .bind(activities.iter().map(|a| a.scheduled_event_id).collect::<Vec<_>>())
    .bind(activities.iter().map(|a| a.attempt).collect::<Vec<_>>())
    .bind(activities.iter().map(|a| a.state).collect::<Vec<_>>())
    .bind(activities.iter().map(due_at).collect::<Vec<_>>())
    .fetch_all(&engine.inner.store.pool)
    .await
    .map_err(db)?;
    for (queue, _) in moved.iter().filter(|(_, state)| *state == 0) {
        engine.wake_queue(Kind::Activity, queue);
    }
    Ok(())
}
