//! The one way in which entities change.
//!
//! An [`AppendItem`] is one or more (entity, expected version), all or nothing. [`Database::append`] takes batches: one
//! transaction, locks in a fixed order (tables by rank, rows by id), each item with its own verdict. A batch that fails for
//! another reason than an item's conflict is retried item by item. An item whose operation is there already (its COMMIT was
//! cut off and had succeeded) is a success.
//!
//! Everything is written by one statement, which checks what it relies on. A single item is simply tried: begin, write,
//! commit. Only when that does not write all of it, and for batches, rows are locked first and each item gets its verdict.

mod at_once;
mod exclusive;
mod item;
mod statement;
mod transaction;
mod write;

use std::time::Duration;

use ambient_domain::Guard;

use crate::{
    database::Database,
    error::{StoreError, is_transient},
};
pub use exclusive::Exclusive;
pub use item::{AppendItem, AppendPart, Metadata};

/// Attempts of an item whose transaction was cut off.
const ATTEMPTS: u32 = 4;
/// Wait before the second attempt; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// An item that is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// It was in before: the outcome of an earlier attempt was not known.
    pub repeated: bool,
    /// Last seq its live events were given, where it had any (0 when `repeated`).
    pub last_seq: Option<i64>,
}

/// Why an item is not in.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The entity has another version than expected: load and decide again.
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
    /// Not in; the database is not available.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Perhaps in: the connection was lost in COMMIT and the outcome could not be learnt. Append the very same item again.
    #[error("the outcome of the transaction is not known: {0}")]
    OutcomeUnknown(String),
    /// The database refused; a repetition will not help.
    #[error(transparent)]
    Database(StoreError),
}

/// A whole transaction that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Rolled back for certain.
    Before(sqlx::Error),
    /// COMMIT was sent and not answered.
    InCommit(String),
    /// An item conflicted after others had written: each for itself.
    Entangled,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Before(error)
    }
}

type Verdict = Result<Appended, AppendError>;

impl Database {
    /// Appends each item or says why not, in the order of `batch`.
    pub async fn append(&self, batch: Vec<AppendItem>) -> Vec<Result<Appended, AppendError>> {
        if batch.is_empty() {
            return Vec::new();
        }
        if let [item] = &batch[..] {
            return vec![self.append_alone(item).await];
        }
        match self.attempt(&batch).await {
            Ok(verdicts) => verdicts,
            Err(_) => {
                metrics::counter!("ambient_append_batches_split_total").increment(1);
                let mut verdicts = Vec::with_capacity(batch.len());
                for item in &batch {
                    verdicts.push(self.append_alone(item).await);
                }
                verdicts
            }
        }
    }

    /// One transaction, within the time an append may take.
    async fn attempt(&self, items: &[AppendItem]) -> Result<Vec<Verdict>, Failure> {
        let run = Box::pin(transaction::run(self.pool(), items));
        match tokio::time::timeout(self.append_timeout, run).await {
            Ok(result) => {
                if result.is_ok() {
                    self.note_refusal(None);
                }
                result
            }
            // Where it was cut off is not known: the worst is assumed.
            Err(_) => Err(Failure::InCommit("the append took too long".to_owned())),
        }
    }

    /// The same item again until its outcome is known, within [`ATTEMPTS`].
    async fn append_alone(&self, item: &AppendItem) -> Verdict {
        let mut pause = FIRST_PAUSE;
        let mut in_doubt = false;
        let mut reason = String::new();
        for attempt in 1..=ATTEMPTS {
            match self.attempt(std::slice::from_ref(item)).await {
                Ok(mut verdicts) => return verdicts.pop().unwrap_or(Err(AppendError::Unavailable(reason))),
                Err(Failure::Entangled) => "two items at once".clone_into(&mut reason),
                Err(Failure::Before(error)) if is_transient(&error) => reason = error.to_string(),
                Err(Failure::Before(error)) if in_doubt => reason = error.to_string(),
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
}
