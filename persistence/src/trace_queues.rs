//! Turns and executions that wait to be exported as traces. What is taken off a queue is fenced by the exporter's lease.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use crate::{
    database::Database,
    error::StoreError,
    traces::{AFTER_CURSOR, TraceLease},
};

/// How long executions that were exported are remembered as causes.
const REMEMBERED: &str = "interval '30 days'";
/// Longest time between two looks at an execution that is open, and the part of its age that is waited otherwise.
const LONGEST_PAUSE: &str = "interval '10 minutes'";

/// A turn that is over.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct TracedTurn {
    /// Session.
    pub session_id: String,
    /// Its project.
    pub project_id: String,
    /// Name of the session's agent, else its agent type.
    pub agent: String,
    /// The session's agent.
    pub agent_id: Option<String>,
    /// Run.
    pub run: i64,
    /// Within the run, from 1.
    pub number: i64,
    /// Its message.
    pub message_id: String,
    /// Where it begins in the live log.
    pub first_seq: i64,
    /// Where it ends.
    pub last_seq: i64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: DateTime<Utc>,
    /// `finished`, `error` or `interrupted`.
    pub outcome: String,
    /// Why it did not finish.
    pub code: Option<String>,
    /// Why the agent stopped, as it says.
    pub stop_reason: Option<String>,
    /// How many tool calls it had.
    pub tool_calls: i64,
}

/// An execution that was to be started.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct TracedExecution {
    /// Workflow id.
    pub workflow_id: String,
    /// Operation that started it.
    pub operation_id: String,
    /// Entity it works for.
    pub entity_id: String,
    /// When its start was about to be sent.
    pub created_at: DateTime<Utc>,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromRow)]
pub struct TraceBacklog {
    /// Age of the oldest operation that is not exported, seconds.
    pub oldest_operation_seconds: i64,
    /// Turns that are over and not exported.
    pub turns: i64,
    /// Executions that are open, or not exported.
    pub executions: i64,
}

impl Database {
    /// Turns to export, oldest first; at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn turns_to_trace(&self, limit: i64) -> Result<Vec<TracedTurn>, StoreError> {
        let sql = "select t.session_id, coalesce(s.project_id, '') as project_id, coalesce(a.name, s.agent_type, '') as agent, s.agent_id, t.run, t.number,
                          t.message_id, t.first_seq, coalesce(t.last_seq, t.first_seq) as last_seq, t.started_at,
                          greatest(t.ended_at, t.started_at) as ended_at, coalesce(t.outcome, 'finished') as outcome, t.code,
                          t.stop_reason, t.tool_calls
                   from ambient.trace_turns q
                   join ambient.session_turns t using (session_id, run, number)
                   left join ambient.sessions s on s.id = t.session_id
                   left join ambient.agents a on a.id = s.agent_id
                   where t.ended_at is not null order by q.created_at, q.session_id, q.run, q.number limit $1";
        Ok(sqlx::query_as(sql).bind(limit).fetch_all(self.pool()).await?)
    }

    /// A turn has been exported. False if another server has the lease: stop.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn turn_traced(&self, lease: TraceLease, turn: &TracedTurn) -> Result<bool, StoreError> {
        let sql = "delete from ambient.trace_turns where session_id = $2 and run = $3 and number = $4
                     and exists (select from ambient.trace_export where epoch = $1)";
        let query = sqlx::query(sql).bind(lease.epoch).bind(&turn.session_id).bind(turn.run).bind(turn.number);
        Ok(query.execute(self.pool()).await?.rows_affected() == 1)
    }

    /// Executions that are due for a look, at most `limit`; each is due again after a while that grows with its age.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn executions_to_trace(&self, limit: i64) -> Result<Vec<TracedExecution>, StoreError> {
        let sql = format!(
            "update ambient.trace_executions e
             set due_at = clock_timestamp()
                 + least(greatest((clock_timestamp() - e.created_at) / 4, interval '1 second'), {LONGEST_PAUSE})
             from (select workflow_id from ambient.trace_executions where due_at <= clock_timestamp()
                   order by due_at limit $1 for update skip locked) due
             where e.workflow_id = due.workflow_id
             returning e.workflow_id, e.operation_id, e.entity_id, e.created_at"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(limit).fetch_all(self.pool()).await?)
    }

    /// Something happened to these entities: executions that work for them are looked at soon.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn look_at_executions(&self, entity_ids: &[String], within: Duration) -> Result<(), StoreError> {
        let sql =
            "update ambient.trace_executions set due_at = least(due_at, clock_timestamp() + $2 * interval '1 second')
                   where entity_id = any($1) and due_at > clock_timestamp() + $2 * interval '1 second'";
        sqlx::query(sql).bind(entity_ids).bind(within.as_secs_f64()).execute(self.pool()).await?;
        Ok(())
    }

    /// An execution has been exported, or there is nothing of it. False if another server has the lease: stop.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn execution_traced(&self, lease: TraceLease, workflow_id: &str) -> Result<bool, StoreError> {
        let sql = "update ambient.trace_executions set due_at = null where workflow_id = $2
                     and exists (select from ambient.trace_export where epoch = $1)";
        let query = sqlx::query(sql).bind(lease.epoch).bind(workflow_id);
        Ok(query.execute(self.pool()).await?.rows_affected() == 1)
    }

    /// Gives up turns that ended before `oldest`, and more than `most` of turns or executions, oldest first; forgets executions that were
    /// exported long ago. Returns how many were given up.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn trim_traces(&self, lease: TraceLease, oldest: DateTime<Utc>, most: i64) -> Result<i64, StoreError> {
        let sql = format!(
            "with mine as (select from ambient.trace_export where epoch = $1),
             turns as (
                 delete from ambient.trace_turns where exists (select from mine) and (created_at < $2 or created_at <
                     (select created_at from ambient.trace_turns order by created_at desc offset $3 limit 1)) returning 1),
             executions as (
                 update ambient.trace_executions set due_at = null where exists (select from mine) and due_at is not null and created_at <
                     (select created_at from ambient.trace_executions where due_at is not null order by created_at desc offset $3 limit 1)
                 returning 1),
             forgotten as (
                 delete from ambient.trace_executions where workflow_id = any(array(
                     select workflow_id from ambient.trace_executions where exists (select from mine) and due_at is null
                       and created_at < clock_timestamp() - {REMEMBERED} order by created_at limit 1000))),
             gone as (select (select count(*) from turns) + (select count(*) from executions) as number)
             update ambient.trace_export set dropped = dropped + gone.number from gone where epoch = $1 returning gone.number"
        );
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(lease.epoch).bind(oldest).bind(most);
        let dropped: Option<i64> = query.fetch_optional(self.pool()).await?;
        Ok(dropped.unwrap_or(0))
    }

    /// What waits.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn trace_backlog(&self) -> Result<TraceBacklog, StoreError> {
        let sql = format!(
            "select coalesce((select extract(epoch from clock_timestamp() - occurred_at)::bigint from ambient.operations t
                              where {AFTER_CURSOR} order by t.xid, t.position limit 1), 0) as oldest_operation_seconds,
                    (select count(*) from ambient.trace_turns) as turns,
                    (select count(*) from ambient.trace_executions where due_at is not null) as executions"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_one(self.pool()).await?)
    }
}
