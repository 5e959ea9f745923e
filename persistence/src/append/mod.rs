//! The only way in which entities change.
//!
//! An [`AppendItem`] is one or more (entity, version and hash that were decided on), all or nothing. There are three paths, and
//! each falls back to the last:
//! * a change of one entity without conditions, nearly every command, is combined with others in one statement ([`group`]);
//! * one that needs its project active is a statement of its own;
//! * one that claims names, checks a log, has several entities, or was not written as expected, gets a transaction: it locks
//!   rows in a fixed order (tables by rank, rows by id) and gives the verdict ([`transaction`]).
//!
//! An item whose operation already exists (its COMMIT was cut off but had succeeded) is a success.

mod exclusive;
mod group;
mod item;
mod statement;
mod transaction;
mod write;

use std::{sync::Arc, time::Duration};

use ambient_domain::{Entity as _, Guard, project::Project};
use ambient_postgres::is_broken;
use sqlx::AssertSqlSafe;

use crate::{
    database::Database,
    error::{StoreError, is_transient},
};
pub use exclusive::Exclusive;
pub(crate) use group::{Group, WRITERS};
pub use item::{AppendItem, AppendPart, Change, Metadata};

use group::WriteOutcome;
use write::Line;

/// Attempts of an item whose transaction was cut off.
const ATTEMPTS: u32 = 4;
/// Wait before the second attempt; doubled for each later one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// An item that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// It had been written before: the outcome of an earlier attempt was unknown.
    pub repeated: bool,
    /// Last seq assigned to its live events, if it had any; none if `repeated`.
    pub last_seq: Option<i64>,
}

/// Why an item was not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The entity has a version other than expected: load and decide again.
    #[error("{kind} {id} is at version {actual}")]
    Conflict {
        /// Entity kind.
        kind: &'static str,
        /// Entity id.
        id: String,
        /// Current version; 0 = it does not exist.
        actual: i64,
    },
    /// The name belongs to another entity.
    #[error("the name '{name}' is taken")]
    NameTaken {
        /// Name space.
        scope: String,
        /// Name.
        name: String,
    },
    /// The idempotency key has been used; its record says for what.
    #[error("the idempotency key was used before")]
    KeyUsed,
    /// A condition outside the entity does not hold.
    #[error("a condition does not hold: {0:?}")]
    Guard(Guard),
    /// Not written; the database is not available.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Possibly written: the connection was lost in COMMIT and the outcome could not be determined. Append the very same item again.
    #[error("the outcome of the transaction is not known: {0}")]
    OutcomeUnknown(String),
    /// The database refused; a retry will not help.
    #[error(transparent)]
    Database(StoreError),
}

/// A statement or transaction that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Definitely rolled back.
    Before(sqlx::Error),
    /// It was sent and not answered: it may have been written.
    InCommit(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Before(error)
    }
}

impl Failure {
    /// From a statement that commits by itself.
    fn of_statement(error: sqlx::Error) -> Self {
        if is_broken(&error) { Self::InCommit(error.to_string()) } else { Self::Before(error) }
    }
}

/// Whether a statement aborted itself because it had not written everything (`ambient.expect`).
fn is_unexpected(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "AM001")
}

type AppendResult = Result<Appended, AppendError>;

/// How an item is tried first.
enum Way<'a> {
    /// With others.
    Grouped,
    /// In its own statement, if these projects are active.
    Guarded(Vec<&'a str>),
    /// In a transaction.
    Locked,
}

fn way(item: &AppendItem) -> Way<'_> {
    let [part] = &item.parts[..] else { return Way::Locked };
    if !part.names.is_empty() {
        return Way::Locked;
    }
    let mut projects = Vec::new();
    for guard in &item.guards {
        match guard {
            // The row of a project is locked only once.
            Guard::ProjectActive { project_id } if part.kind != Project::KIND => projects.push(project_id.as_str()),
            _ => return Way::Locked,
        }
    }
    projects.sort_unstable();
    projects.dedup();
    if projects.is_empty() && !part.creates() { Way::Grouped } else { Way::Guarded(projects) }
}

impl Database {
    /// Appends each item or says why not, in the order of `batch`.
    pub async fn append(&self, batch: Vec<AppendItem>) -> Vec<Result<Appended, AppendError>> {
        let items: Vec<Arc<AppendItem>> = batch.into_iter().map(Arc::new).collect();
        let grouped = items.iter().filter(|item| matches!(way(item), Way::Grouped)).cloned();
        let mut receivers = self.group.submit(grouped).into_iter();
        let mut verdicts = Vec::with_capacity(items.len());
        for item in &items {
            let first = if matches!(way(item), Way::Grouped) { receivers.next() } else { None };
            verdicts.push(Box::pin(self.append_by(item, first)).await);
        }
        verdicts
    }

    /// Appends an item or says why not.
    ///
    /// # Errors
    /// [`AppendError`]; after [`AppendError::OutcomeUnknown`] the very same item may be appended again.
    pub async fn append_one(&self, item: &Arc<AppendItem>) -> Result<Appended, AppendError> {
        Box::pin(self.append_by(item, None)).await
    }

    /// Retries the same item until its outcome is known, within [`ATTEMPTS`]. `first` is an attempt in progress.
    async fn append_by(&self, item: &Arc<AppendItem>, mut first: Option<Receiver>) -> AppendResult {
        let mut pause = FIRST_PAUSE;
        let mut in_doubt = false;
        let mut reason = String::new();
        for attempt in 1..=ATTEMPTS {
            match self.attempt(item, first.take(), in_doubt).await {
                Ok(verdict) => {
                    self.note_refusal(None);
                    return verdict;
                }
                Err(Failure::Before(error)) if is_transient(&error) || in_doubt => reason = error.to_string(),
                Err(Failure::Before(error)) => return Err(AppendError::Database(StoreError::Database(error))),
                Err(Failure::InCommit(error)) => {
                    in_doubt = true;
                    reason = error;
                }
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        self.note_refusal(Some(&reason));
        Err(if in_doubt { AppendError::OutcomeUnknown(reason) } else { AppendError::Unavailable(reason) })
    }

    /// Once, within the time an append may take.
    async fn attempt(
        &self,
        item: &Arc<AppendItem>,
        first: Option<Receiver>,
        in_doubt: bool,
    ) -> Result<AppendResult, Failure> {
        match tokio::time::timeout(self.append_timeout, self.try_ways(item, first, in_doubt)).await {
            Ok(result) => result,
            // Where it was cut off is unknown: the worst is assumed.
            Err(_) => Err(Failure::InCommit("the append took too long".to_owned())),
        }
    }

    async fn try_ways(
        &self,
        item: &Arc<AppendItem>,
        first: Option<Receiver>,
        in_doubt: bool,
    ) -> Result<AppendResult, Failure> {
        // What may have been written is checked under its locks.
        let way = if in_doubt { Way::Locked } else { way(item) };
        let outcome = match way {
            Way::Grouped => self.write_grouped(item, first).await?,
            Way::Guarded(projects) => self.write_guarded(item, &projects).await?,
            Way::Locked => WriteOutcome::Apart,
        };
        match outcome {
            WriteOutcome::Written(last_seq) => return Ok(Ok(Appended { repeated: false, last_seq })),
            WriteOutcome::NotWritten => {
                if let Some(verdict) = self.overtaken(item).await? {
                    return Ok(verdict);
                }
            }
            WriteOutcome::Apart => {}
        }
        transaction::run(&self.lanes, item).await
    }

    async fn write_grouped(&self, item: &Arc<AppendItem>, first: Option<Receiver>) -> Result<WriteOutcome, Failure> {
        let Some(receiver) = first.or_else(|| self.group.submit([item.clone()]).pop()) else {
            return Ok(WriteOutcome::Apart);
        };
        // A writer that was lost with its runtime says nothing.
        receiver.await.unwrap_or_else(|_| Err(Failure::InCommit("the writer has stopped".to_owned())))
    }

    async fn write_guarded(&self, item: &AppendItem, projects: &[&str]) -> Result<WriteOutcome, Failure> {
        let line = Line { part: &item.parts[0], record: item.idempotency.as_ref() };
        let mut lane = self.lanes.take().await?;
        let written = write::write(lane.connection(), vec![line], projects).await;
        match lane.finish(written) {
            Ok(mut written) => {
                Ok(written.remove(line.part.entity_id()).map_or(WriteOutcome::NotWritten, WriteOutcome::Written))
            }
            Err(error) if is_unexpected(&error) => Ok(WriteOutcome::NotWritten),
            Err(error) => Err(Failure::of_statement(error)),
        }
    }

    /// The verdict on an item whose single entity has moved on, or whose key was used: versions only grow, and keys are not returned,
    /// so no lock is needed to say so, and nobody waits for one to find out. None if it is neither.
    async fn overtaken(&self, item: &AppendItem) -> Result<Option<AppendResult>, Failure> {
        let [part] = &item.parts[..] else { return Ok(None) };
        let sql = format!("select version from {} where id = $1", part.table.name);
        let mut connection = self.pool().acquire().await?;
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).bind(&part.entity_id);
        let actual = query.fetch_optional(&mut *connection).await?.unwrap_or(0);
        let verdict = if actual > part.expected() {
            Err(transaction::conflict(part, actual))
        } else if let Some(record) = &item.idempotency
            && record.is_used(&mut connection).await?
        {
            Err(AppendError::KeyUsed)
        } else {
            return Ok(None);
        };
        let is_in = transaction::is_in(&mut connection, item).await?;
        Ok(Some(if is_in { Ok(transaction::repeated()) } else { verdict }))
    }
}

type Receiver = tokio::sync::oneshot::Receiver<Result<WriteOutcome, Failure>>;
