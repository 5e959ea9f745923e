//! Which run, and the run as it was read.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Run, Transition};

/// The run a request means.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Run(Uuid),
    /// The open run of a workflow id.
    Current(String),
    /// A run id that must belong to the workflow id.
    Exact(String, Uuid),
}

impl Target {
    pub(crate) fn new(workflow_id: &str, run_id: Option<Uuid>) -> Self {
        match run_id {
            Some(run) if workflow_id.is_empty() => Self::Run(run),
            Some(run) => Self::Exact(workflow_id.to_owned(), run),
            None => Self::Current(workflow_id.to_owned()),
        }
    }
}

/// A run with both clocks at the moment of reading.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) run: Run,
    /// Engine time.
    pub(crate) now: DateTime<Utc>,
    /// Wall clock of the database.
    pub(crate) wall: DateTime<Utc>,
}

impl Loaded {
    /// The run as it is after a transition.
    pub(crate) fn after(t: &Transition) -> Self {
        let run = Run { revision: t.expected_revision + 1, ..t.run.clone() };
        Self { run, now: t.now, wall: t.wall }
    }
}
