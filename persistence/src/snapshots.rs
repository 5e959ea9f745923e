//! Snapshots of live logs beyond writing one: read as text, and cleared away when a newer one stands.

use crate::{database::Database, error::StoreError};

impl Database {
    /// The newest snapshot as JSON text, with the seq it covers: for readers that only pass it on.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn latest_snapshot_json(&self, session_id: &str) -> Result<Option<(i64, String)>, StoreError> {
        let sql = "select covers_seq, data::text from ambient.snapshots where session_id = $1
                   order by covers_seq desc limit 1";
        Ok(sqlx::query_as(sql).bind(session_id).fetch_optional(self.pool()).await?)
    }

    /// Deletes the snapshots that cover less than `covers_seq`; how many there were. Those who read one meanwhile see it whole.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn delete_snapshots_below(&self, session_id: &str, covers_seq: i64) -> Result<u64, StoreError> {
        let sql = "delete from ambient.snapshots where session_id = $1 and covers_seq < $2";
        let deleted = sqlx::query(sql).bind(session_id).bind(covers_seq).execute(self.pool()).await?;
        Ok(deleted.rows_affected())
    }
}
