//! Whose packs the snapshot store holds, and which of a session's turns have some.

use ambient_domain::retention::{KEEP_LABEL, Retention};
use serde_json::{Value, json};
use sqlx::FromRow;

use crate::{database::Database, error::StoreError};

/// A session, as far as its packs are concerned.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct PackOwner {
    /// Session id.
    pub id: String,
    /// Its project's.
    pub project_id: String,
    /// It is deleted.
    pub is_deleted: bool,
    /// A run of it is underway.
    pub is_active: bool,
    /// Somebody wants it to be kept.
    pub is_kept: bool,
    /// What its project says about retention.
    #[sqlx(json(nullable))]
    pub retention: Option<Retention>,
}

impl Database {
    /// The sessions among these.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn pack_owners(&self, session_ids: &[String]) -> Result<Vec<PackOwner>, StoreError> {
        let sql = "select s.id, s.project_id, s.deleted_at is not null as is_deleted,
                          coalesce(s.phase in ('Pending', 'Creating', 'Running', 'Stopping'), false) as is_active,
                          s.labels @> $2 as is_kept, p.spec -> 'settings' -> 'retention' as retention
                   from ambient.sessions s left join ambient.projects p on p.id = s.project_id where s.id = any($1)";
        let (key, value) = KEEP_LABEL;
        Ok(sqlx::query_as(sql).bind(session_ids).bind(json!({ key: value })).fetch_all(self.pool()).await?)
    }

    /// Commits that packs of these sessions build on.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn pack_bases(&self, session_ids: &[String]) -> Result<Vec<String>, StoreError> {
        let sql =
            "select distinct p ->> 'base' from ambient.session_turns t, jsonb_array_elements(t.repos) r,
                          jsonb_path_query(r, '$.snapshot.packs[*]') p
                   where t.session_id = any($1) and p ->> 'base' is not null
             union select distinct r -> 'snapshot' ->> 'base' from ambient.session_turns t, jsonb_array_elements(t.repos) r
                   where t.session_id = any($1) and r -> 'snapshot' ->> 'base' is not null";
        Ok(sqlx::query_scalar(sql).bind(session_ids).fetch_all(self.pool()).await?)
    }

    /// What the newest turn before this one that has a snapshot of the repository says about repositories.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn turn_before(
        &self,
        session_id: &str,
        (run, number): (i64, i64),
        repo: &str,
    ) -> Result<Option<Value>, StoreError> {
        let sql = "select repos from ambient.session_turns
                   where session_id = $1 and (run, number) < ($2, $3)
                     and repos @> jsonb_build_array(jsonb_build_object('repo', $4::text, 'snapshot', '{}'::jsonb))
                   order by run desc, number desc limit 1";
        let query = sqlx::query_scalar(sql).bind(session_id).bind(run).bind(number).bind(repo);
        Ok(query.fetch_optional(self.pool()).await?)
    }

    /// Other compute hosts that have run sessions of this database; at most 10.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn other_hosts(&self, host: &str) -> Result<Vec<String>, StoreError> {
        let sql = "select distinct launch_host from ambient.session_runtime
                   where launch_host is not null and launch_host <> $1 order by 1 limit 10";
        Ok(sqlx::query_scalar(sql).bind(host).fetch_all(self.pool()).await?)
    }
}
