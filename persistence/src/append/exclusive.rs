//! A decision under the row's lock, for an entity that changes too often for optimistic concurrency.
//!
//! A caller that has lost the race for a version a few times would lose it forever against a server with the entity in memory.
//! The row's lock is a fair queue: under it the decision cannot be overtaken. It is taken before the guards' locks,
//! which is safe as long as nobody who writes a project waits for a session's row.

use std::{sync::Arc, time::Duration};

use ambient_postgres::Lane;
use sqlx::{AssertSqlSafe, raw_sql};

use super::{AppendError, AppendItem, Appended, Failure, transaction};
use crate::{
    database::Database,
    entity::StoredEntity,
    error::{StoreError, is_transient},
    load::{CURRENT, Current, current_from_row},
};

/// An entity whose row is locked until the append, or until this is dropped.
pub struct Exclusive<E> {
    lane: Lane,
    timeout: Duration,
    current: Option<Current<E>>,
}

impl Database {
    /// Locks an entity's row and reads it. Decide quickly: everyone else waits.
    ///
    /// # Errors
    /// When the database cannot be reached, or the lock is not given in time.
    pub async fn lock<E: StoredEntity>(&self, id: &str) -> Result<Exclusive<E>, StoreError> {
        // If dropped midway the connection is closed, and the lock is released.
        let mut lane = self.lanes.take().await?;
        raw_sql("begin").execute(lane.connection()).await?;
        let sql = format!("select {CURRENT} from {} t where t.id = $1 for no key update", E::TABLE.name);
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(lane.connection()).await?;
        let current = row.as_ref().map(current_from_row).transpose()?;
        Ok(Exclusive { lane, timeout: self.append_timeout, current })
    }
}

impl<E: StoredEntity> Exclusive<E> {
    /// The entity; none if it does not exist (then nothing is locked).
    #[must_use]
    pub fn current(&self) -> Option<&Current<E>> {
        self.current.as_ref()
    }

    /// Appends what was decided on [`Exclusive::current`].
    ///
    /// # Errors
    /// Same as [`Database::append`]; a conflict is possible only for an entity that did not exist.
    pub async fn append(self, item: &Arc<AppendItem>) -> Result<Appended, AppendError> {
        let run = Box::pin(transaction::run_in(self.lane, item));
        match tokio::time::timeout(self.timeout, run).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(Failure::Before(error))) if is_transient(&error) => Err(AppendError::Unavailable(error.to_string())),
            Ok(Err(Failure::Before(error))) => Err(AppendError::Database(StoreError::Database(error))),
            Ok(Err(Failure::InCommit(reason))) => Err(AppendError::OutcomeUnknown(reason)),
            Err(_) => Err(AppendError::OutcomeUnknown("the append took too long".to_owned())),
        }
    }
}
