//! A decision under the row's lock, for an entity that is changed too often for optimism.
//!
//! Whoever has lost the race for a version a few times would lose it for ever against a server with the entity in memory.
//! The row's lock is a fair queue: under it the decision cannot be overtaken. It is taken before the locks of guards, which
//! is safe so long as nobody who writes a project waits for the row of a session.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::{AppendError, AppendItem, Appended, Failure, transaction};
use crate::{
    begin::begin,
    database::Database,
    entity::StoredEntity,
    error::{StoreError, is_transient},
    load::{STATE, from_row},
};

/// An entity whose row is locked until the append, or until this is dropped.
pub struct Exclusive<E> {
    tx: Transaction<'static, Postgres>,
    pool: PgPool,
    timeout: Duration,
    state: Option<E>,
}

impl Database {
    /// Locks an entity's row and reads it. Decide quickly: everyone else waits.
    ///
    /// # Errors
    /// When the database cannot be reached, or the lock is not given in time.
    pub async fn lock<E: StoredEntity>(&self, id: &str) -> Result<Exclusive<E>, StoreError> {
        let mut tx = begin(self.pool(), "begin").await?;
        let sql = format!("select {STATE} from {} t where t.id = $1 for no key update", E::TABLE.name);
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(&mut *tx).await?;
        let state = row.as_ref().map(from_row).transpose()?;
        Ok(Exclusive { tx, pool: self.pool().clone(), timeout: self.append_timeout, state })
    }
}

impl<E: StoredEntity> Exclusive<E> {
    /// The entity; none when it does not exist (then nothing is locked).
    #[must_use]
    pub fn state(&self) -> Option<&E> {
        self.state.as_ref()
    }

    /// Appends what was decided on [`Exclusive::state`].
    ///
    /// # Errors
    /// As [`Database::append`]; a conflict is possible only for an entity that did not exist.
    pub async fn append(self, item: &AppendItem) -> Result<Appended, AppendError> {
        let run = Box::pin(transaction::run_in(self.tx, &self.pool, std::slice::from_ref(item)));
        match tokio::time::timeout(self.timeout, run).await {
            Ok(Ok(mut verdicts)) => {
                verdicts.pop().unwrap_or_else(|| Err(AppendError::Unavailable("no verdict".to_owned())))
            }
            Ok(Err(Failure::Before(error))) if is_transient(&error) => Err(AppendError::Unavailable(error.to_string())),
            Ok(Err(Failure::Before(error))) => Err(AppendError::Database(StoreError::Database(error))),
            Ok(Err(Failure::InCommit(reason))) => Err(AppendError::OutcomeUnknown(reason)),
            Ok(Err(Failure::Entangled)) => Err(AppendError::Unavailable("two items at once".to_owned())),
            Err(_) => Err(AppendError::OutcomeUnknown("the append took too long".to_owned())),
        }
    }
}
