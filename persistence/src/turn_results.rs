//! What turns came to, one row each, written with the events that say so.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};

use crate::{
    canonical::replace_nul, database::Database, error::StoreError, model_usage::UsageChange, run_results::RunChange,
};

/// Most entries about repositories that a turn holds.
const MAX_ENTRIES: i64 = 500;

/// What a batch of a runner's log says about turns, usage and the run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TurnChanges {
    /// In order.
    pub turns: Vec<TurnChange>,
    /// In order.
    pub usage: Vec<UsageChange>,
    /// About the run.
    pub run: RunChange,
}

/// What it says about one turn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TurnChange {
    /// Within the run, from 1; none: the run's last, which an earlier batch began.
    pub number: Option<i64>,
    /// That it began.
    pub started: Option<TurnStarted>,
    /// What it came to.
    pub result: Option<TurnEnd>,
    /// That it is over: when, and the place in the batch of the record that says so.
    pub ended: Option<(DateTime<Utc>, usize)>,
    /// Tool calls that began.
    pub tool_calls: i64,
    /// Permission requests that began.
    pub permission_requests: i64,
    /// About repositories: `{repo, snapshot | failed | pushed | position}`.
    pub repos: Vec<Value>,
}

/// A turn's beginning.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnStarted {
    /// Its message.
    pub message_id: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Place in the batch of the record that says so, from 0.
    pub index: usize,
}

/// A turn's result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TurnEnd {
    /// `finished`, `error` or `interrupted`.
    pub outcome: String,
    /// Why it did not finish.
    pub code: Option<String>,
    /// The same in words; empty if nothing went wrong.
    pub message: String,
    /// Exit code of what failed.
    pub exit_code: Option<i32>,
    /// Why the agent stopped, as it says.
    pub stop_reason: Option<String>,
}

/// A turn as it is stored.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct TurnRow {
    /// Run.
    pub run: i64,
    /// Within the run, from 1.
    pub number: i64,
    /// Its message.
    pub message_id: String,
    /// Where it begins in the live log.
    pub first_seq: i64,
    /// Where it ends.
    pub last_seq: Option<i64>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// `finished`, `error` or `interrupted`; none while that is open.
    pub outcome: Option<String>,
    /// Why it did not finish.
    pub code: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// Exit code of what failed.
    pub exit_code: Option<i32>,
    /// Why the agent stopped, as it says.
    pub stop_reason: Option<String>,
    /// How many tool calls it had.
    pub tool_calls: i64,
    /// How many permission requests it had.
    pub permission_requests: i64,
    /// About repositories, as [`TurnChange::repos`].
    pub repos: Value,
    /// No later one has begun.
    pub is_last: bool,
}

const COLUMNS: &str =
    "t.run, t.number, t.message_id, t.first_seq, t.last_seq, t.started_at, t.ended_at, t.outcome, t.code, t.message, t.exit_code,
     t.stop_reason, t.tool_calls, t.permission_requests, t.repos,
     not exists (select from ambient.session_turns l where l.session_id = t.session_id and (l.run, l.number) > (t.run, t.number)) as is_last";

impl Database {
    /// Turns of a session, or of one of its runs, the newest first, and how many there are.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn turns(
        &self,
        session_id: &str,
        run: Option<i64>,
        page: i64,
        size: i64,
    ) -> Result<(Vec<TurnRow>, i64), StoreError> {
        let filter = "t.session_id = $1 and ($2::bigint is null or t.run = $2)";
        let sql = format!("select count(*) from ambient.session_turns t where {filter}");
        let total: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(session_id).bind(run).fetch_one(self.pool()).await?;
        let sql = format!(
            "select {COLUMNS} from ambient.session_turns t where {filter} order by t.run desc, t.number desc limit $3 offset $4"
        );
        let offset = page.saturating_sub(1).saturating_mul(size);
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(session_id).bind(run).bind(size).bind(offset);
        Ok((query.fetch_all(self.pool()).await?, total))
    }

    /// A turn.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn turn(&self, session_id: &str, run: i64, number: i64) -> Result<Option<TurnRow>, StoreError> {
        let sql = format!(
            "select {COLUMNS} from ambient.session_turns t where t.session_id = $1 and t.run = $2 and t.number = $3"
        );
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(session_id).bind(run).bind(number);
        Ok(query.fetch_optional(self.pool()).await?)
    }

    /// Snapshots of repositories between two places of the live log, with their patches.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn snapshots_between(
        &self,
        session_id: &str,
        after_seq: i64,
        through_seq: i64,
    ) -> Result<Vec<Value>, StoreError> {
        let sql = "select data from ambient.session_events
                   where session_id = $1 and seq > $2 and seq <= $3 and type = 'repo.snapshot' order by seq limit 100";
        let query = sqlx::query_scalar(sql).bind(session_id).bind(after_seq).bind(through_seq);
        Ok(query.fetch_all(self.pool()).await?)
    }
}

/// Writes what a batch says, whose first record has this seq, in its transaction.
pub(crate) async fn store(
    tx: &mut PgConnection,
    (session_id, run): (&str, i64),
    first_seq: i64,
    changes: Vec<TurnChange>,
    traces: bool,
) -> Result<(), StoreError> {
    let seq = |index: usize| first_seq.saturating_add(i64::try_from(index).unwrap_or(0));
    for mut change in changes {
        change.repos.iter_mut().for_each(replace_nul);
        if let (Some(number), Some(started)) = (change.number, &change.started) {
            // A number that occurs twice is the first one's: a runner is not trusted.
            let sql = "insert into ambient.session_turns (session_id, run, number, message_id, first_seq, started_at)
                       values ($1, $2, $3, $4, $5, $6) on conflict do nothing";
            let query = sqlx::query(sql).bind(session_id).bind(run).bind(number).bind(&started.message_id);
            query.bind(seq(started.index)).bind(started.at).execute(&mut *tx).await?;
        }
        let is_over = change.ended.is_some();
        let TurnEnd { outcome, code, message, exit_code, stop_reason } = change.result.unwrap_or_default();
        let outcome = Some(outcome).filter(|outcome| !outcome.is_empty());
        let sql = "update ambient.session_turns set
                       outcome = coalesce($4, outcome), code = coalesce($5, code), message = coalesce(nullif($6, ''), message),
                       exit_code = coalesce($7, exit_code), stop_reason = coalesce($8, stop_reason),
                       ended_at = coalesce($9, ended_at), last_seq = coalesce($10, last_seq),
                       tool_calls = tool_calls + $11, permission_requests = permission_requests + $12,
                       repos = case when jsonb_array_length(repos) < $14 then repos || $13 else repos end
                   where session_id = $1 and run = $2 and number = coalesce($3,
                       (select max(number) from ambient.session_turns where session_id = $1 and run = $2))";
        sqlx::query(sql)
            .bind(session_id)
            .bind(run)
            .bind(change.number)
            .bind(outcome)
            .bind(code)
            .bind(message)
            .bind(exit_code)
            .bind(stop_reason)
            .bind(change.ended.map(|(at, _)| at))
            .bind(change.ended.map(|(_, index)| seq(index)))
            .bind(change.tool_calls)
            .bind(change.permission_requests)
            .bind(Value::Array(change.repos))
            .bind(MAX_ENTRIES)
            .execute(&mut *tx)
            .await?;
        if is_over && traces {
            let sql = "insert into ambient.trace_turns (session_id, run, number)
                       select session_id, run, number from ambient.session_turns
                       where session_id = $1 and run = $2 and ended_at is not null and number = coalesce($3,
                           (select max(number) from ambient.session_turns where session_id = $1 and run = $2))
                       on conflict do nothing";
            sqlx::query(sql).bind(session_id).bind(run).bind(change.number).execute(&mut *tx).await?;
        }
    }
    Ok(())
}
