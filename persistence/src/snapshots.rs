//! Snapshots of live logs: written, read, and removed once a newer one is in place.

use serde_json::Value;
use sqlx::FromRow;

use crate::{database::Database, error::StoreError};

/// A session's messages in one piece.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Snapshot {
    /// Covers everything up to this seq.
    pub covers_seq: i64,
    /// Payload of a MESSAGES_SNAPSHOT.
    pub data: Value,
}

impl Database {
    /// Stores a snapshot; a second one for the same seq changes nothing.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn put_snapshot(&self, session_id: &str, covers_seq: i64, data: &Value) -> Result<(), StoreError> {
        let sql =
            "insert into ambient.snapshots (session_id, covers_seq, data) values ($1, $2, $3) on conflict do nothing";
        sqlx::query(sql).bind(session_id).bind(covers_seq).bind(data).execute(self.pool()).await?;
        Ok(())
    }

    /// The newest snapshot.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn latest_snapshot(&self, session_id: &str) -> Result<Option<Snapshot>, StoreError> {
        let sql =
            "select covers_seq, data from ambient.snapshots where session_id = $1 order by covers_seq desc limit 1";
        Ok(sqlx::query_as(sql).bind(session_id).fetch_optional(self.pool()).await?)
    }

    /// The newest snapshot as JSON text, with the seq it covers: for readers that only pass it on.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn latest_snapshot_json(&self, session_id: &str) -> Result<Option<(i64, String)>, StoreError> {
        let sql = "select covers_seq, data::text from ambient.snapshots where session_id = $1
                   order by covers_seq desc limit 1";
        Ok(sqlx::query_as(sql).bind(session_id).fetch_optional(self.pool()).await?)
    }

    /// The seq that the newest snapshot covers.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn snapshot_seq(&self, session_id: &str) -> Result<Option<i64>, StoreError> {
        let sql = "select max(covers_seq) from ambient.snapshots where session_id = $1";
        Ok(sqlx::query_scalar(sql).bind(session_id).fetch_one(self.pool()).await?)
    }

    /// Deletes the snapshots that cover less than `covers_seq`; returns how many there were. Concurrent readers still see a complete one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn delete_snapshots_below(&self, session_id: &str, covers_seq: i64) -> Result<u64, StoreError> {
        let sql = "delete from ambient.snapshots where session_id = $1 and covers_seq < $2";
        let deleted = sqlx::query(sql).bind(session_id).bind(covers_seq).execute(self.pool()).await?;
        Ok(deleted.rows_affected())
    }
}
