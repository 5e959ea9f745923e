//! Entities from their rows, and from their operations at any version.

use ambient_domain::{Entity, project::Project, session::Session};
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row, postgres::PgRow};

use crate::{database::Database, entity::StoredEntity, error::StoreError};

/// Columns that an entity is read from.
pub(crate) const STATE: &str = "t.id, t.schema_version, t.state";

/// An entity from its row.
pub(crate) fn from_row<E: StoredEntity>(row: &PgRow) -> Result<E, StoreError> {
    let (id, found): (String, i32) = (row.try_get("id")?, row.try_get("schema_version")?);
    if found > E::SCHEMA_VERSION {
        return Err(StoreError::UnknownSchemaVersion { kind: E::KIND, id, found, known: E::SCHEMA_VERSION });
    }
    serde_json::from_value(row.try_get("state")?).map_err(|e| StoreError::corrupt(format!("{} {id}", E::KIND), &e))
}

/// One operation's events, onto a state.
pub(crate) fn replay<E: Entity>(
    state: Option<E>,
    version: i64,
    events: &[u8],
    at: DateTime<Utc>,
) -> Result<Option<E>, serde_json::Error> {
    let events: Vec<E::Event> = serde_json::from_slice(events)?;
    let mut state = events.iter().fold(state, |state, event| Some(E::apply(state, event, at)));
    if let Some(state) = &mut state {
        state.set_version(version, at);
    }
    Ok(state)
}

impl Database {
    /// An entity, also a deleted one.
    ///
    /// # Errors
    /// When the database cannot be reached, or the row was written by a newer release.
    pub async fn load<E: StoredEntity>(&self, id: &str) -> Result<Option<E>, StoreError> {
        let sql = format!("select {STATE} from {} t where t.id = $1", E::TABLE.name);
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(self.pool()).await?;
        row.as_ref().map(from_row).transpose()
    }

    /// Version of an entity.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn current_version<E: StoredEntity>(&self, id: &str) -> Result<Option<i64>, StoreError> {
        let sql = format!("select version from {} where id = $1", E::TABLE.name);
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(id).fetch_optional(self.pool()).await?)
    }

    /// An entity as it was at a version, from its operations. None when there is no such version.
    ///
    /// # Errors
    /// When the database cannot be reached or an operation cannot be read.
    pub async fn load_at<E: StoredEntity>(&self, id: &str, version: i64) -> Result<Option<E>, StoreError> {
        let sql = "select version, schema_version, events, occurred_at from ambient.operations
                   where entity_kind = $1 and entity_id = $2 and version <= $3 order by version";
        let rows = sqlx::query(sql).bind(E::KIND).bind(id).bind(version).fetch_all(self.pool()).await?;
        let mut state: Option<E> = None;
        for row in &rows {
            let (version, found): (i64, i32) = (row.try_get("version")?, row.try_get("schema_version")?);
            if found > E::SCHEMA_VERSION {
                let id = id.to_owned();
                return Err(StoreError::UnknownSchemaVersion { kind: E::KIND, id, found, known: E::SCHEMA_VERSION });
            }
            let events: Vec<u8> = row.try_get("events")?;
            state = replay(state, version, &events, row.try_get("occurred_at")?)
                .map_err(|e| StoreError::corrupt(format!("operation {version} of {} {id}", E::KIND), &e))?;
        }
        Ok(state.filter(|state| state.version() == version))
    }

    /// An entity as it was at a time. None when it did not exist yet.
    ///
    /// # Errors
    /// When the database cannot be reached or an operation cannot be read.
    pub async fn load_at_time<E: StoredEntity>(&self, id: &str, at: DateTime<Utc>) -> Result<Option<E>, StoreError> {
        let sql = "select max(version) from ambient.operations
                   where entity_kind = $1 and entity_id = $2 and occurred_at <= $3";
        let version: Option<i64> =
            sqlx::query_scalar(sql).bind(E::KIND).bind(id).bind(at).fetch_one(self.pool()).await?;
        match version {
            Some(version) => self.load_at(id, version).await,
            None => Ok(None),
        }
    }

    /// Entities of a kind in a project that are not deleted: `limit` of them after an id, for work in pages.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ids_of_project<E: StoredEntity>(
        &self,
        project_id: &str,
        after_id: &str,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "select id from {} where project_id = $1 and deleted_at is null and id > $2 order by id limit $3",
            E::TABLE.name
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(project_id).bind(after_id).bind(limit);
        Ok(query.fetch_all(self.pool()).await?)
    }

    /// A project by name, if it is not deleted, else by id. A name may look like an id, but cannot be one of our time: a name begins
    /// with a small letter, and ids sort by time with digits and capitals first.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn project_by_id_or_name(&self, id_or_name: &str) -> Result<Option<Project>, StoreError> {
        if id_or_name.contains('\0') {
            return Ok(None);
        }
        let sql = format!(
            "select {STATE} from ambient.projects t
             where t.id = $1 or (t.name = $1 and t.deleted_at is null) order by (t.name = $1 and t.deleted_at is null) desc limit 1"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id_or_name).fetch_optional(self.pool()).await?;
        row.as_ref().map(from_row).transpose()
    }

    /// A session, if it is in this project. Deleted ones included.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn session_in_project(&self, project_id: &str, id: &str) -> Result<Option<Session>, StoreError> {
        if id.contains('\0') {
            return Ok(None);
        }
        let session: Option<Session> = self.load(id).await?;
        Ok(session.filter(|session| session.project_id == project_id))
    }

    /// Ids of sessions that are underway (Pending, Creating, Running, Stopping), after an id, for sweeps in pages.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn sessions_underway(&self, after_id: &str, limit: i64) -> Result<Vec<Session>, StoreError> {
        let sql = format!(
            "select {STATE} from ambient.sessions t where t.deleted_at is null
               and t.phase in ('Pending', 'Creating', 'Running', 'Stopping') and t.id > $1 order by t.id limit $2"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(after_id).bind(limit).fetch_all(self.pool()).await?;
        rows.iter().map(from_row).collect()
    }
}
