//! The engine's concepts: runs, what belongs to them, and decided changes to them.
//!
//! Plain data: no I/O and no decisions, so that `history` (which decides) and `store` (which reads and writes) need not know each
//! other.

mod effect;
mod loaded;
mod rows;
mod start;
mod transition;
mod updates;

pub(crate) use effect::{Effect, EffectData, EffectKind};
pub(crate) use loaded::{Loaded, Target};
pub(crate) use rows::{Activity, Child, Run, TaskState};
pub(crate) use start::{DEFAULT_TASK_TIMEOUT_MS, Existing, NewRun, Parent, Start, StartOutcome, StartPolicy};
pub(crate) use transition::{ActivityKey, ActivityRetry, Circumstances, Handover, NewChild, Transition};
pub(crate) use updates::{Delivery, InFlight, RecordedUpdate, Updates};
