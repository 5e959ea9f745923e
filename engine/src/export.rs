//! Histories read straight from the tables: for checks and exports that must not start an engine, take a lease or write anything.
//!
//! Reads only what every release of the schema has, so that a newer program can read a database that it has not migrated.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use temporalio_common::protos::temporal::api::history::v1::History;
use uuid::Uuid;

use crate::{error::EngineError, proto};

/// Status of an open run, as in Temporal's `WorkflowExecutionStatus`.
const RUNNING: i16 = 1;
/// Runs per page.
const PAGE: i64 = 500;

/// A listed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Workflow id.
    pub workflow_id: String,
    /// Run.
    pub run_id: Uuid,
    /// Workflow type.
    pub workflow_type: String,
    /// Task queue of its workflow tasks.
    pub task_queue: String,
    /// Temporal's `WorkflowExecutionStatus`.
    pub status: i16,
    /// When it closed; none while open.
    pub closed_at: Option<DateTime<Utc>>,
}

type Row = (String, Uuid, String, String, i16, Option<DateTime<Utc>>, DateTime<Utc>);

fn stored_run((workflow_id, run_id, workflow_type, task_queue, status, closed_at, _): Row) -> StoredRun {
    StoredRun { workflow_id, run_id, workflow_type, task_queue, status, closed_at }
}

/// Where a listing continues: after the last run of the previous page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    at: DateTime<Utc>,
    run_id: Uuid,
}

/// Reads histories through a pool, which may be read-only. Never locks, never writes.
#[derive(Debug, Clone)]
pub struct HistoryReader {
    pool: PgPool,
}

impl HistoryReader {
    /// Reads through this pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// A page of the open runs, latest start first. If the second part is `None`, that was the last page.
    ///
    /// # Errors
    /// When the database cannot be reached or has no engine's tables.
    pub async fn open(&self, after: Option<After>) -> Result<(Vec<StoredRun>, Option<After>), EngineError> {
        let rows: Vec<Row> = sqlx::query_as(
            "select workflow_id, run_id, workflow_type, task_queue, status, close_time, start_time
             from engine.executions
             where status = $1 and ($2::timestamptz is null or (start_time, run_id) < ($2, $3))
             order by start_time desc, run_id desc limit $4",
        )
        .bind(RUNNING)
        .bind(after.map(|after| after.at))
        .bind(after.map_or(Uuid::nil(), |after| after.run_id))
        .bind(PAGE)
        .fetch_all(&self.pool)
        .await?;
        let full = i64::try_from(rows.len()).is_ok_and(|n| n == PAGE);
        let next = rows.last().filter(|_| full).map(|row| After { at: row.6, run_id: row.1 });
        Ok((rows.into_iter().map(stored_run).collect(), next))
    }

    /// The closed runs, latest close first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached or has no engine's tables.
    pub async fn closed(&self, limit: u32) -> Result<Vec<StoredRun>, EngineError> {
        let rows: Vec<Row> = sqlx::query_as(
            "select workflow_id, run_id, workflow_type, task_queue, status, close_time, start_time
             from engine.executions where close_time is not null order by close_time desc, run_id desc limit $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(stored_run).collect())
    }

    /// What is stored of a run's history: everything up to its last change, in one snapshot. Empty if there is no such run.
    ///
    /// # Errors
    /// When the database cannot be reached, or an append cannot be decoded.
    pub async fn history(&self, run_id: Uuid) -> Result<History, EngineError> {
        let appends: Vec<Vec<u8>> =
            sqlx::query_scalar("select data from engine.history where run_id = $1 order by first_event_id")
                .bind(run_id)
                .fetch_all(&self.pool)
                .await?;
        let events = proto::events(&appends).map_err(|status| EngineError::Corrupt(format!("{run_id}: {status}")))?;
        Ok(History { events })
    }
}
