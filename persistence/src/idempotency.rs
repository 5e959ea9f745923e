//! Requests that can be repeated: what was answered under (principal, method, path, key), for 24 hours.

use sqlx::{AssertSqlSafe, PgConnection, Row, types::Json};

use crate::{canonical, database::Database, entity::StoredEntity, error::StoreError};

/// What a request is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdempotencyKey {
    /// Who asked.
    pub principal: String,
    /// HTTP method.
    pub method: String,
    /// Concrete path.
    pub path: String,
    /// Value of `Idempotency-Key`.
    pub key: String,
}

/// How a command came out; refusals are not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an operation.
    Applied,
    /// It was so already.
    Already,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Already => "already",
        }
    }
}

/// What is remembered.
#[derive(Debug, Clone)]
pub struct IdempotencyRecord {
    /// The request.
    pub key: IdempotencyKey,
    /// Hash of its body.
    pub request_hash: Vec<u8>,
    /// The operation; none when there was nothing to do.
    pub operation_id: Option<String>,
    /// How it came out.
    pub outcome: Outcome,
    entity_kind: &'static str,
    entity_id: String,
    version: i64,
    state: serde_json::Value,
}

/// A remembered answer.
#[derive(Debug, Clone)]
pub struct StoredOutcome<E> {
    /// Hash of the first request's body; another one is a misuse of the key.
    pub request_hash: Vec<u8>,
    /// The operation; none when there was nothing to do.
    pub operation_id: Option<String>,
    /// How it came out.
    pub outcome: Outcome,
    /// The entity as it was answered; none when the key was used for another kind of entity.
    pub state: Option<E>,
}

impl IdempotencyRecord {
    /// A record that answers with `state`.
    ///
    /// # Errors
    /// NUL in a text.
    pub fn new<E: StoredEntity>(
        key: IdempotencyKey,
        request_hash: Vec<u8>,
        operation_id: Option<String>,
        outcome: Outcome,
        state: &E,
    ) -> Result<Self, StoreError> {
        for (field, text) in
            [("principal", &key.principal), ("method", &key.method), ("path", &key.path), ("Idempotency-Key", &key.key)]
        {
            canonical::text(field, text)?;
        }
        let json = serde_json::to_value(state).map_err(|_| StoreError::Unfaithful { field: "state" })?;
        Ok(Self {
            key,
            request_hash,
            operation_id,
            outcome,
            entity_kind: E::KIND,
            entity_id: state.id().to_owned(),
            version: state.version(),
            state: json,
        })
    }

    /// Writes it; false when the key is in use. A record older than 24 hours counts as gone.
    pub(crate) async fn insert(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let sql = insert_sql("$1", "true");
        let done = sqlx::query(AssertSqlSafe(sql)).bind(Json(vec![self.row()])).execute(connection).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Its row, without `created_at`.
    pub(crate) fn row(&self) -> serde_json::Value {
        serde_json::json!({
            "principal": self.key.principal,
            "method": self.key.method,
            "path": self.key.path,
            "key": self.key.key,
            "request_hash": format!("\\x{}", canonical::hex(&self.request_hash)),
            "operation_id": self.operation_id,
            "outcome": self.outcome.as_str(),
            "entity_kind": self.entity_kind,
            "entity_id": self.entity_id,
            "version": self.version,
            "state": self.state,
        })
    }
}

/// Writes the records in `rows` (a parameter: array of [`IdempotencyRecord::row`]) whose key is not in use, if `condition` holds.
pub(crate) fn insert_sql(rows: &str, condition: &str) -> String {
    let columns =
        "principal, method, path, key, request_hash, operation_id, outcome, entity_kind, entity_id, version, state";
    format!(
        "insert into ambient.idempotency as i ({columns})
         select {columns} from jsonb_populate_recordset(null::ambient.idempotency, {rows}) where {condition}
         on conflict (principal, method, path, key) do update set request_hash = excluded.request_hash,
             operation_id = excluded.operation_id, outcome = excluded.outcome, entity_kind = excluded.entity_kind,
             entity_id = excluded.entity_id, version = excluded.version, state = excluded.state, created_at = now()
         where i.created_at < now() - interval '24 hours'"
    )
}

impl Database {
    /// What was answered to a request before.
    ///
    /// # Errors
    /// When the database cannot be reached or the answer cannot be read.
    pub async fn stored_outcome<E: StoredEntity>(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<StoredOutcome<E>>, StoreError> {
        let sql = "select request_hash, operation_id, outcome, entity_kind, state from ambient.idempotency
                   where principal = $1 and method = $2 and path = $3 and key = $4
                     and created_at >= now() - interval '24 hours'";
        let row = sqlx::query(sql)
            .bind(&key.principal)
            .bind(&key.method)
            .bind(&key.path)
            .bind(&key.key)
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let same_kind = row.try_get::<String, _>("entity_kind")? == E::KIND;
        let read = |json| serde_json::from_value(json).map_err(|e| StoreError::corrupt("idempotency record", &e));
        let outcome = match row.try_get::<String, _>("outcome")?.as_str() {
            "already" => Outcome::Already,
            _ => Outcome::Applied,
        };
        Ok(Some(StoredOutcome {
            request_hash: row.try_get("request_hash")?,
            operation_id: row.try_get("operation_id")?,
            outcome,
            state: if same_kind { Some(read(row.try_get("state")?)?) } else { None },
        }))
    }

    /// Remembers an answer that has no operation. False when the key is in use.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remember_outcome(&self, record: &IdempotencyRecord) -> Result<bool, StoreError> {
        let mut connection = self.pool().acquire().await?;
        Ok(record.insert(&mut connection).await?)
    }

    /// Removes what has had its time: idempotency records after 24 hours, outbox rows 7 days after they were done. At most
    /// `limit` rows of each; returns how many.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn purge_expired(&self, limit: i64) -> Result<u64, StoreError> {
        let records = "delete from ambient.idempotency where ctid = any(array(select ctid from ambient.idempotency
                       where created_at < now() - interval '24 hours' limit $1))";
        let outbox = "delete from ambient.outbox where position = any(array(select position from ambient.outbox
                      where done_at < now() - interval '7 days' limit $1))";
        let mut removed = 0;
        for sql in [records, outbox] {
            removed += sqlx::query(sql).bind(limit).execute(self.pool()).await?.rows_affected();
        }
        Ok(removed)
    }
}
