//! What sessions' playbooks have, as their runners have read it.

use serde_json::Value;

use crate::{database::Database, error::StoreError};

impl Database {
    /// Keeps what the session's playbook has at a commit, in place of what was kept.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn put_playbook(&self, session_id: &str, commit: &str, metadata: &Value) -> Result<(), StoreError> {
        let sql = "insert into ambient.playbooks (session_id, commit, metadata) values ($1, $2, $3)
                   on conflict (session_id) do update set commit = excluded.commit, metadata = excluded.metadata
                   where (playbooks.commit, playbooks.metadata) is distinct from (excluded.commit, excluded.metadata)";
        sqlx::query(sql).bind(session_id).bind(commit).bind(metadata).execute(self.pool()).await?;
        Ok(())
    }

    /// What the session's playbook has at a commit; none if something else is kept.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn playbook(&self, session_id: &str, commit: &str) -> Result<Option<Value>, StoreError> {
        let sql = "select metadata from ambient.playbooks where session_id = $1 and commit = $2";
        Ok(sqlx::query_scalar(sql).bind(session_id).bind(commit).fetch_optional(self.pool()).await?)
    }

    /// Removes what is kept for a session.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_playbook(&self, session_id: &str) -> Result<(), StoreError> {
        sqlx::query("delete from ambient.playbooks where session_id = $1")
            .bind(session_id)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
