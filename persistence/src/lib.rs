//! Operation log, entity rows, outbox, live log and vault on Postgres. The only SQL besides the engine's.
//!
//! Invariants
//! * Only [`Database::append`] changes an entity: operation, row, effects, live events, names and idempotency record
//!   in one transaction, fenced by the primary key (entity_kind, entity_id, version).
//! * A row is a pure function of its operations; [`Database::verify`] checks it.
//! * A live log's `seq` is gapless and in commit order: it comes from the row in `session_streams`, never from memory.
//! * Leases and retries are decided by the database's clock alone.

mod append;
mod begin;
mod canonical;
mod database;
mod engine_choice;
mod entity;
mod error;
mod hints;
mod idempotency;
mod ids;
mod interrupts;
mod kinds;
mod list;
mod live;
mod load;
mod model_budgets;
mod model_usage;
mod operations;
mod outbox;
mod placement;
mod playbooks;
mod replay;
mod retention;
mod retention_preview;
pub mod retry;
mod run_results;
mod runner;
mod runner_log;
mod snapshots;
mod stored_packs;
mod trace_queues;
mod traces;
mod turn_results;
mod turns;
mod uploads;
mod vault;
mod verify;

pub use append::{AppendError, AppendItem, AppendPart, Appended, Change, Exclusive, Metadata};
pub use canonical::Hash;
pub use database::{Database, DatabaseOptions};
pub use engine_choice::{EngineChoice, OpenEffects};
pub use entity::{StoredEntity, Table, column_names};
pub use error::StoreError;
pub use hints::{Hint, HintReceiver, Hints};
pub use idempotency::{IdempotencyKey, IdempotencyRecord, RecordedOutcome, StoredOutcome};
pub use ids::{is_ksuid, new_id, to_micros};
pub use interrupts::Waiting;
pub use kinds::{KINDS, Kind, KindVisitor, visit_kinds};
pub use list::{ListQuery, Order, Page, Scope};
pub use live::StoredEvent;
pub use load::Current;
pub use model_budgets::ModelRulesRow;
pub use model_usage::{AGENT, ModelUsage, PROXY, UsageBy, UsageChange, UsageOf, UsageRow};
pub use operations::{Operation, OperationFilter, OperationPage};
pub use outbox::{OutboxCounts, OutboxRow};
pub use replay::{Concerned, EntityReplay};
pub use retention::{ProjectRetention, Removed, RemovedEvents, RetentionRequest, UnwantedWorkspace};
pub use retention_preview::SessionLoss;
pub use run_results::{RunChange, RunRow};
pub use runner::{RunnerAppendError, RunnerBatch, RunnerLease, RunnerRecord, SessionRuntime};
pub use runner_log::{EventPage, RulerVersions, RunnerCursor, RunnerSession};
pub use snapshots::Snapshot;
pub use stored_packs::PackOwner;
pub use trace_queues::{TraceBacklog, TracedExecution, TracedTurn};
pub use traces::{Origin, TraceLease, TracedEvent, TracedOperation};
pub use turn_results::{TurnChange, TurnChanges, TurnEnd, TurnRow, TurnStarted};
pub use uploads::{MAX_UPLOADED, MAX_UPLOADS, UploadRow, Uploaded};
pub use vault::{Secret, Vault, VaultError, secret_id};
pub use verify::{Divergence, DivergenceKind, VerifyReport, VerifyScope};
