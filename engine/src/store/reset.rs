//! Writing a reset: the end of the open run, if there is one, and the run that replaces it, in one transaction.
//!
//! The new run's row is inserted as its copied history leaves it, then changed like any other run's. Whoever loses the race
//! for the workflow id or for the open run writes nothing.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::commit::write;
use crate::model::Transition;

/// A reset, decided but not yet written.
#[derive(Clone, Debug)]
pub(crate) struct Reset {
    /// The new run. Its events follow the copied ones.
    pub(crate) new: Transition,
    /// The end of the open run.
    pub(crate) ended: Option<Transition>,
    /// Whose history is copied.
    pub(crate) base_run_id: Uuid,
    /// The latest run of the workflow id when the decision was made.
    pub(crate) current_run_id: Uuid,
    pub(crate) request_id: String,
    pub(crate) start_time: DateTime<Utc>,
}

const LATEST: &str = "update engine.workflows set run_id = $1, status = 1, request_id = $2 \
     where workflow_id = $3 and run_id = $4 and status <> 1";

const EXECUTION: &str = "insert into engine.executions (run_id, workflow_id, workflow_type, task_queue, status, start_time, \
     first_run_id, parent_workflow_id, parent_run_id, root_workflow_id, root_run_id) \
     select $1, workflow_id, workflow_type, task_queue, 1, $2, first_run_id, parent_workflow_id, parent_run_id, \
     root_workflow_id, $4 from engine.executions where run_id = $3";

const RUN: &str = "insert into engine.runs (run_id, workflow_id, workflow_type, task_queue, first_run_id, root_workflow_id, \
     root_run_id, last_event_id, history_bytes, timeout_at, execution_expires_at, wft_timeout_ms, wft_queue) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11, $4)";

const HISTORY: &str = "insert into engine.history (run_id, first_event_id, last_event_id, data) \
     select $1, first_event_id, last_event_id, data from engine.history where run_id = $2 and last_event_id <= $3";

/// False: a conflict.
pub(super) async fn write_reset(connection: &mut PgConnection, reset: &Reset) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let written = write_all(&mut transaction, reset).await?;
    if written {
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(written)
}

async fn write_all(connection: &mut PgConnection, reset: &Reset) -> Result<bool, sqlx::Error> {
    if let Some(ended) = &reset.ended
        && write(connection, &[ended], &[]).await?.changed.is_empty()
    {
        return Ok(false);
    }
    let run = &reset.new.run;
    let latest = sqlx::query(LATEST)
        .bind(run.run_id)
        .bind(&reset.request_id)
        .bind(&run.workflow_id)
        .bind(reset.current_run_id)
        .execute(&mut *connection)
        .await?;
    if latest.rows_affected() != 1 {
        return Ok(false);
    }
    sqlx::query(EXECUTION)
        .bind(run.run_id)
        .bind(reset.start_time)
        .bind(reset.base_run_id)
        .bind(run.root_run_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query("update engine.executions set reset_run_id = $1 where run_id = $2")
        .bind(run.run_id)
        .bind(reset.base_run_id)
        .execute(&mut *connection)
        .await?;
    insert_run(connection, reset).await?;
    sqlx::query(HISTORY)
        .bind(run.run_id)
        .bind(reset.base_run_id)
        .bind(reset.new.expected_last_event_id)
        .execute(&mut *connection)
        .await?;
    Ok(!write(connection, &[&reset.new], &[]).await?.changed.is_empty())
}

async fn insert_run(connection: &mut PgConnection, reset: &Reset) -> Result<(), sqlx::Error> {
    let run = &reset.new.run;
    sqlx::query(RUN)
        .bind(run.run_id)
        .bind(&run.workflow_id)
        .bind(&run.workflow_type)
        .bind(&run.task_queue)
        .bind(run.first_run_id)
        .bind(&run.root_workflow_id)
        .bind(run.root_run_id)
        .bind(reset.new.expected_last_event_id)
        .bind(run.timeout_at)
        .bind(run.execution_expires_at)
        .bind(run.wft_timeout_ms)
        .execute(&mut *connection)
        .await?;
    Ok(())
}
