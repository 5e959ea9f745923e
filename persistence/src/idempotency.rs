//! Repeatable requests: what was answered under (principal, method, path, key), for 24 hours.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{canonical, database::Database, entity::StoredEntity, error::StoreError};

/// What identifies a request.
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

/// The result of a command; refusals are not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordedOutcome {
    /// With an operation.
    Applied,
    /// It was already so.
    Already,
}

impl RecordedOutcome {
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
    /// The operation; none if there was nothing to do.
    pub operation_id: Option<String>,
    /// How it came out.
    pub outcome: RecordedOutcome,
    entity_kind: &'static str,
    entity_id: String,
    version: i64,
}

/// A remembered answer.
#[derive(Debug, Clone)]
pub struct StoredOutcome<E> {
    /// Hash of the first request's body; a different one means the key is misused.
    pub request_hash: Vec<u8>,
    /// The operation; none if there was nothing to do.
    pub operation_id: Option<String>,
    /// How it came out.
    pub outcome: RecordedOutcome,
    /// The entity as it was returned; none if the key was used for another kind of entity.
    pub state: Option<E>,
}

impl IdempotencyRecord {
    /// A record whose response is `state`.
    ///
    /// # Errors
    /// NUL in a text.
    pub fn new<E: StoredEntity>(
        key: IdempotencyKey,
        request_hash: Vec<u8>,
        operation_id: Option<String>,
        outcome: RecordedOutcome,
        state: &E,
    ) -> Result<Self, StoreError> {
        for (field, text) in
            [("principal", &key.principal), ("method", &key.method), ("path", &key.path), ("Idempotency-Key", &key.key)]
        {
            canonical::text(field, text)?;
        }
        Ok(Self {
            key,
            request_hash,
            operation_id,
            outcome,
            entity_kind: E::KIND,
            entity_id: state.id().to_owned(),
            version: state.version(),
        })
    }

    /// Writes it; false if the key is in use. A record older than 24 hours counts as gone.
    pub(crate) async fn insert(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(AssertSqlSafe(format!(
            "insert into ambient.idempotency as i ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) {UNLESS_IN_USE}"
        )))
        .bind(&self.key.principal)
        .bind(&self.key.method)
        .bind(&self.key.path)
        .bind(&self.key.key)
        .bind(&self.request_hash)
        .bind(&self.operation_id)
        .bind(self.outcome.as_str())
        .bind(self.entity_kind)
        .bind(&self.entity_id)
        .bind(self.version)
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether the key is in use.
    pub(crate) async fn is_used(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let sql = "select exists (select from ambient.idempotency where principal = $1 and method = $2 and path = $3
                   and key = $4 and created_at >= now() - interval '24 hours')";
        let query = sqlx::query_scalar(sql).bind(&self.key.principal).bind(&self.key.method).bind(&self.key.path);
        query.bind(&self.key.key).fetch_one(connection).await
    }
}

const COLUMNS: &str =
    "principal, method, path, key, request_hash, operation_id, outcome, entity_kind, entity_id, version";
const UNLESS_IN_USE: &str =
    "on conflict (principal, method, path, key) do update set request_hash = excluded.request_hash,
    operation_id = excluded.operation_id, outcome = excluded.outcome, entity_kind = excluded.entity_kind,
    entity_id = excluded.entity_id, version = excluded.version, created_at = now()
    where i.created_at < now() - interval '24 hours'";

/// Condition on a part `k` of an append: it has no key, or one that is not in use.
pub(crate) const UNUSED: &str = " and (k.key is null or not exists (select from ambient.idempotency i
    where i.principal = k.principal and i.method = k.method and i.path = k.path and i.key = k.key
      and i.created_at >= now() - interval '24 hours'))";

/// Writes the records of the parts in `changed` that have a key which is not in use.
pub(crate) fn insert_sql(kind: &str) -> String {
    format!(
        "insert into ambient.idempotency as i ({COLUMNS})
         select principal, method, path, key, request_hash, operation_id, 'applied', '{kind}', id, version
         from changed where key is not null {UNLESS_IN_USE}"
    )
}

impl Database {
    /// What was answered to a request before.
    ///
    /// # Errors
    /// When the database cannot be reached or the record cannot be read.
    pub async fn stored_outcome<E: StoredEntity>(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<StoredOutcome<E>>, StoreError> {
        let sql = "select request_hash, operation_id, outcome, entity_kind, entity_id, version from ambient.idempotency
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
        let (id, version): (String, i64) = (row.try_get("entity_id")?, row.try_get("version")?);
        let outcome = match row.try_get::<String, _>("outcome")?.as_str() {
            "already" => RecordedOutcome::Already,
            _ => RecordedOutcome::Applied,
        };
        Ok(Some(StoredOutcome {
            request_hash: row.try_get("request_hash")?,
            operation_id: row.try_get("operation_id")?,
            outcome,
            state: if same_kind { self.state_at(&id, version).await? } else { None },
        }))
    }

    /// The entity at a version: nearly always the one in its row.
    async fn state_at<E: StoredEntity>(&self, id: &str, version: i64) -> Result<Option<E>, StoreError> {
        match self.load::<E>(id).await? {
            Some(state) if state.version() == version => Ok(Some(state)),
            _ => self.load_at(id, version).await,
        }
    }

    /// Remembers a response that has no operation. False if the key is in use.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remember_outcome(&self, record: &IdempotencyRecord) -> Result<bool, StoreError> {
        let mut connection = self.pool().acquire().await?;
        Ok(record.insert(&mut connection).await?)
    }

    /// Removes what has expired: idempotency records after 24 hours, outbox rows 7 days after they were done. At most
    /// `limit` rows of each in a transaction, and `batches` of them; returns how many. Rows that another server is removing are passed over.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn purge_expired(&self, limit: u32, batches: u32) -> Result<u64, StoreError> {
        let records = "delete from ambient.idempotency where ctid = any(array(select ctid from ambient.idempotency
                       where created_at < now() - interval '24 hours' limit $1 for update skip locked))";
        let outbox = "delete from ambient.outbox where position = any(array(select position from ambient.outbox
                      where done_at < now() - interval '7 days' limit $1 for update skip locked))";
        let mut removed = 0;
        for sql in [records, outbox] {
            for _ in 0..batches {
                let some = sqlx::query(sql).bind(i64::from(limit)).execute(self.pool()).await?.rows_affected();
                removed += some;
                if some < u64::from(limit) {
                    break;
                }
            }
        }
        Ok(removed)
    }
}
