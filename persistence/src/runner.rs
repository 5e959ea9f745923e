//! What comes from runners: read by one server at a time, fenced by a lease with an epoch; a cursor makes it exactly once.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};

use crate::{
    begin::begin,
    canonical::{replace_nul, sha256_hex},
    database::Database,
    error::{StoreError, is_unique_violation},
    ids::to_micros,
    model_usage, run_results,
    turn_results::{self, TurnChanges},
};

/// Type of the event that starts a message of the agent, as earlier runners recorded it.
const MESSAGE_BEGAN: &str = "TEXT_MESSAGE_START";
/// Types of the pieces of the agent's messages; the first with an id starts one.
const PIECES: [&str; 2] = ["agent.text", "agent.content"];

/// The right to read the runner's log of a run.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RunnerLease {
    /// Session.
    pub session_id: String,
    /// Run.
    pub run: i64,
    /// The holder.
    pub holder: String,
    /// Grows with every change of holder.
    pub epoch: i64,
    /// On the database's clock.
    pub expires_at: DateTime<Utc>,
}

/// An event of a runner's log.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerRecord {
    /// Place in the runner's log.
    pub n: i64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// Event type.
    pub event_type: String,
    /// Payload.
    pub data: Value,
}

/// A batch from a runner's log.
#[derive(Debug, Clone)]
pub struct RunnerBatch {
    /// Session.
    pub session_id: String,
    /// Run.
    pub run: i64,
    /// Epoch of the reader's lease.
    pub epoch: i64,
    /// The log.
    pub log_id: String,
    /// Where the reader was: `n` of the last record stored, 0 at the start.
    pub cursor_before: i64,
    /// Records in order, `n` above `cursor_before`.
    pub records: Vec<RunnerRecord>,
    /// What they say about turns, usage and the run.
    pub changes: TurnChanges,
}

/// Why a batch was not stored: the reader stops.
#[derive(Debug, thiserror::Error)]
pub enum RunnerAppendError {
    /// Another reader has the lease.
    #[error("the lease on the runner's log is lost")]
    LeaseLost,
    /// The cursor has moved: someone else has stored from this log.
    #[error("the cursor has moved to {0}")]
    CursorMoved(i64),
    /// The records are not in order after the cursor, or the session is unknown.
    #[error("the batch is malformed: {0}")]
    Malformed(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RunnerAppendError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Frequently changing values of a session.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct SessionRuntime {
    /// Last message or event of the agent.
    pub last_activity_at: DateTime<Utc>,
    /// Last message that the runner has recorded as accepted.
    pub delivered_seq: i64,
    /// Compute host of the current run.
    pub launch_host: Option<String>,
    /// The database's time of this reading, to compare `last_activity_at` with.
    pub now: DateTime<Utc>,
}

impl Database {
    /// Takes the lease if nobody else holds it; a new holder gets a higher epoch. None while someone else holds it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn acquire_runner_lease(
        &self,
        session_id: &str,
        run: i64,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<RunnerLease>, StoreError> {
        let sql = "insert into ambient.runner_leases as l (session_id, run, holder, epoch, expires_at)
                   values ($1, $2, $3, 1, clock_timestamp() + $4 * interval '1 second')
                   on conflict (session_id, run) do update
                       set holder = excluded.holder, epoch = l.epoch + 1, expires_at = excluded.expires_at
                       where l.expires_at < clock_timestamp() or l.holder = excluded.holder
                   returning session_id, run, holder, epoch, expires_at";
        let query = sqlx::query_as(sql).bind(session_id).bind(run).bind(holder).bind(ttl.as_secs_f64());
        Ok(query.fetch_optional(self.pool()).await?)
    }

    /// Extends the lease. False if someone else has it: stop reading.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn renew_runner_lease(&self, lease: &RunnerLease, ttl: Duration) -> Result<bool, StoreError> {
        let sql = "update ambient.runner_leases set expires_at = clock_timestamp() + $4 * interval '1 second'
                   where session_id = $1 and run = $2 and epoch = $3";
        let query = sqlx::query(sql).bind(&lease.session_id).bind(lease.run).bind(lease.epoch).bind(ttl.as_secs_f64());
        Ok(query.execute(self.pool()).await?.rows_affected() == 1)
    }

    /// Releases the lease, so that nobody need wait for it to expire.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn release_runner_lease(&self, lease: &RunnerLease) -> Result<(), StoreError> {
        let sql = "update ambient.runner_leases set expires_at = clock_timestamp() - interval '1 second'
                   where session_id = $1 and run = $2 and epoch = $3";
        sqlx::query(sql).bind(&lease.session_id).bind(lease.run).bind(lease.epoch).execute(self.pool()).await?;
        Ok(())
    }

    /// Where to continue reading a log: `n` of the last record stored, 0 at the start.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn runner_cursor(&self, session_id: &str, log_id: &str) -> Result<i64, StoreError> {
        let sql = "select cursor from ambient.runner_cursors where session_id = $1 and log_id = $2";
        let cursor: Option<i64> =
            sqlx::query_scalar(sql).bind(session_id).bind(log_id).fetch_optional(self.pool()).await?;
        Ok(cursor.unwrap_or(0))
    }

    /// Stores a batch of a runner's log and moves the cursor, in one transaction. Returns the last seq assigned.
    ///
    /// # Errors
    /// [`RunnerAppendError::LeaseLost`] and [`RunnerAppendError::CursorMoved`] mean: stop reading.
    pub async fn append_runner_events(&self, batch: RunnerBatch) -> Result<i64, RunnerAppendError> {
        check_order(&batch)?;
        let append = Box::pin(self.append_runner_transaction(batch));
        match tokio::time::timeout(self.append_timeout, append).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable("storing runner events took too long".to_owned()).into()),
        }
    }

    async fn append_runner_transaction(&self, mut batch: RunnerBatch) -> Result<i64, RunnerAppendError> {
        let mut tx = begin(self.pool(), "begin").await?;
        fence(&mut tx, &batch).await?;
        move_cursor(&mut tx, &batch).await?;
        let TurnChanges { turns, usage, run: of_run } = std::mem::take(&mut batch.changes);
        let (session_id, run, count) = (batch.session_id.clone(), batch.run, batch.records.len());
        let last_seq = insert_records(&mut tx, batch).await?;
        let first_seq = last_seq - i64::try_from(count).unwrap_or(i64::MAX) + 1;
        turn_results::store(&mut tx, (&session_id, run), first_seq, turns, self.traces).await?;
        model_usage::store(&mut tx, (&session_id, run), usage).await?;
        run_results::store(&mut tx, (&session_id, run), first_seq, of_run).await?;
        tx.commit().await?;
        Ok(last_seq)
    }

    /// Records that the runner has recorded messages up to `seq` as accepted. Only moves forward.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn mark_delivered(&self, session_id: &str, seq: i64) -> Result<(), StoreError> {
        let sql = "update ambient.session_runtime set delivered_seq = $2 where session_id = $1 and delivered_seq < $2";
        sqlx::query(sql).bind(session_id).bind(seq).execute(self.pool()).await?;
        Ok(())
    }

    /// Frequently changing values of a session.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn session_runtime(&self, session_id: &str) -> Result<Option<SessionRuntime>, StoreError> {
        let sql = "select last_activity_at, delivered_seq, launch_host, clock_timestamp() as now
                   from ambient.session_runtime where session_id = $1";
        Ok(sqlx::query_as(sql).bind(session_id).fetch_optional(self.pool()).await?)
    }
}

fn check_order(batch: &RunnerBatch) -> Result<(), RunnerAppendError> {
    let mut last = batch.cursor_before;
    for record in &batch.records {
        if record.n <= last {
            return Err(RunnerAppendError::Malformed(format!("record {} after {last}", record.n)));
        }
        last = record.n;
    }
    if batch.records.is_empty() {
        return Err(RunnerAppendError::Malformed("it has no records".to_owned()));
    }
    Ok(())
}

/// The lease must be ours until the commit: the share lock prevents anyone from taking it over meanwhile.
async fn fence(tx: &mut PgConnection, batch: &RunnerBatch) -> Result<(), RunnerAppendError> {
    let sql = "select epoch from ambient.runner_leases where session_id = $1 and run = $2 and epoch = $3 for share";
    let mine: Option<i64> =
        sqlx::query_scalar(sql).bind(&batch.session_id).bind(batch.run).bind(batch.epoch).fetch_optional(tx).await?;
    mine.map(|_| ()).ok_or(RunnerAppendError::LeaseLost)
}

async fn move_cursor(tx: &mut PgConnection, batch: &RunnerBatch) -> Result<(), RunnerAppendError> {
    let after = batch.records.last().map_or(batch.cursor_before, |record| record.n);
    if batch.cursor_before == 0 {
        let first =
            "insert into ambient.runner_cursors (session_id, log_id, run, cursor, epoch) values ($1, $2, $3, 0, $4)
                     on conflict do nothing";
        let query = sqlx::query(first).bind(&batch.session_id).bind(&batch.log_id).bind(batch.run).bind(batch.epoch);
        query.execute(&mut *tx).await?;
    }
    let sql = "update ambient.runner_cursors set cursor = $3, epoch = $4
               where session_id = $1 and log_id = $2 and epoch <= $4 and cursor = $5";
    let moved = sqlx::query(sql)
        .bind(&batch.session_id)
        .bind(&batch.log_id)
        .bind(after)
        .bind(batch.epoch)
        .bind(batch.cursor_before)
        .execute(&mut *tx)
        .await?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let sql = "select cursor from ambient.runner_cursors where session_id = $1 and log_id = $2";
    let stands: Option<i64> =
        sqlx::query_scalar(sql).bind(&batch.session_id).bind(&batch.log_id).fetch_optional(tx).await?;
    Err(RunnerAppendError::CursorMoved(stands.unwrap_or(0)))
}

async fn insert_records(tx: &mut PgConnection, mut batch: RunnerBatch) -> Result<i64, RunnerAppendError> {
    // A runner is not trusted, and one odd string must not block its log forever.
    batch.records.iter_mut().for_each(|record| replace_nul(&mut record.data));
    let count = i64::try_from(batch.records.len()).unwrap_or(i64::MAX);
    let begun = messages_begun(&mut *tx, &batch).await?;
    let messages = batch.records.iter().filter(|record| record.event_type == MESSAGE_BEGAN).count() + begun.len();
    let sql = "update ambient.session_streams set next_seq = next_seq + $2, messages = messages + $3
               where session_id = $1 returning next_seq - 1";
    let query = sqlx::query_scalar(sql).bind(&batch.session_id).bind(count);
    let last: Option<i64> = query.bind(i64::try_from(messages).unwrap_or(0)).fetch_optional(&mut *tx).await?;
    let last = last.ok_or_else(|| RunnerAppendError::Malformed("the session has no live log".to_owned()))?;
    let records = &batch.records;
    let sql =
        "insert into ambient.session_events (session_id, seq, at, type, data, run, log_id, runner_seq, message_id)
               select $1, r.seq, r.at, r.type, r.data, $2, $3, r.n, r.message_id
               from unnest($4::bigint[], $5::timestamptz[], $6::text[], $7::jsonb[], $8::bigint[], $9::text[])
                    as r(seq, at, type, data, n, message_id)";
    let inserted = sqlx::query(sql)
        .bind(&batch.session_id)
        .bind(batch.run)
        .bind(&batch.log_id)
        .bind((last - count + 1..=last).collect::<Vec<_>>())
        .bind(records.iter().map(|r| to_micros(r.at)).collect::<Vec<_>>())
        .bind(records.iter().map(|r| r.event_type.replace('\0', "\u{fffd}")).collect::<Vec<_>>())
        .bind(records.iter().map(|r| &r.data).collect::<Vec<_>>())
        .bind(records.iter().map(|r| r.n).collect::<Vec<_>>())
        .bind(records.iter().map(|r| begun.get(&r.n)).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await;
    match inserted {
        Err(error) if is_unique_violation(&error) => return Err(RunnerAppendError::CursorMoved(batch.cursor_before)),
        other => other?,
    };
    sqlx::query("update ambient.session_runtime set last_activity_at = now() where session_id = $1")
        .bind(&batch.session_id)
        .execute(tx)
        .await?;
    Ok(last)
}

/// Keys of the agent's messages that start in a batch, by the record that starts each. Nobody else writes keys like these.
async fn messages_begun(tx: &mut PgConnection, batch: &RunnerBatch) -> Result<BTreeMap<i64, String>, sqlx::Error> {
    let mut first = BTreeMap::new();
    for record in batch.records.iter().filter(|record| PIECES.contains(&record.event_type.as_str())) {
        first.entry(message_key(&record.data["message_id"])).or_insert(record.n);
    }
    if first.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = "select message_id from ambient.session_events where session_id = $1 and message_id = any($2)";
    let keys: Vec<&String> = first.keys().collect();
    let known: Vec<String> = sqlx::query_scalar(sql).bind(&batch.session_id).bind(keys).fetch_all(tx).await?;
    let is_new = |key: &String| !known.contains(key);
    Ok(first.into_iter().filter(|(key, _)| is_new(key)).map(|(key, n)| (n, key)).collect())
}

/// What stands for a message of the agent among the session's: of a bounded length whatever its id, and never that of a person's message.
fn message_key(id: &Value) -> String {
    format!("agent:{}", sha256_hex(id.as_str().unwrap_or_default().as_bytes()))
}
