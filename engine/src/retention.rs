//! Closed histories are kept for a time and then removed, a bounded number at once, by one process at a time.
//!
//! Open runs are never touched, nor runs with effects on another run still pending. With the history goes the workflow id's
//! record, if this was its latest run: a start under a policy that looks at earlier runs finds none, as on Temporal's servers.

use std::time::Duration;

use crate::{clock::jittered, engine::Engine, store};

/// How often to look for histories to remove.
const LOOK: Duration = Duration::from_secs(60);
/// Pause between two batches, so that other work gets its turn.
const PAUSE: Duration = Duration::from_millis(50);
/// Runs removed by one statement.
const BATCH: i64 = 100;
/// Whoever holds it removes ("ambeng\0" and a number).
const LOCK: i64 = 0x616d_6265_6e67_0001;

const REMOVE: &str = "
with old as (
    select e.run_id, e.workflow_id from engine.executions e
    where e.close_time < engine.now() - make_interval(secs => $1) and e.status <> 1
      and not exists (select 1 from engine.runs r where r.run_id = e.run_id)
      and not exists (select 1 from engine.effects f where f.source_run_id = e.run_id)
    order by e.close_time limit $2),
histories as (delete from engine.history h using old where h.run_id = old.run_id),
updates as (delete from engine.updates u using old where u.run_id = old.run_id),
workflows as (delete from engine.workflows w using old
    where w.workflow_id = old.workflow_id and w.run_id = old.run_id and w.status <> 1),
removed as (delete from engine.executions e using old where e.run_id = old.run_id returning 1)
select count(*) from removed";

/// Removes what is older than the engine's retention until the engine stops.
pub(crate) async fn run(engine: Engine) {
    if engine.inner.options.retention.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(jittered(LOOK)).await;
        loop {
            match engine.remove_old().await {
                Ok(removed) if removed >= BATCH => tokio::time::sleep(PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "old histories not removed");
                    break;
                }
            }
        }
    }
}

impl Engine {
    /// Removes one batch of closed histories that are older than the retention. Returns how many; 0 if another process is doing so.
    /// The engine calls it every minute.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_old(&self) -> Result<i64, sqlx::Error> {
        let retention = self.inner.options.retention;
        if retention.is_zero() {
            return Ok(0);
        }
        let mut transaction = store::begin(&self.inner.store.pool).await?;
        let mine: bool =
            sqlx::query_scalar("select pg_try_advisory_xact_lock($1)").bind(LOCK).fetch_one(&mut *transaction).await?;
        if !mine {
            return Ok(0);
        }
        let removed: i64 =
            sqlx::query_scalar(REMOVE).bind(retention.as_secs_f64()).bind(BATCH).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        if removed > 0 {
            metrics::counter!("engine_histories_removed_total").increment(removed.unsigned_abs());
            tracing::debug!(removed, "old histories removed");
        }
        Ok(removed)
    }
}
