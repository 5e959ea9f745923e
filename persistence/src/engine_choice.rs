//! Which engine runs this database's workflows. Chosen by its first server, changed only when nothing is open.

use sqlx::Row as _;

use crate::{Database, StoreError};

/// The choice, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineChoice {
    /// `embedded` or `temporal`.
    pub engine: String,
    /// With Temporal: the namespace's name; else empty.
    pub namespace: String,
    /// With Temporal: the namespace's id, once a server has seen it; else empty.
    pub namespace_id: String,
    /// Whether starting new work is disabled.
    pub draining: bool,
}

/// Effects that have not been carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenEffects {
    /// How many.
    pub count: i64,
    /// Workflow ids of the oldest ones.
    pub examples: Vec<String>,
}

impl Database {
    /// The choice; `engine` with `namespace` if there is none yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn engine_choice(&self, engine: &str, namespace: &str) -> Result<EngineChoice, StoreError> {
        let sql = "insert into ambient.engine_choice (engine, namespace) values ($1, $2) on conflict do nothing";
        sqlx::query(sql).bind(engine).bind(namespace).execute(self.pool()).await?;
        self.chosen_engine().await?.ok_or_else(|| StoreError::from(sqlx::Error::RowNotFound))
    }

    /// The choice, if one has been made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn chosen_engine(&self) -> Result<Option<EngineChoice>, StoreError> {
        let sql = "select engine, namespace, namespace_id, draining from ambient.engine_choice";
        let Some(row) = sqlx::query(sql).fetch_optional(self.pool()).await? else { return Ok(None) };
        Ok(Some(EngineChoice {
            engine: row.try_get("engine")?,
            namespace: row.try_get("namespace")?,
            namespace_id: row.try_get("namespace_id")?,
            draining: row.try_get("draining")?,
        }))
    }

    /// Replaces `before` by another choice; `false` if it is no longer the stored one, or an effect is open.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change_engine(
        &self,
        before: &EngineChoice,
        engine: &str,
        namespace: &str,
    ) -> Result<bool, StoreError> {
        let sql = "update ambient.engine_choice set engine = $1, namespace = $2, namespace_id = '', draining = false,
                       chosen_at = clock_timestamp()
                   where engine = $3 and namespace = $4 and namespace_id = $5
                     and not exists (select from ambient.outbox where done_at is null)";
        let change = sqlx::query(sql).bind(engine).bind(namespace);
        let change = change.bind(&before.engine).bind(&before.namespace).bind(&before.namespace_id);
        Ok(change.execute(self.pool()).await?.rows_affected() == 1)
    }

    /// Records the id of Temporal's namespace if none is recorded; returns the recorded one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_namespace(&self, id: &str) -> Result<String, StoreError> {
        let sql =
            "update ambient.engine_choice set namespace_id = case when namespace_id = '' then $1 else namespace_id end
                   where engine = 'temporal' returning namespace_id";
        let noted: Option<String> = sqlx::query_scalar(sql).bind(id).fetch_optional(self.pool()).await?;
        Ok(noted.unwrap_or_default())
    }

    /// Disables or re-enables new starts; `false` if no server has chosen an engine yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_draining(&self, draining: bool) -> Result<bool, StoreError> {
        let sql = "update ambient.engine_choice set draining = $1";
        Ok(sqlx::query(sql).bind(draining).execute(self.pool()).await?.rows_affected() == 1)
    }

    /// Whether starting new work is disabled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_draining(&self) -> Result<bool, StoreError> {
        let sql = "select exists (select from ambient.engine_choice where draining)";
        Ok(sqlx::query_scalar(sql).fetch_one(self.pool()).await?)
    }

    /// Effects that have not been carried out, including parked ones: their number, and the oldest `limit` by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_effects(&self, limit: i64) -> Result<OpenEffects, StoreError> {
        let sql = "select count(*) from ambient.outbox where done_at is null";
        let count = sqlx::query_scalar(sql).fetch_one(self.pool()).await?;
        let sql = "select workflow_id from ambient.outbox where done_at is null order by position limit $1";
        let examples = sqlx::query_scalar(sql).bind(limit).fetch_all(self.pool()).await?;
        Ok(OpenEffects { count, examples })
    }
}
