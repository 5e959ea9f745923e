//! Where a session runs.
//!
//! Invariants: `launch` means *ensure*: it may be repeated and starts at most one runner for a (session, run, attempt); nothing of a
//! run is started once its fence is up; absence is proven, never assumed; only the host that launched may prove it.

pub mod local;

use std::{path::PathBuf, time::Duration};

use ambient_runner_protocol::{AgentCommand, GitIdentity, Limits, ModelEndpoint, Network, PermissionPolicy};
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// A session's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionRef {
    /// Project id (KSUID).
    pub project_id: String,
    /// Session id (KSUID).
    pub session_id: String,
}

/// What a launch needs. Contains no secrets: they are written beforehand.
#[derive(Debug, Clone)]
pub struct LaunchRequest {
    /// Which session.
    pub session: SessionRef,
    /// Which run.
    pub run: i64,
    /// Which launch of the run.
    pub attempt: i32,
    /// See [`ambient_runner_protocol::LaunchSpec::interactive`].
    pub interactive: bool,
    /// Agent's name.
    pub agent: String,
    /// See [`ambient_runner_protocol::LaunchSpec::agent_command`].
    pub agent_command: Option<AgentCommand>,
    /// See [`ambient_runner_protocol::LaunchSpec::model`]. Its keys, if it wants any, are [`SecretName::ModelKeys`].
    pub model: Option<ModelEndpoint>,
    /// See [`ambient_runner_protocol::LaunchSpec::permissions`].
    pub permissions: PermissionPolicy,
    /// Identity of commits.
    pub git_identity: GitIdentity,
    /// The session's own limits; compute's apply to what it leaves open.
    pub limits: OwnLimits,
    /// What its agent may reach of the network; compute's applies if it is not said.
    pub network: Option<Network>,
    /// See [`ambient_runner_protocol::LaunchSpec::setup_script`].
    pub setup_script: Option<String>,
}

/// A session's own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnLimits {
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Memory of all its processes, bytes.
    pub memory_bytes: Option<u64>,
    /// Maximum number of processes and threads.
    pub processes: Option<u64>,
    /// Disk space of its files, bytes.
    pub disk_bytes: Option<u64>,
    /// Open files per process.
    pub open_files: Option<u64>,
}

impl OwnLimits {
    /// These, in place of those in `limits`.
    #[must_use]
    pub fn over(&self, limits: &Limits) -> Limits {
        Limits {
            cpu_millis: self.cpu_millis.unwrap_or(limits.cpu_millis),
            memory_bytes: self.memory_bytes.unwrap_or(limits.memory_bytes),
            processes: self.processes.unwrap_or(limits.processes),
            disk_bytes: self.disk_bytes.unwrap_or(limits.disk_bytes),
            open_files: self.open_files.unwrap_or(limits.open_files),
            ..limits.clone()
        }
    }
}

/// What a session has run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shortage {
    /// Memory: its limit.
    OutOfMemory,
    /// Disk space: its limit, or the file system.
    DiskFull,
}

impl Shortage {
    /// Condition reason.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "OutOfMemory",
            Self::DiskFull => "DiskFull",
        }
    }
}

/// A text that must not be shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }
    /// The text itself, for the one place that hands it over.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Which of a run's secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretName {
    /// With which a server talks to the runner.
    ServerToRunner,
    /// With which the runner talks to a server.
    RunnerToServer,
    /// The session's own variables, a JSON object of strings.
    Environment,
    /// Keys of the endpoint whose models its agent asks, a JSON object with one per dialect.
    ModelKeys,
}

/// How a launch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launched {
    /// This call started the runner.
    Started,
    /// It is already alive.
    AlreadyRunning,
    /// It was alive and has ended; see [`Compute::state`].
    AlreadyEnded,
}

/// What is known about a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerState {
    /// Never launched.
    Absent,
    /// Alive.
    Running {
        /// Parts of the confinement that the kernel lacks.
        missing_confinement: Vec<String>,
    },
    /// Ended with a record.
    Exited {
        /// Its code.
        code: i32,
        /// In words.
        reason: String,
    },
    /// Ended without a record (signal, power loss), or never came up.
    Lost {
        /// In words.
        reason: String,
    },
    /// It has exhausted its limits, and its agent was killed; the runner may live on.
    Exhausted {
        /// What.
        shortage: Shortage,
        /// In words.
        message: String,
    },
}

/// A change that compute observed. Level-triggered: repeated for everything known at every (re)subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Which session.
    pub session: SessionRef,
    /// Which run.
    pub run: i64,
    /// Which attempt.
    pub attempt: i32,
    /// Its state now.
    pub state: RunnerState,
}

/// How to reach a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Unix socket.
    pub socket: PathBuf,
}

/// Evidence that nothing of a run is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsenceProof {
    /// The host that checked.
    pub host: String,
    /// What was checked, in words.
    pub evidence: Vec<String>,
}

/// A compute resource of a session, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// `process`, `directory`, `socket`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// State, in one word.
    pub status: String,
    /// Details, in words.
    pub detail: String,
}

/// What exists on this host, for the sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Which session.
    pub session: SessionRef,
    /// Runs with a live process.
    pub live_runs: Vec<i64>,
}

/// Why compute failed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The fence forbids the run: it was stopped, or the session was deleted.
    #[error("run {run} is fenced off: runs up to {stopped_run} were stopped")]
    Fenced {
        /// The run.
        run: i64,
        /// The fence.
        stopped_run: i64,
    },
    /// The session's agent is not in this build.
    #[error("agent '{agent}' is not in this build; it has: {available}")]
    UnknownAgent {
        /// The requested one.
        agent: String,
        /// Comma-separated.
        available: String,
    },
    /// Something of the run is left.
    #[error("run {run} is not gone: {}", remains.join("; "))]
    Remains {
        /// The run.
        run: i64,
        /// What, in words.
        remains: Vec<String>,
    },
    /// Not launched, or over.
    #[error("no runner of run {run}")]
    NoRunner {
        /// The run.
        run: i64,
    },
    /// The request cannot be carried out as it is; a retry fails in the same way.
    #[error("{0}")]
    Invalid(String),
    /// The disk is too full for new work; a retry may succeed.
    #[error("{0}")]
    DiskFull(String),
    /// The system failed; a retry may succeed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The system error.
        source: std::io::Error,
    },
}

/// Where a session runs. Every method may be repeated.
#[async_trait]
pub trait Compute: Send + Sync {
    /// Name of this host; its activities go to task queue `compute-{host}`.
    fn host(&self) -> &str;
    /// Agent types in this build.
    fn agents(&self) -> &[&str];
    /// Sets up the project's space.
    async fn ensure_project(&self, project_id: &str) -> Result<(), ComputeError>;
    /// Removes the project's space; sessions must be gone.
    async fn delete_project(&self, project_id: &str) -> Result<(), ComputeError>;
    /// Creates the session's workspace; keeps what is there.
    async fn ensure_workspace(&self, session: &SessionRef) -> Result<(), ComputeError>;
    /// Removes everything of the session; refused while a runner is alive.
    async fn delete_workspace(&self, session: &SessionRef) -> Result<(), ComputeError>;
    /// Removes what runs up to `run` worked with: the workspace, the agent's home, the copies of repositories. Their records stay, and of
    /// their logs the end of what was said, for the agent of a later run. Returns how many bytes it was, as far as that was measured; none
    /// if nothing was removed because a later run has begun. The fence must be raised, and nothing of these runs alive.
    async fn remove_workspace(&self, session: &SessionRef, run: i64) -> Result<Option<u64>, ComputeError>;
    /// Writes a token (0600, atomically).
    async fn write_secret(
        &self,
        s: &SessionRef,
        run: i64,
        name: SecretName,
        value: &Secret,
    ) -> Result<(), ComputeError>;
    /// Removes the run's tokens.
    async fn delete_secrets(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError>;
    /// Ensures a runner for (session, run, attempt).
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, ComputeError>;
    /// What is known about an attempt.
    async fn state(&self, session: &SessionRef, run: i64, attempt: i32) -> Result<RunnerState, ComputeError>;
    /// Everything known, then every change.
    fn observe(&self) -> BoxStream<'static, Observation>;
    /// How to reach a run's runner.
    async fn endpoint(&self, session: &SessionRef, run: i64) -> Result<Endpoint, ComputeError>;
    /// Forbids every launch of runs up to `run`, permanently. `i64::MAX` = the session is deleted.
    async fn raise_fence(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError>;
    /// Kills agent processes of the run but not its runner.
    async fn kill_agents(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError>;
    /// Asks the runner to end, and after `grace` kills every process of the run, repeatedly until none is left.
    async fn terminate(&self, session: &SessionRef, run: i64, grace: Duration) -> Result<(), ComputeError>;
    /// Proves that no process of the run exists and none can start: requires the fence.
    async fn prove_absent(&self, session: &SessionRef, run: i64) -> Result<AbsenceProof, ComputeError>;
    /// The run's event log, if it can be read as a file once its runner is gone.
    fn event_log(&self, _session: &SessionRef, _run: i64) -> Option<PathBuf> {
        None
    }
    /// Sessions deleted here so long ago that anything on its way to them then has ended, a few at a time: their
    /// markers may be removed once nothing new can be on its way.
    async fn old_deletions(&self) -> Result<Vec<String>, ComputeError> {
        Ok(Vec::new())
    }
    /// Removes the marker of a deleted session. Its row must say so, and nothing that acts on it may be left.
    async fn forget_deletion(&self, _session_id: &str) -> Result<(), ComputeError> {
        Ok(())
    }
    /// A session's compute resources.
    async fn resources(&self, session: &SessionRef) -> Result<Vec<Resource>, ComputeError>;
    /// Whether it can take new work; else why not, in words.
    async fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
    /// Everything on this host.
    async fn inventory(&self) -> Result<Vec<Inventory>, ComputeError>;
}
