//! What the export of traces reads: one server at a time, fenced by a lease with an epoch; the feed of operations behind a cursor.
//!
//! A cursor moves when what is before it has been exported: what a server that died had exported may be exported again, nothing is left out.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow, Row, postgres::PgRow};

use crate::{database::Database, error::StoreError};

/// The right to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceLease {
    /// Grows with every change of holder.
    pub epoch: i64,
}

/// Where an operation comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Operation id.
    pub operation_id: String,
    /// W3C trace context of the request.
    pub trace_parent: Option<String>,
    /// Operation or workflow that caused it.
    pub causation_id: Option<String>,
    /// Follows a request through everything it causes; of what a reader of a runner's log reports `{session}/{run}`.
    pub correlation_id: String,
    /// Message whose turn's end it is.
    pub message_id: Option<String>,
    /// Entity it is about.
    pub entity_id: String,
}

/// An operation of the feed, without what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedOperation {
    /// Where it comes from.
    pub origin: Origin,
    /// Entity kind.
    pub entity_kind: String,
    /// Project.
    pub project_id: String,
    /// Version of the entity after it.
    pub version: i64,
    /// Name of the command.
    pub command: String,
    /// Who requested it.
    pub principal: String,
    /// Time of the decision.
    pub occurred_at: DateTime<Utc>,
    /// Place in the feed.
    pub place: (String, i64),
}

/// What is after the cursor, in a form that the index of the feed serves.
pub(crate) const AFTER_CURSOR: &str = "t.xid < pg_snapshot_xmin(pg_current_snapshot()) and (t.xid, t.position) >
    ((select c.xid from ambient.trace_export c), (select c.position from ambient.trace_export c))";
/// Of the input only a turn's end is of interest, since it names the message.
const COLUMNS: &str =
    "id, entity_kind, entity_id, project_id, version, command, principal, correlation_id, causation_id, trace_parent,
    occurred_at, xid::text as xid, position, case when command = 'fact_turn_ended' then input end as input";

impl Database {
    /// Takes or extends the lease; none while another server has it. Who takes it first begins with what happens from then on.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn trace_lease(&self, holder: &str, ttl: Duration) -> Result<Option<TraceLease>, StoreError> {
        let sql = "insert into ambient.trace_export as l (holder, epoch, expires_at, xid, position)
                   values ($1, 1, clock_timestamp() + $2 * interval '1 second', pg_snapshot_xmin(pg_current_snapshot()), 0)
                   on conflict (only_row) do update
                       set holder = excluded.holder, expires_at = excluded.expires_at,
                           epoch = l.epoch + case when l.holder = excluded.holder then 0 else 1 end
                       where l.expires_at < clock_timestamp() or l.holder = excluded.holder
                   returning epoch";
        let epoch: Option<i64> =
            sqlx::query_scalar(sql).bind(holder).bind(ttl.as_secs_f64()).fetch_optional(self.pool()).await?;
        Ok(epoch.map(|epoch| TraceLease { epoch }))
    }

    /// Lets go of the lease, so that nobody need wait for it to expire.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn release_trace_lease(&self, lease: TraceLease) -> Result<(), StoreError> {
        let sql =
            "update ambient.trace_export set expires_at = clock_timestamp() - interval '1 second' where epoch = $1";
        sqlx::query(sql).bind(lease.epoch).execute(self.pool()).await?;
        Ok(())
    }

    /// The next operations to export, in the order of the feed; at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn operations_to_trace(&self, limit: i64) -> Result<Vec<TracedOperation>, StoreError> {
        let sql = format!(
            "select {COLUMNS} from ambient.operations t where {AFTER_CURSOR} order by t.xid, t.position limit $1"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(limit).fetch_all(self.pool()).await?;
        rows.iter().map(operation).collect()
    }

    /// Operations up to this place have been exported. False if another server has the lease: stop.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn operations_traced(&self, lease: TraceLease, place: &(String, i64)) -> Result<bool, StoreError> {
        let sql = "update ambient.trace_export set xid = $2::xid8, position = $3 where epoch = $1";
        let query = sqlx::query(sql).bind(lease.epoch).bind(&place.0).bind(place.1);
        Ok(query.execute(self.pool()).await?.rows_affected() == 1)
    }

    /// Gives up operations that happened before `oldest`, at most `limit`; returns how many.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn drop_operations_to_trace(
        &self,
        lease: TraceLease,
        oldest: DateTime<Utc>,
        limit: i64,
    ) -> Result<i64, StoreError> {
        // The first that is not old ends it, so that nothing behind it is passed over.
        let sql = format!(
            "with ahead as (
                 select t.xid, t.position, bool_and(t.occurred_at < $2) over (order by t.xid, t.position) as is_old
                 from (select t.xid, t.position, t.occurred_at from ambient.operations t
                       where {AFTER_CURSOR} order by t.xid, t.position limit $3) t),
             old as (select xid, position from ahead where is_old),
             last as (select xid, position from old order by xid desc, position desc limit 1)
             update ambient.trace_export c
             set xid = last.xid, position = last.position, dropped = dropped + (select count(*) from old)
             from last where c.epoch = $1 returning (select count(*) from old)"
        );
        let dropped: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(lease.epoch)
            .bind(oldest)
            .bind(limit)
            .fetch_optional(self.pool())
            .await?;
        Ok(dropped.unwrap_or(0))
    }

    /// Where an operation comes from.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn operation_origin(&self, id: &str) -> Result<Option<Origin>, StoreError> {
        let sql = format!("select {COLUMNS} from ambient.operations where id = $1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(self.pool()).await?;
        Ok(row.as_ref().map(operation).transpose()?.map(|operation| operation.origin))
    }

    /// The operation that started an execution, if that was noted.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn execution_origin(&self, workflow_id: &str) -> Result<Option<String>, StoreError> {
        let sql = "select operation_id from ambient.trace_executions where workflow_id = $1";
        Ok(sqlx::query_scalar(sql).bind(workflow_id).fetch_optional(self.pool()).await?)
    }

    /// The operation that brought a message.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn message_origin(&self, session_id: &str, message_id: &str) -> Result<Option<String>, StoreError> {
        let sql = "select operation_id from ambient.session_events where session_id = $1 and message_id = $2";
        let found: Option<Option<String>> =
            sqlx::query_scalar(sql).bind(session_id).bind(message_id).fetch_optional(self.pool()).await?;
        Ok(found.flatten())
    }

    /// The last turn that worked on a message: run and number.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn turn_of_message(&self, session_id: &str, message_id: &str) -> Result<Option<(i64, i64)>, StoreError> {
        let sql = "select run, number from ambient.session_turns where session_id = $1 and message_id = $2
                   order by run desc, number desc limit 1";
        Ok(sqlx::query_as(sql).bind(session_id).bind(message_id).fetch_optional(self.pool()).await?)
    }

    /// What a turn's spans are made of: events of these types between two places of the log, after `after`, in order; at most `limit`.
    /// Without `contents` they lack what was said, read and written.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn events_to_trace(
        &self,
        session_id: &str,
        (after, through): (i64, i64),
        types: &[&str],
        contents: bool,
        limit: i64,
    ) -> Result<Vec<TracedEvent>, StoreError> {
        let sql = "select seq, at, case when $5 then data
                              else data - '{content,input,output,raw,text,locations,paths,command}'::text[] end as data
                   from ambient.session_events
                   where session_id = $1 and seq > $2 and seq <= $3 and type = any($4) order by seq limit $6";
        let query = sqlx::query_as(sql).bind(session_id).bind(after).bind(through);
        Ok(query.bind(types).bind(contents).bind(limit).fetch_all(self.pool()).await?)
    }
}

/// An event of a live log.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct TracedEvent {
    /// Its place.
    pub seq: i64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Payload.
    pub data: Value,
}

fn operation(row: &PgRow) -> Result<TracedOperation, StoreError> {
    let input: Option<Vec<u8>> = row.try_get("input")?;
    // One that cannot be read names no message, and is an operation all the same.
    let input: Value = input.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let message_id = input.pointer("/fact/last_message_id").and_then(Value::as_str).map(str::to_owned);
    let origin = Origin {
        operation_id: row.try_get("id")?,
        trace_parent: row.try_get("trace_parent")?,
        causation_id: row.try_get("causation_id")?,
        correlation_id: row.try_get("correlation_id")?,
        entity_id: row.try_get("entity_id")?,
        message_id,
    };
    Ok(TracedOperation {
        origin,
        entity_kind: row.try_get("entity_kind")?,
        project_id: row.try_get("project_id")?,
        version: row.try_get("version")?,
        command: row.try_get("command")?,
        principal: row.try_get("principal")?,
        occurred_at: row.try_get("occurred_at")?,
        place: (row.try_get("xid")?, row.try_get("position")?),
    })
}
