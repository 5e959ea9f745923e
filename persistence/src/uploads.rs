//! Files that people hand in while no run of a session is underway: they wait here until a runner has them.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::{FromRow, Row};

use crate::{begin::begin, database::Database, error::StoreError};

/// Most files of a session that wait, and bytes of them together.
pub const MAX_UPLOADS: i64 = 200;
/// See [`MAX_UPLOADS`].
pub const MAX_UPLOADED: i64 = 64 << 20;

/// A file that waits.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UploadRow {
    /// In the workspace, in the form of names that may be no UTF-8.
    pub path: String,
    /// Bytes.
    pub size: i64,
    /// Of its content, hex.
    pub sha256: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// Principal.
    pub uploaded_by: String,
    /// By the database's clock.
    pub uploaded_at: DateTime<Utc>,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uploaded {
    /// It waits.
    Stored {
        /// As it waits.
        row: UploadRow,
        /// There was none of that path.
        created: bool,
    },
    /// A run is underway, or the session is gone.
    Underway,
    /// This file waits, and one of the two would be a folder.
    InTheWay(String),
    /// The session has as many files waiting as it may have.
    TooMany,
    /// They would be larger together than they may be.
    TooLarge,
}

const COLUMNS: &str = "path, octet_length(content)::int8 as size, sha256, executable, uploaded_by, uploaded_at";

impl Database {
    /// Keeps a file until the session's next run has it; one of the same path is replaced.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn put_upload(
        &self,
        session_id: &str,
        (path, executable): (&str, bool),
        content: &[u8],
        by: &str,
    ) -> Result<Uploaded, StoreError> {
        let mut tx = begin(self.pool(), "begin").await?;
        // Held until the end: a start that commits meanwhile would not see the file, and other uploads would not be counted.
        let sql = "select 1 from ambient.sessions where id = $1 and deleted_at is null
                   and coalesce(phase, 'Stopped') in ('Stopped', 'Completed', 'Failed') for no key update";
        if sqlx::query(sql).bind(session_id).fetch_optional(&mut *tx).await?.is_none() {
            return Ok(Uploaded::Underway);
        }
        let sql = "select path from ambient.uploads where session_id = $1
                   and (starts_with(path, $2 || '/') or starts_with($2, path || '/')) limit 1";
        let in_the_way = sqlx::query_scalar(sql).bind(session_id).bind(path).fetch_optional(&mut *tx).await?;
        if let Some(other) = in_the_way {
            return Ok(Uploaded::InTheWay(other));
        }
        let sql = "select count(*) as files, coalesce(sum(octet_length(content)), 0)::int8 as bytes
                   from ambient.uploads where session_id = $1 and path <> $2";
        let others = sqlx::query(sql).bind(session_id).bind(path).fetch_one(&mut *tx).await?;
        let size = i64::try_from(content.len()).unwrap_or(i64::MAX);
        if others.try_get::<i64, _>("files")? >= MAX_UPLOADS {
            return Ok(Uploaded::TooMany);
        }
        if others.try_get::<i64, _>("bytes")?.saturating_add(size) > MAX_UPLOADED {
            return Ok(Uploaded::TooLarge);
        }
        let sha256: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = "insert into ambient.uploads as u (session_id, path, content, sha256, executable, uploaded_by)
                   values ($1, $2, $3, $4, $5, $6)
                   on conflict (session_id, path) do update set content = excluded.content, sha256 = excluded.sha256,
                       executable = excluded.executable, uploaded_by = excluded.uploaded_by, uploaded_at = now()
                   returning xmax = 0 as created, uploaded_at";
        let query = sqlx::query(sql).bind(session_id).bind(path).bind(content).bind(&sha256).bind(executable).bind(by);
        let stored = query.fetch_one(&mut *tx).await?;
        let (created, uploaded_at) = (stored.try_get("created")?, stored.try_get("uploaded_at")?);
        tx.commit().await?;
        let row =
            UploadRow { path: path.to_owned(), size, sha256, executable, uploaded_by: by.to_owned(), uploaded_at };
        Ok(Uploaded::Stored { row, created })
    }

    /// The files that wait, by path.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn uploads(&self, session_id: &str) -> Result<Vec<UploadRow>, StoreError> {
        let sql = format!("select {COLUMNS} from ambient.uploads where session_id = $1 order by path limit $2");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(session_id).bind(MAX_UPLOADS);
        Ok(query.fetch_all(self.pool()).await?)
    }

    /// A file's content, if it is still the one with this hash.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn upload(&self, session_id: &str, path: &str, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "select content from ambient.uploads where session_id = $1 and path = $2 and sha256 = $3";
        let query = sqlx::query_scalar(sql).bind(session_id).bind(path).bind(sha256);
        Ok(query.fetch_optional(self.pool()).await?)
    }

    /// Removes a file, if it is still the one with this hash where one is given; whether there was one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_upload(&self, session_id: &str, path: &str, sha256: Option<&str>) -> Result<bool, StoreError> {
        let sql =
            "delete from ambient.uploads where session_id = $1 and path = $2 and ($3::text is null or sha256 = $3)";
        let removed = sqlx::query(sql).bind(session_id).bind(path).bind(sha256).execute(self.pool()).await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Removes all of a session's.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_uploads(&self, session_id: &str) -> Result<(), StoreError> {
        let sql = "delete from ambient.uploads where session_id = $1";
        sqlx::query(sql).bind(session_id).execute(self.pool()).await?;
        Ok(())
    }
}
