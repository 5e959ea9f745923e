//! Entities from their rows, and from their operations at any version.

use std::ops::Deref;

use ambient_domain::{Entity, project::Project, session::Session};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row, postgres::PgRow};

use crate::{canonical::Hash, database::Database, entity::StoredEntity, error::StoreError};

/// Operations read per query.
const PAGE: i64 = 500;

/// Columns that an entity is read from.
pub(crate) const STATE: &str = "t.id, t.schema_version, t.state, t.spec";
/// Columns that an entity to be changed is read from.
pub(crate) const CURRENT: &str = "t.id, t.schema_version, t.state, t.spec, t.last_hash";

/// An entity as in its row, with what the next operation builds on.
#[derive(Debug, Clone, PartialEq)]
pub struct Current<E> {
    /// The entity.
    pub state: E,
    /// Hash of its last operation.
    pub last_hash: Hash,
}

impl<E> Deref for Current<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.state
    }
}

/// An entity from its row, to be changed.
pub(crate) fn current_from_row<E: StoredEntity>(row: &PgRow) -> Result<Current<E>, StoreError> {
    let last_hash: Vec<u8> = row.try_get("last_hash")?;
    let last_hash = last_hash.try_into().map_err(|_| StoreError::corrupt("last_hash", &"it has not 32 bytes"))?;
    Ok(Current { state: from_row(row)?, last_hash })
}

/// An entity from its row.
pub(crate) fn from_row<E: StoredEntity>(row: &PgRow) -> Result<E, StoreError> {
    let (id, found): (String, i32) = (row.try_get("id")?, row.try_get("schema_version")?);
    if found > E::SCHEMA_VERSION {
        return Err(StoreError::UnknownSchemaVersion { kind: E::KIND, id, found, known: E::SCHEMA_VERSION });
    }
    let mut state: Value = row.try_get("state")?;
    if let (Some(spec), Some(state)) = (row.try_get::<Option<Value>, _>("spec")?, state.as_object_mut()) {
        state.insert("spec".to_owned(), spec);
    }
    serde_json::from_value(state).map_err(|e| StoreError::corrupt(format!("{} {id}", E::KIND), &e))
}

/// Applies one operation's events to a state.
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

/// A state after the operation in `row`.
fn next<E: Entity>(state: Option<E>, id: &str, row: &PgRow) -> Result<Option<E>, StoreError> {
    let (version, found): (i64, i32) = (row.try_get("version")?, row.try_get("schema_version")?);
    if found > E::SCHEMA_VERSION {
        let id = id.to_owned();
        return Err(StoreError::UnknownSchemaVersion { kind: E::KIND, id, found, known: E::SCHEMA_VERSION });
    }
    let events: Vec<u8> = row.try_get("events")?;
    replay(state, version, &events, row.try_get("occurred_at")?)
        .map_err(|e| StoreError::corrupt(format!("operation {version} of {} {id}", E::KIND), &e))
}

impl Database {
    /// An entity, even if deleted.
    ///
    /// # Errors
    /// When the database cannot be reached, or the row was written by a newer release.
    pub async fn load<E: StoredEntity>(&self, id: &str) -> Result<Option<E>, StoreError> {
        let sql = format!("select {STATE} from {} t where t.id = $1", E::TABLE.name);
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(self.pool()).await?;
        row.as_ref().map(from_row).transpose()
    }

    /// An entity to be changed, even if deleted.
    ///
    /// # Errors
    /// Same as [`Database::load`].
    pub async fn load_current<E: StoredEntity>(&self, id: &str) -> Result<Option<Current<E>>, StoreError> {
        let sql = format!("select {CURRENT} from {} t where t.id = $1", E::TABLE.name);
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(self.pool()).await?;
        row.as_ref().map(current_from_row).transpose()
    }

    /// Version of an entity.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn current_version<E: StoredEntity>(&self, id: &str) -> Result<Option<i64>, StoreError> {
        let sql = format!("select version from {} where id = $1", E::TABLE.name);
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(id).fetch_optional(self.pool()).await?)
    }

    /// An entity as it was at a version, from its operations. None if there is no such version.
    ///
    /// # Errors
    /// When the database cannot be reached or an operation cannot be read.
    pub async fn load_at<E: StoredEntity>(&self, id: &str, version: i64) -> Result<Option<E>, StoreError> {
        let sql = "select version, schema_version, events, occurred_at from ambient.operations
                   where entity_kind = $1 and entity_id = $2 and version > $3 and version <= $4 order by version limit $5";
        let mut state: Option<E> = None;
        // In pages: an entity may have any number of operations.
        loop {
            let after = state.as_ref().map_or(0, E::version);
            let query = sqlx::query(sql).bind(E::KIND).bind(id).bind(after).bind(version).bind(PAGE);
            let rows = query.fetch_all(self.pool()).await?;
            for row in &rows {
                state = next(state, id, row)?;
            }
            if i64::try_from(rows.len()).is_ok_and(|read| read < PAGE) {
                return Ok(state.filter(|state| state.version() == version));
            }
        }
    }

    /// An entity as it was at a time. None if it did not exist yet.
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

    /// Entities of a kind in a project that are not deleted: `limit` of them after an id, for paging.
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

    /// A project by name, if it is not deleted, else by id. A name may look like an id, but cannot equal one made these days: names start
    /// with a lowercase letter, and ids sort by time with digits and capitals first.
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

    /// A session, if it is in this project, even if deleted.
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

    /// Ids of sessions that are underway (Pending, Creating, Running, Stopping), after an id, for sweeping in pages.
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
