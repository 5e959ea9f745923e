//! What model calls have used: by turn, run, session and project.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{FromRow, PgConnection};

use crate::{database::Database, error::StoreError};

/// Who counted, as the table has it: the runner's model proxy, call by call.
pub const PROXY: &str = "proxy";
/// The agent: what it has reported last about a turn.
pub const AGENT: &str = "agent";

/// Most models of a turn that are told apart; what others use counts under no name.
const MAX_MODELS: usize = 32;

/// Tokens and money of some calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, FromRow)]
pub struct ModelUsage {
    /// How many calls; reports, if the agent counted.
    pub calls: i64,
    /// Tokens of input, those from a cache included.
    pub input_tokens: i64,
    /// Of these, from a cache.
    pub cached_input_tokens: i64,
    /// Tokens of output, those of reasoning included.
    pub output_tokens: i64,
    /// Of these, for reasoning.
    pub reasoning_tokens: i64,
    /// Millionths of the currency.
    pub cost_micros: i64,
    /// ISO 4217; empty if no cost was said.
    pub currency: String,
}

/// What a batch of a runner's log says about usage: added to what is known if the proxy counted, in its place if the agent did.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageChange {
    /// Turn; 0 = outside of any.
    pub turn: i64,
    /// [`PROXY`] or [`AGENT`].
    pub source: &'static str,
    /// Model; empty if not said.
    pub model: String,
    /// When.
    pub at: DateTime<Utc>,
    /// How much.
    pub usage: ModelUsage,
}

/// Usage under some keys; those that were not asked for are empty.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct UsageRow {
    /// Run.
    pub run: i64,
    /// Turn.
    pub turn: i64,
    /// Model.
    pub model: String,
    /// Day, UTC.
    pub day: Option<NaiveDate>,
    /// Who counted: [`PROXY`] or [`AGENT`].
    pub source: String,
    /// How much.
    #[sqlx(flatten)]
    pub usage: ModelUsage,
}

/// By what usage is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageBy {
    /// Run.
    Run,
    /// Run and turn.
    Turn,
    /// Model.
    Model,
    /// Day, UTC.
    Day,
}

/// Whose usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageOf<'a> {
    /// A session's.
    Session(&'a str),
    /// That of a session's turns from one (run and number) to another.
    Turns(&'a str, (i64, i64), (i64, i64)),
    /// A project's, within these times.
    Project(&'a str, Option<DateTime<Utc>>, Option<DateTime<Utc>>),
}

/// Most rows of an answer.
const MAX_ROWS: i64 = 10_000;

impl Database {
    /// Tokens, and millionths of the currency, that calls through the proxy have used in the session's runs before `run`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn model_usage_before(&self, session_id: &str, run: i64) -> Result<(u64, u64), StoreError> {
        let sql = "select least(coalesce(sum(input_tokens::numeric + output_tokens), 0), 9223372036854775807)::bigint,
                          least(coalesce(sum(cost_micros), 0), 9223372036854775807)::bigint
                   from ambient.model_usage where session_id = $1 and run < $2 and source = $3";
        let query = sqlx::query_as(sql).bind(session_id).bind(run).bind(PROXY);
        let (tokens, cost): (i64, i64) = query.fetch_one(self.pool()).await?;
        Ok((tokens.unsigned_abs(), cost.unsigned_abs()))
    }

    /// Usage, added up. Where the proxy has counted in a turn, what the agent reports about it does not count.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn model_usage(&self, of: UsageOf<'_>, by: UsageBy) -> Result<Vec<UsageRow>, StoreError> {
        let (filter, id) = match of {
            UsageOf::Session(id) => ("session_id = $1".to_owned(), id),
            UsageOf::Turns(id, (run, turn), (last_run, last_turn)) => {
                let turns = format!("(run, turn) between ({run}, {turn}) and ({last_run}, {last_turn})");
                (format!("session_id = $1 and {turns}"), id)
            }
            UsageOf::Project(id, ..) => ("project_id = $1".to_owned(), id),
        };
        let (since, until) = match of {
            UsageOf::Project(_, since, until) => (since, until),
            UsageOf::Session(_) | UsageOf::Turns(..) => (None, None),
        };
        let (run, turn, model, day) = match by {
            UsageBy::Run => ("run", "0::bigint", "''", "null::date"),
            UsageBy::Turn => ("run", "turn", "''", "null::date"),
            UsageBy::Model => ("0::bigint", "0::bigint", "model", "null::date"),
            UsageBy::Day => ("0::bigint", "0::bigint", "''", "(at at time zone 'utc')::date"),
        };
        let sum = |column: &str| format!("least(sum({column}), 9223372036854775807)::bigint as {column}");
        let columns =
            ["calls", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_micros"];
        let sums = columns.map(sum).join(", ");
        let sql = format!(
            "select {run} as run, {turn} as turn, {model} as model, {day} as day, min(source) as source, {sums},
                    coalesce(max(nullif(currency, '')), '') as currency
             from ambient.model_usage u
             where {filter} and ($2::timestamptz is null or at >= $2) and ($3::timestamptz is null or at < $3)
               and (source = '{PROXY}' or not exists (
                   select from ambient.model_usage p
                   where (p.session_id, p.run, p.turn, p.source) = (u.session_id, u.run, u.turn, '{PROXY}')))
             group by 1, 2, 3, 4, source, currency order by 1, 2, 3, 4, source, currency limit {MAX_ROWS}"
        );
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(since).bind(until);
        Ok(query.fetch_all(self.pool()).await?)
    }
}

/// Adds what a batch says, in its transaction.
pub(crate) async fn store(
    tx: &mut PgConnection,
    (session_id, run): (&str, i64),
    mut changes: Vec<UsageChange>,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let turns: Vec<i64> = changes.iter().map(|change| change.turn).collect();
    let sql = "select turn, model from ambient.model_usage where session_id = $1 and run = $2 and turn = any($3)";
    let known: Vec<(i64, String)> =
        sqlx::query_as(sql).bind(session_id).bind(run).bind(turns).fetch_all(&mut *tx).await?;
    let mut known: BTreeSet<(i64, String)> = known.into_iter().collect();
    // One row per statement: a batch says little about usage, and the same key may occur twice.
    for change in &mut changes {
        let key = (change.turn, change.model.clone());
        if !known.contains(&key) && known.iter().filter(|(turn, _)| *turn == change.turn).count() >= MAX_MODELS {
            change.model.clear();
        } else {
            known.insert(key);
        }
        upsert(&mut *tx, session_id, run, change).await?;
    }
    Ok(())
}

async fn upsert(tx: &mut PgConnection, session_id: &str, run: i64, change: &UsageChange) -> Result<(), StoreError> {
    let sum = |column: &str| {
        format!(
            "{column} = case when excluded.source = '{PROXY}' then least(u.{column}::numeric + excluded.{column}, 9223372036854775807)::bigint else excluded.{column} end"
        )
    };
    let columns = ["calls", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_micros"];
    let sums = columns.map(sum).join(", ");
    let sql = format!(
        "insert into ambient.model_usage as u (session_id, run, turn, source, model, project_id, at, calls, input_tokens,
                cached_input_tokens, output_tokens, reasoning_tokens, cost_micros, currency)
         select $1, $2, $3, $4, $5, s.project_id, $6, $7, $8, $9, $10, $11, $12, $13 from ambient.sessions s where s.id = $1
         on conflict (session_id, run, turn, source, model) do update set at = excluded.at,
                currency = coalesce(nullif(excluded.currency, ''), u.currency), {sums}"
    );
    let UsageChange { turn, source, model, at, usage } = change;
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(session_id)
        .bind(run)
        .bind(turn)
        .bind(source)
        .bind(model)
        .bind(at)
        .bind(usage.calls)
        .bind(usage.input_tokens)
        .bind(usage.cached_input_tokens)
        .bind(usage.output_tokens)
        .bind(usage.reasoning_tokens)
        .bind(usage.cost_micros)
        .bind(&usage.currency)
        .execute(tx)
        .await?;
    Ok(())
}
