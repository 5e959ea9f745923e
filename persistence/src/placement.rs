//! A session's frequently changing values that workflows need: its host, revoked tokens, last activity. And what the sweep looks for.

use chrono::{DateTime, Utc};

use crate::{Database, StoreError};

impl Database {
    /// The host that has the session's workspace; `host`, if none has it yet. The first caller decides.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn place_session(&self, session_id: &str, host: &str) -> Result<String, StoreError> {
        let sql = "insert into ambient.session_runtime as r (session_id, last_activity_at, launch_host)
                   values ($1, clock_timestamp(), $2)
                   on conflict (session_id) do update set launch_host = coalesce(r.launch_host, excluded.launch_host)
                   returning launch_host";
        Ok(sqlx::query_scalar(sql).bind(session_id).bind(host).fetch_one(self.pool()).await?)
    }

    /// The host that has the session's workspace.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn host_of_session(&self, session_id: &str) -> Result<Option<String>, StoreError> {
        let sql = "select launch_host from ambient.session_runtime where session_id = $1";
        let host: Option<Option<String>> = sqlx::query_scalar(sql).bind(session_id).fetch_optional(self.pool()).await?;
        Ok(host.flatten())
    }

    /// Revokes the tokens of all runs up to `run`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_tokens(&self, session_id: &str, run: i64) -> Result<(), StoreError> {
        let sql = "update ambient.session_runtime set revoked_run = greatest(revoked_run, $2) where session_id = $1";
        sqlx::query(sql).bind(session_id).bind(run).execute(self.pool()).await?;
        Ok(())
    }

    /// Highest run whose tokens are revoked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoked_run(&self, session_id: &str) -> Result<i64, StoreError> {
        let sql = "select revoked_run from ambient.session_runtime where session_id = $1";
        let run: Option<i64> = sqlx::query_scalar(sql).bind(session_id).fetch_optional(self.pool()).await?;
        Ok(run.unwrap_or(0))
    }

    /// When something last happened in the session, and the last seq of its log.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_activity(&self, session_id: &str) -> Result<(Option<DateTime<Utc>>, i64), StoreError> {
        // The seq is read first: activity after it makes an inactivity stop be refused, never the other way round.
        let seq = "select next_seq - 1 from ambient.session_streams where session_id = $1";
        let seq: Option<i64> = sqlx::query_scalar(seq).bind(session_id).fetch_optional(self.pool()).await?;
        let at = "select last_activity_at from ambient.session_runtime where session_id = $1";
        let at = sqlx::query_scalar(at).bind(session_id).fetch_optional(self.pool()).await?;
        Ok((at, seq.unwrap_or(0)))
    }

    /// How many sessions of a project still have (or may have) a workspace.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspaces_of_project(&self, project_id: &str) -> Result<i64, StoreError> {
        let sql = "select count(*) from ambient.sessions s left join ambient.session_runtime r on r.session_id = s.id
                   where s.project_id = $1 and r.workspace_deleted_at is null";
        Ok(sqlx::query_scalar(sql).bind(project_id).fetch_one(self.pool()).await?)
    }

    /// The session's workspace is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_workspace_deleted(&self, session_id: &str) -> Result<(), StoreError> {
        let sql = "update ambient.session_runtime set workspace_deleted_at = clock_timestamp() where session_id = $1";
        sqlx::query(sql).bind(session_id).execute(self.pool()).await?;
        Ok(())
    }

    /// Which of these sessions are deleted for good: their rows say so, their workspaces are gone, and none of their effects
    /// is left in the outbox, parked or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deleted_for_good(&self, session_ids: &[String]) -> Result<Vec<String>, StoreError> {
        let sql = "select s.id from ambient.sessions s join ambient.session_runtime r on r.session_id = s.id
                   where s.id = any($1) and s.deleted_at is not null and r.workspace_deleted_at is not null
                     and not exists (select from ambient.outbox o
                                     where o.entity_kind = 'session' and o.entity_id = s.id and o.done_at is null)
                   order by s.id";
        Ok(sqlx::query_scalar(sql).bind(session_ids).fetch_all(self.pool()).await?)
    }

    /// Sessions in Pending, Creating, Running or Stopping.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn active_session_ids(&self) -> Result<Vec<String>, StoreError> {
        let sql = "select id from ambient.sessions
                   where deleted_at is null and phase in ('Pending', 'Creating', 'Running', 'Stopping') order by id";
        Ok(sqlx::query_scalar(sql).fetch_all(self.pool()).await?)
    }

    /// Sessions in Creating or Running whose workspace is on `host`: each has a runner there, or will have one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sessions_running_on(&self, host: &str) -> Result<Vec<String>, StoreError> {
        let sql = "select s.id from ambient.sessions s join ambient.session_runtime r on r.session_id = s.id
                   where s.deleted_at is null and s.phase in ('Creating', 'Running') and r.launch_host = $1
                   order by s.id";
        Ok(sqlx::query_scalar(sql).bind(host).fetch_all(self.pool()).await?)
    }
}
