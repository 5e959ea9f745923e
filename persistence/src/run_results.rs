//! What runs came to, one row each, written with the events that say so.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::{FromRow, PgConnection};

use crate::{canonical::replace_nul, database::Database, error::StoreError};

/// Most repositories that a run tells of. A session has fewer at a time, but may change them.
const MAX_REPOS: i64 = 200;
/// How far back from the end of a turn it is looked for what the agent said last: events.
const LOOK_BACK: i64 = 5_000;
/// Most pieces of what it said that are read, and most characters that are kept.
const MAX_PIECES: i64 = 1_000;
const MAX_RESULTS: i32 = 16_000;

/// What a batch of a runner's log says about its run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunChange {
    /// What has become of repositories, by name: `{status, url, branch, commit, message, at}`.
    pub repos: BTreeMap<String, Value>,
    /// How the last turn ended, if one did: why it did not finish, or nothing.
    pub turn: Option<Option<String>>,
    /// The place in the batch of the record that ends the last turn, from 0.
    pub turn_ended: Option<usize>,
}

/// A run as it is stored.
#[derive(Debug, Clone, PartialEq, Default, FromRow)]
pub struct RunRow {
    /// By name, as [`RunChange::repos`].
    pub repo_statuses: Value,
    /// What the agent said last.
    pub results: Option<String>,
    /// Why the last turn did not finish.
    pub error: Option<String>,
}

impl Database {
    /// What a run came to; none if nothing is known of it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn run_results(&self, session_id: &str, run: i64) -> Result<Option<RunRow>, StoreError> {
        let sql = "select repo_statuses, results, error from ambient.session_runs where session_id = $1 and run = $2";
        Ok(sqlx::query_as(sql).bind(session_id).bind(run).fetch_optional(self.pool()).await?)
    }
}

/// Writes what a batch says, whose first record has this seq, in its transaction, after its events and turns.
pub(crate) async fn store(
    tx: &mut PgConnection,
    (session_id, run): (&str, i64),
    first_seq: i64,
    change: RunChange,
) -> Result<(), StoreError> {
    if change == RunChange::default() {
        return Ok(());
    }
    let RunChange { repos, turn, turn_ended } = change;
    let results = match turn_ended {
        Some(index) => {
            let seq = first_seq.saturating_add(i64::try_from(index).unwrap_or(0));
            said_last(&mut *tx, (session_id, run), seq).await?
        }
        None => None,
    };
    let mut repos = Value::Object(repos.into_iter().collect::<Map<_, _>>());
    replace_nul(&mut repos);
    let sql = "insert into ambient.session_runs as r (session_id, run, repo_statuses, results, error)
               values ($1, $2, $3, $4, $5)
               on conflict (session_id, run) do update set
                   repo_statuses = case when (select count(*) from jsonb_object_keys(r.repo_statuses)) < $7
                                        then r.repo_statuses || excluded.repo_statuses else r.repo_statuses end,
                   results = coalesce(excluded.results, r.results),
                   error = case when $6 then excluded.error else r.error end";
    let query = sqlx::query(sql).bind(session_id).bind(run).bind(repos).bind(results);
    query.bind(turn.clone().flatten()).bind(turn.is_some()).bind(MAX_REPOS).execute(tx).await?;
    Ok(())
}

/// The last message of the agent before the end of its run's last turn, which has this seq.
async fn said_last(
    tx: &mut PgConnection,
    (session_id, run): (&str, i64),
    seq: i64,
) -> Result<Option<String>, StoreError> {
    let sql = "with turn as (
                   select greatest(max(first_seq), $3 - $4) as first from ambient.session_turns where session_id = $1 and run = $2),
               said as (
                   select e.seq, e.data ->> 'message_id' as id from ambient.session_events e, turn
                   where e.session_id = $1 and e.seq > turn.first and e.seq < $3 and e.type = 'agent.text'
                   order by e.seq desc limit 1),
               pieces as (
                   select e.seq, e.data ->> 'text' as piece from ambient.session_events e, turn, said
                   where e.session_id = $1 and e.seq > turn.first and e.seq <= said.seq and e.type = 'agent.text'
                     and e.data ->> 'message_id' = said.id
                   order by e.seq limit $5)
               select left(string_agg(piece, '' order by seq), $6) from pieces";
    let query = sqlx::query_scalar(sql).bind(session_id).bind(run).bind(seq).bind(LOOK_BACK).bind(MAX_PIECES);
    Ok(query.bind(MAX_RESULTS).fetch_one(tx).await?)
}
