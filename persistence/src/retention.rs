//! What retention removes of finished sessions, and what is remembered of it.
//!
//! Invariants: only what a stored snapshot of the log covers is removed, and only of a session that is over, proven to be, whose row is
//! locked until the commit: a start comes before or after. What was removed is written in the same transaction. Only the database's clock.

use ambient_domain::retention::{KEEP_LABEL, Retention};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{AssertSqlSafe, FromRow, types::Json};

use crate::{begin::begin, database::Database, error::StoreError};

/// What was removed of a session.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Removed {
    /// Oldest event that is kept.
    pub retained_from_seq: i64,
    /// Events that are gone.
    pub events_removed: i64,
    /// When the last of them went.
    pub events_removed_at: Option<DateTime<Utc>>,
    /// The last run whose workspace was removed; 0 = none.
    pub workspace_run: i64,
    /// When it was.
    pub workspace_removed_at: Option<DateTime<Utc>>,
    /// When its stored snapshots were.
    pub snapshots_removed_at: Option<DateTime<Utc>>,
}

/// A workspace that is to be removed, with its files: the last run of it, and when that was decided.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UnwantedWorkspace {
    /// Session id.
    pub session_id: String,
    /// Its project's.
    pub project_id: String,
    /// The last run in it.
    pub run: i64,
    /// When it was decided.
    pub at: DateTime<Utc>,
}

/// A batch of events that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemovedEvents {
    /// How many.
    pub events: i64,
    /// Their payloads as they were stored, bytes.
    pub bytes: i64,
    /// There may be more.
    pub more: bool,
}

/// A project, and what it says about retention.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ProjectRetention {
    /// Project id.
    pub id: String,
    retention: Option<Json<Retention>>,
}

impl ProjectRetention {
    /// What it says.
    #[must_use]
    pub fn given(&self) -> Retention {
        self.retention.as_ref().map(|given| given.0).unwrap_or_default()
    }
}

/// Somebody wants a project's retention to be applied at once.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct RetentionRequest {
    /// Project id.
    pub project_id: String,
    /// When.
    pub requested_at: DateTime<Utc>,
    /// Who.
    pub requested_by: String,
    /// When it was done.
    pub done_at: Option<DateTime<Utc>>,
}

impl Database {
    /// What was removed of a session; none if nothing was.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn removed(&self, session_id: &str) -> Result<Option<Removed>, StoreError> {
        let sql = "select retained_from_seq, events_removed, events_removed_at, workspace_run, workspace_removed_at, snapshots_removed_at
                   from ambient.session_retention where session_id = $1";
        Ok(sqlx::query_as(sql).bind(session_id).fetch_optional(self.pool()).await?)
    }

    /// Projects in use after an id, in order: all, or only those that say something about retention.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn projects_to_retain(
        &self,
        all: bool,
        after: &str,
        limit: i64,
    ) -> Result<Vec<ProjectRetention>, StoreError> {
        let sql = "select id, spec -> 'settings' -> 'retention' as retention from ambient.projects
                   where deleted_at is null and phase = 'Active' and id > $2 and ($1 or spec -> 'settings' ? 'retention')
                   order by id limit $3";
        Ok(sqlx::query_as(sql).bind(all).bind(after).bind(limit).fetch_all(self.pool()).await?)
    }

    /// Sessions of a project whose events are covered by a snapshot that is so many days old; at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn sessions_with_old_events(
        &self,
        project_id: &str,
        days: u32,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "select s.id from ambient.sessions s {COVERED} left join ambient.session_retention r on r.session_id = s.id
             where s.project_id = $1 and {} and n.created_at < clock_timestamp() - $2 * interval '1 day'
               and coalesce(r.retained_from_seq, 1) <= n.covers_seq
             order by s.id limit $3",
            over()
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(project_id).bind(f64::from(days)).bind(limit);
        Ok(query.fetch_all(self.pool()).await?)
    }

    /// Removes the oldest events of a session that a snapshot so many days old covers, at most `limit`. None if there is nothing to
    /// remove, or not now: it is started, somebody else is at it, its log is being read.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_old_events(
        &self,
        session_id: &str,
        days: u32,
        limit: i64,
    ) -> Result<Option<RemovedEvents>, StoreError> {
        let mut tx = begin(self.pool(), "begin").await?;
        let sql = format!(
            "select n.covers_seq from ambient.sessions s {COVERED}
             where s.id = $1 and {} and n.created_at < clock_timestamp() - $2 * interval '1 day'
             for no key update of s skip locked",
            over()
        );
        let covers: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(session_id)
            .bind(f64::from(days))
            .fetch_optional(&mut *tx)
            .await?;
        let Some(covers_seq) = covers else { return Ok(None) };
        // When fewer are found than looked for, all that the snapshot covers are gone.
        let sql = "with doomed as (
                       select seq from ambient.session_events where session_id = $1 and seq <= $2 order by seq limit $3),
                   gone as (
                       delete from ambient.session_events e using doomed d where e.session_id = $1 and e.seq = d.seq
                       returning e.seq, pg_column_size(e.data)::bigint as bytes),
                   batch as (
                       select count(*) as events, coalesce(sum(bytes), 0)::bigint as bytes, coalesce(max(seq), 0) as last from gone),
                   noted as (
                       insert into ambient.session_retention as r
                           (session_id, retained_from_seq, events_removed, event_bytes_removed, events_removed_at)
                       select $1, case when events < $3 then $2 else last end + 1, events, bytes, clock_timestamp() from batch
                       on conflict (session_id) do update set
                           retained_from_seq = greatest(r.retained_from_seq, excluded.retained_from_seq),
                           events_removed = r.events_removed + excluded.events_removed,
                           event_bytes_removed = r.event_bytes_removed + excluded.event_bytes_removed,
                           events_removed_at = excluded.events_removed_at)
                   select events, bytes from batch";
        let query = sqlx::query_as(sql).bind(session_id).bind(covers_seq).bind(limit);
        let (events, bytes): (i64, i64) = query.fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(Some(RemovedEvents { events, bytes, more: events >= limit }))
    }

    /// Decides that workspaces of a project in whose sessions nothing has happened for so many days are to be removed, at most `limit`;
    /// how many. From then on nobody works with them, and their hosts remove the files.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn give_up_workspaces(&self, project_id: &str, days: u32, limit: i64) -> Result<u64, StoreError> {
        let sql = format!(
            "with due as (
                 select s.id, s.run from ambient.sessions s
                 join ambient.session_runtime t on t.session_id = s.id
                 left join ambient.session_retention r on r.session_id = s.id
                 where s.project_id = $1 and {} and {WORKSPACE} and t.last_activity_at < clock_timestamp() - $2 * interval '1 day'
                 order by s.id limit $3 for no key update of s skip locked)
             insert into ambient.session_retention as r (session_id, workspace_run, workspace_removed_at, workspace_gone)
             select id, run, clock_timestamp(), false from due
             on conflict (session_id) do update set workspace_run = excluded.workspace_run, workspace_bytes_removed = null,
                 workspace_removed_at = excluded.workspace_removed_at, workspace_gone = false
                 where r.workspace_run < excluded.workspace_run",
            over()
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(project_id).bind(f64::from(days)).bind(limit);
        Ok(query.execute(self.pool()).await?.rows_affected())
    }

    /// Workspaces on a host that are to be removed and are not yet, after a session's id, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn unwanted_workspaces(
        &self,
        host: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<UnwantedWorkspace>, StoreError> {
        let sql = "select s.id as session_id, s.project_id, r.workspace_run as run, r.workspace_removed_at as at
                   from ambient.session_retention r join ambient.sessions s on s.id = r.session_id
                   join ambient.session_runtime t on t.session_id = r.session_id
                   where not r.workspace_gone and t.launch_host = $1 and s.deleted_at is null and r.session_id > $2
                   order by r.session_id limit $3";
        Ok(sqlx::query_as(sql).bind(host).bind(after).bind(limit).fetch_all(self.pool()).await?)
    }

    /// The session's workspace that this run must not find, if there is one; and whether its files are gone. It may be older than that of the run
    /// before: one that was ended before it came this far has left it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn given_up_before(
        &self,
        session_id: &str,
        run: i64,
    ) -> Result<Option<(UnwantedWorkspace, bool)>, StoreError> {
        let sql = "select s.id as session_id, s.project_id, r.workspace_run as run, r.workspace_removed_at as at
                   from ambient.session_retention r join ambient.sessions s on s.id = r.session_id
                   where r.session_id = $1 and r.workspace_removed_at is not null
                     and (r.workspace_run = $2 - 1 or r.workspace_run < $2 and not r.workspace_gone)";
        let found = sqlx::query_as(sql).bind(session_id).bind(run).fetch_optional(self.pool()).await?;
        let Some(found) = found else { return Ok(None) };
        let gone = "select workspace_gone from ambient.session_retention where session_id = $1";
        Ok(Some((found, sqlx::query_scalar(gone).bind(session_id).fetch_one(self.pool()).await?)))
    }

    /// The files of a workspace are gone; whether this is news. `bytes` is what they were, as far as it was measured.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn workspace_gone(&self, session_id: &str, run: i64, bytes: Option<u64>) -> Result<bool, StoreError> {
        let sql = "update ambient.session_retention set workspace_gone = true, workspace_bytes_removed = $3
                   where session_id = $1 and workspace_run = $2 and not workspace_gone";
        let bytes = bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let done = sqlx::query(sql).bind(session_id).bind(run).bind(bytes).execute(self.pool()).await?;
        Ok(done.rows_affected() == 1)
    }

    /// The session's stored snapshots are about to be removed.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn note_snapshots_removed(&self, session_id: &str) -> Result<(), StoreError> {
        let sql =
            "insert into ambient.session_retention (session_id, snapshots_removed_at) values ($1, clock_timestamp())
                   on conflict (session_id) do update set snapshots_removed_at = excluded.snapshots_removed_at";
        sqlx::query(sql).bind(session_id).execute(self.pool()).await?;
        Ok(())
    }

    /// Asks for a project's retention to be applied at once.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn request_retention(&self, project_id: &str, by: &str) -> Result<RetentionRequest, StoreError> {
        let sql = "insert into ambient.retention_requests (project_id, requested_at, requested_by) values ($1, clock_timestamp(), $2)
                   on conflict (project_id) do update set requested_at = excluded.requested_at,
                       requested_by = excluded.requested_by, done_at = null
                   returning project_id, requested_at, requested_by, done_at";
        Ok(sqlx::query_as(sql).bind(project_id).bind(by).fetch_one(self.pool()).await?)
    }

    /// The last such request.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn retention_request(&self, project_id: &str) -> Result<Option<RetentionRequest>, StoreError> {
        let sql = "select project_id, requested_at, requested_by, done_at from ambient.retention_requests where project_id = $1";
        Ok(sqlx::query_as(sql).bind(project_id).fetch_optional(self.pool()).await?)
    }

    /// Requests that are not done, the oldest first, at most 20.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn open_retention_requests(&self) -> Result<Vec<(RetentionRequest, ProjectRetention)>, StoreError> {
        let sql = "select q.project_id, q.requested_at, q.requested_by, q.done_at
                   from ambient.retention_requests q join ambient.projects p on p.id = q.project_id
                   where q.done_at is null and p.deleted_at is null and p.phase = 'Active' order by q.requested_at limit 20";
        let requests: Vec<RetentionRequest> = sqlx::query_as(sql).fetch_all(self.pool()).await?;
        let mut found = Vec::with_capacity(requests.len());
        for request in requests {
            let sql = "select id, spec -> 'settings' -> 'retention' as retention from ambient.projects where id = $1";
            let project = sqlx::query_as(sql).bind(&request.project_id).fetch_optional(self.pool()).await?;
            found.extend(project.map(|project| (request, project)));
        }
        Ok(found)
    }

    /// What was asked for is done, unless it was asked for again since.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn retention_done(&self, request: &RetentionRequest) -> Result<(), StoreError> {
        let sql = "update ambient.retention_requests set done_at = clock_timestamp() where project_id = $1 and requested_at = $2";
        sqlx::query(sql).bind(&request.project_id).bind(request.requested_at).execute(self.pool()).await?;
        Ok(())
    }
}

/// Joins the newest snapshot of the log of session `s`.
pub(crate) const COVERED: &str = "join lateral (
    select covers_seq, created_at from ambient.snapshots where session_id = s.id order by covers_seq desc limit 1) n on true";

/// Whether session `s` has a workspace, with its runtime `t` and what was removed, `r`.
pub(crate) const WORKSPACE: &str = "s.run > 0 and t.launch_host is not null and t.workspace_deleted_at is null
    and coalesce(r.workspace_run, 0) < s.run";

/// Whether session `s` may lose something: it is over, which is proven, or deleted with all it had, so that its log is complete; nobody
/// reads what a runner has recorded; nobody wants it to be kept.
pub(crate) fn over() -> String {
    let (key, value) = KEEP_LABEL;
    let keep = json!({ key: value });
    format!(
        "(s.deleted_at is null and s.phase in ('Stopped', 'Completed', 'Failed') and s.waiting = 0
              and s.state -> 'conditions' @> '[{{\"type\": \"TornDown\", \"status\": \"True\"}}]'
          or s.deleted_at is not null and exists (
              select from ambient.session_runtime d where d.session_id = s.id and d.workspace_deleted_at is not null))
         and not s.labels @> '{keep}'
         and not exists (select from ambient.runner_leases l where l.session_id = s.id and l.expires_at > clock_timestamp())"
    )
}
