//! Readers of runners' logs: each record is stored once, facts are derived from what is stored, messages are delivered in order.
//!
//! For every session that is Creating, Running or Stopping each process has a task, and the one that gets the run's lease
//! reads. The lease has an epoch; the transaction that stores a batch checks epoch, log and cursor, so a reader that lost
//! its lease without knowing can store nothing. Leases of a process are renewed together, on the database's clock.
//!
//! **Facts** (a turn started or ended, the runner ended) never overtake the log: they are read from the *stored* events, after
//! a durable cursor of their own (`runner_cursors.facts_reported`) that moves once a fact has been accepted or is out of date.
//! That one path serves both the normal case and a process that dies between storing and reporting: whoever gets the
//! lease next reports the rest, in order. Repeats are harmless, because facts are idempotent. The attempt a fact is
//! about is the one whose `attempt.started` precedes it in the log.
//!
//! An exit "terminated by request" is not a fact: whoever ended the runner knows, and a launch being undone must not look like a
//! completed session.
//!
//! **Messages** are handed over in order while the session is Running; `delivered_seq` moves only when the runner has
//! recorded the acceptance.
//!
//! **Answers** to permission requests, changed permissions, and changed settings of the agent, are told to the runner by whoever reads its log, from the session's row:
//! again and again until the runner has them. A request is closed by what the log says about it.
//!
//! **Budgets** of models are told to the runner too, with what the project's other runs have used, soon after that is stored.
//!
//! **Rules** of the session's agent and project may change while it runs. The regular look at what has a runner sees their versions, and
//! a hint brings it forward: then the reader reports what they say about permissions now, and looks at the budget again.
//!
//! **Readiness**: a runner that is alive but gives no sign of life makes the session's `Ready` False (`RunnerUnresponsive`), and True
//! again once it is heard; one that stays silent is lost, so that the next attempt ends it and takes over.
//!
//! **Packs** of snapshots go to the snapshot store before the event that names them is stored.
//!
//! If a runner cannot be reached for a second its lease is released, so that whoever stops the session can store the rest of
//! the log from its file ([`RunnerReaders::drain_from_file`]).

mod answers;
mod budget;
mod connection;
mod delivery;
mod drain;
mod facts;
mod interrupts;
mod lease;
mod log_file;
mod owners;
mod packs;
mod registry;
mod runs;
mod silence;
mod task;
mod turns;

use std::{path::PathBuf, sync::Arc, time::Duration};

use ambient_domain::{model_rules::ModelLimits, session::Fact};
use ambient_persistence::{Database, Hints, new_id};
use ambient_snapshots::SnapshotStore;
use async_trait::async_trait;
use tokio::sync::broadcast;

pub use drain::DrainError;
pub use registry::RunnerReaders;

use crate::{budget::Budgets, runner_client::RunnerClient, token::Tokens};
use lease::Leases;

/// Where runners listen.
#[async_trait]
pub trait RunnerEndpoints: Send + Sync + 'static {
    /// The runner's socket; none if there is none, or it is not on this host.
    ///
    /// # Errors
    /// When it cannot be determined right now.
    async fn endpoint(&self, project_id: &str, session_id: &str, run: i64) -> Result<Option<PathBuf>, EndpointError>;
}

/// Whether there is a runner, and where, cannot be determined right now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot look for the runner: {reason}")]
pub struct EndpointError {
    /// In words.
    pub reason: String,
}

impl EndpointError {
    /// With a reason in words.
    #[allow(clippy::needless_pass_by_value, reason = "so that it is a function for map_err")]
    pub fn new(reason: impl ToString) -> Self {
        Self { reason: reason.to_string() }
    }
}

/// A fact could not be delivered right now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the fact was not accepted: {reason}")]
pub struct FactError {
    /// In words.
    pub reason: String,
}

impl FactError {
    /// With a reason in words.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Who decides facts.
#[async_trait]
pub trait FactSink: Send + Sync + 'static {
    /// Delivers a fact. Ok if it was accepted, is so already, or is superseded.
    async fn report(&self, session_id: &str, run: i64, attempt: i32, fact: Fact) -> Result<(), FactError>;
}

/// Times and sizes.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// Name of this process in leases. A name that was used before takes over its leases at once: only a name that no two
    /// live processes can share may be kept over a restart.
    pub holder: String,
    /// Time until a lease that is not renewed expires.
    pub lease_ttl: Duration,
    /// How often leases are renewed.
    pub lease_renewal: Duration,
    /// How often to ask for a lease that another process holds; jittered.
    pub lease_poll: Duration,
    /// How often to look up the sessions that need a reader, hints or not; jittered.
    pub scan_interval: Duration,
    /// How long a runner may be unreachable before its lease is released.
    pub unreachable_patience: Duration,
    /// After this long without a word a runner is asked for a sign of life.
    pub ping_interval: Duration,
    /// How long the sign may take; after that the runner counts as unresponsive.
    pub answer_patience: Duration,
    /// A runner that is alive but stays unresponsive for this long counts as lost.
    pub unresponsive_patience: Duration,
    /// Longest pause between attempts.
    pub longest_pause: Duration,
    /// How long [`RunnerReaders::drained`] waits.
    pub drain_patience: Duration,
    /// Records per transaction.
    pub batch_records: usize,
    /// Approximate bytes per transaction.
    pub batch_bytes: usize,
    /// Where packs of snapshots go; none = they are not stored.
    pub snapshots: Option<SnapshotStore>,
    /// The server's limits of models for a session.
    pub model_limits: ModelLimits,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            holder: new_id(),
            lease_ttl: Duration::from_secs(5),
            lease_renewal: Duration::from_millis(1_500),
            lease_poll: Duration::from_secs(1),
            scan_interval: Duration::from_secs(5),
            unreachable_patience: Duration::from_secs(1),
            ping_interval: Duration::from_secs(10),
            answer_patience: Duration::from_secs(10),
            unresponsive_patience: Duration::from_secs(60),
            longest_pause: Duration::from_secs(2),
            drain_patience: Duration::from_secs(3),
            batch_records: 512,
            batch_bytes: 1024 * 1024,
            snapshots: None,
            model_limits: ModelLimits::default(),
        }
    }
}

/// A run of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRef {
    pub(crate) project_id: String,
    pub(crate) session_id: String,
    pub(crate) run: i64,
}

/// What all readers of a process share.
pub(crate) struct Context {
    pub(crate) db: Database,
    pub(crate) hints: Hints,
    pub(crate) tokens: Tokens,
    pub(crate) endpoints: Arc<dyn RunnerEndpoints>,
    pub(crate) facts: Arc<dyn FactSink>,
    pub(crate) leases: Leases,
    pub(crate) budgets: Budgets,
    /// Projects whose sessions have used models, as it is stored.
    pub(crate) spending: broadcast::Sender<String>,
    pub(crate) options: ReaderOptions,
}

impl Context {
    /// A client of the run's runner; none if it has no endpoint here.
    pub(crate) async fn client(&self, run: &RunRef) -> Result<Option<RunnerClient>, EndpointError> {
        let endpoint = self.endpoints.endpoint(&run.project_id, &run.session_id, run.run).await?;
        let Some(socket) = endpoint else { return Ok(None) };
        let token = self.tokens.server_to_runner(&run.session_id, run.run);
        RunnerClient::new(socket, token).map(Some).map_err(EndpointError::new)
    }
}
