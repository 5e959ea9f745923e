//! Queries of the readers of runners' logs, for many sessions at a time where there are many.

use std::time::Duration;

use serde_json::Value;
use sqlx::FromRow;

use crate::{
    database::Database,
    error::StoreError,
    live::StoredEvent,
    runner::{RunnerLease, RunnerRecord},
};

/// A run that may have a runner.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RunnerSession {
    /// Session.
    pub session_id: String,
    /// Its project.
    pub project_id: String,
    /// Run.
    pub run: i64,
    /// Whether the runner has to be told something: messages that it has not recorded while it is Running, answers, permissions.
    pub has_undelivered: bool,
    /// Of those whose rules hold for it.
    #[sqlx(flatten)]
    pub rulers: RulerVersions,
}

/// Versions of those whose rules hold for a run: something may have changed if one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct RulerVersions {
    /// The session's own.
    pub session_version: i64,
    /// Its agent's; 0 = none.
    pub agent_version: i64,
    /// Its project's; 0 = none.
    pub project_version: i64,
}

/// How far a runner's log has been stored, and how far its facts have been reported.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RunnerCursor {
    /// The log.
    pub log_id: String,
    /// `n` of the last record stored.
    pub cursor: i64,
    /// `n` of the last record whose fact is reported.
    pub facts_reported: i64,
    /// Attempt in force at `facts_reported`; 0 = none.
    pub facts_attempt: i32,
}

/// A piece of a live log.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// In order, without gaps.
    pub events: Vec<StoredEvent>,
    /// There may be more.
    pub more: bool,
}

/// An event whose payload is still text: what it is measured by is then what is sent, made once.
#[derive(FromRow)]
struct Measured {
    session_id: String,
    seq: i64,
    at: chrono::DateTime<chrono::Utc>,
    #[sqlx(rename = "type")]
    event_type: String,
    json: String,
    message_id: Option<String>,
    run: Option<i64>,
    log_id: Option<String>,
    runner_seq: Option<i64>,
    operation_id: Option<String>,
    through: i64,
}

impl Measured {
    fn event(self) -> Result<StoredEvent, StoreError> {
        let Self { session_id, seq, at, event_type, json, message_id, run, log_id, runner_seq, operation_id, .. } =
            self;
        let data = serde_json::from_str(&json).map_err(|error| StoreError::corrupt("an event's payload", &error))?;
        Ok(StoredEvent { session_id, seq, at, event_type, data, message_id, run, log_id, runner_seq, operation_id })
    }
}

#[derive(FromRow)]
struct RecordRow {
    n: i64,
    at: chrono::DateTime<chrono::Utc>,
    #[sqlx(rename = "type")]
    event_type: String,
    data: Value,
}

impl Database {
    /// Events after `after_seq` in order, at most `limit` and about `max_bytes` of payload, but at least one if there is one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_event_page(
        &self,
        session_id: &str,
        after_seq: i64,
        limit: i64,
        max_bytes: i64,
    ) -> Result<EventPage, StoreError> {
        let sql = "select * from (
                       select e.*, octet_length(json) as bytes, (sum(octet_length(json)) over (order by seq))::bigint as through from (
                           select session_id, seq, at, type, data::text as json, message_id, run, log_id, runner_seq, operation_id
                           from ambient.session_events where session_id = $1 and seq > $2 order by seq limit $3
                       ) e
                   ) m where through - bytes < $4 order by seq";
        let query = sqlx::query_as::<_, Measured>(sql).bind(session_id).bind(after_seq).bind(limit).bind(max_bytes);
        let rows = query.fetch_all(self.pool()).await?;
        let full = i64::try_from(rows.len()).is_ok_and(|count| count >= limit);
        let more = full || rows.last().is_some_and(|row| row.through >= max_bytes);
        Ok(EventPage { events: rows.into_iter().map(Measured::event).collect::<Result<_, _>>()?, more })
    }

    /// Runs that may have a runner: of sessions in Creating, Running or Stopping.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn sessions_with_runners(&self) -> Result<Vec<RunnerSession>, StoreError> {
        let sql = "select s.id as session_id, s.project_id, s.run,
                          s.runner_due or s.phase = 'Running' and exists (
                              select from ambient.session_events e
                              where e.session_id = s.id and e.run = s.run and e.message_id is not null
                                and e.type = 'user.message' and e.seq > r.delivered_seq) as has_undelivered,
                          s.version as session_version, coalesce(a.version, 0) as agent_version,
                          coalesce(p.version, 0) as project_version
                   from ambient.sessions s join ambient.session_runtime r on r.session_id = s.id
                   left join ambient.agents a on a.id = s.agent_id left join ambient.projects p on p.id = s.project_id
                   where s.deleted_at is null and s.phase in ('Creating', 'Running', 'Stopping')";
        Ok(sqlx::query_as(sql).fetch_all(self.pool()).await?)
    }

    /// Messages of a run that the runner has not recorded as accepted, in order, a few at a time; none unless the session is
    /// Running in that run.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn deliverable_messages(&self, session_id: &str, run: i64) -> Result<Vec<StoredEvent>, StoreError> {
        let sql = "select e.session_id, e.seq, e.at, e.type, e.data, e.message_id, e.run, e.log_id, e.runner_seq, e.operation_id
                   from ambient.sessions s
                   join ambient.session_runtime r on r.session_id = s.id
                   join ambient.session_events e on e.session_id = s.id and e.run = s.run and e.message_id is not null
                   where s.id = $1 and s.run = $2 and s.phase = 'Running' and s.deleted_at is null
                     and e.type = 'user.message' and e.seq > r.delivered_seq
                   order by e.seq limit 8";
        Ok(sqlx::query_as(sql).bind(session_id).bind(run).fetch_all(self.pool()).await?)
    }

    /// Extends many leases at once and returns the (session, run) of those that still belong to their holder; the others are lost.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn renew_runner_leases(
        &self,
        leases: &[RunnerLease],
        ttl: Duration,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        // Locked in one order, like every batch.
        let sql = "with mine as (
                       select l.session_id, l.run from ambient.runner_leases l
                       join unnest($1::text[], $2::bigint[], $3::bigint[]) as held(session_id, run, epoch)
                         on l.session_id = held.session_id and l.run = held.run and l.epoch = held.epoch
                       order by l.session_id, l.run for update of l)
                   update ambient.runner_leases l set expires_at = clock_timestamp() + $4 * interval '1 second'
                   from mine where l.session_id = mine.session_id and l.run = mine.run
                   returning l.session_id, l.run";
        let query = sqlx::query_as(sql)
            .bind(leases.iter().map(|lease| lease.session_id.as_str()).collect::<Vec<_>>())
            .bind(leases.iter().map(|lease| lease.run).collect::<Vec<_>>())
            .bind(leases.iter().map(|lease| lease.epoch).collect::<Vec<_>>())
            .bind(ttl.as_secs_f64());
        Ok(query.fetch_all(self.pool()).await?)
    }

    /// Epoch of the last lease on a run's log; 0 if there was none.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn runner_epoch(&self, session_id: &str, run: i64) -> Result<i64, StoreError> {
        let sql = "select epoch from ambient.runner_leases where session_id = $1 and run = $2";
        let epoch: Option<i64> = sqlx::query_scalar(sql).bind(session_id).bind(run).fetch_optional(self.pool()).await?;
        Ok(epoch.unwrap_or(0))
    }

    /// Logs of a run, the one stored most recently first.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn runner_cursors(&self, session_id: &str, run: i64) -> Result<Vec<RunnerCursor>, StoreError> {
        let sql = "select log_id, cursor, facts_reported, facts_attempt from ambient.runner_cursors
                   where session_id = $1 and run = $2 order by epoch desc, cursor desc";
        Ok(sqlx::query_as(sql).bind(session_id).bind(run).fetch_all(self.pool()).await?)
    }

    /// Stored records of a runner's log after `after` whose type is in `types`, or which are CUSTOM, as earlier runners recorded them, with a
    /// name in `names`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn runner_records(
        &self,
        session_id: &str,
        log_id: &str,
        after: i64,
        types: &[&str],
        names: &[&str],
    ) -> Result<Vec<RunnerRecord>, StoreError> {
        let sql = "select runner_seq as n, at, type, data from ambient.session_events
                   where session_id = $1 and log_id = $2 and runner_seq > $3
                     and (type = any($4) or (type = 'CUSTOM' and data->>'name' = any($5)))
                   order by runner_seq limit 64";
        let query =
            sqlx::query_as::<_, RecordRow>(sql).bind(session_id).bind(log_id).bind(after).bind(types).bind(names);
        let rows = query.fetch_all(self.pool()).await?;
        let record = |row: RecordRow| RunnerRecord { n: row.n, at: row.at, event_type: row.event_type, data: row.data };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Records that the facts of a log have been reported up to record `n`, where `attempt` was in force. Only moves forward.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn set_facts_reported(
        &self,
        session_id: &str,
        log_id: &str,
        n: i64,
        attempt: i32,
    ) -> Result<(), StoreError> {
        let sql = "update ambient.runner_cursors set facts_reported = $3, facts_attempt = $4
                   where session_id = $1 and log_id = $2 and facts_reported < $3";
        sqlx::query(sql).bind(session_id).bind(log_id).bind(n).bind(attempt).execute(self.pool()).await?;
        Ok(())
    }
}
