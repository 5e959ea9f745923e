//! The contract between a server, the compute that launches a runner, and the runner.
//!
//! A runner listens on a Unix socket (HTTP/1.1). Every request except `GET /health` carries `Authorization: Bearer <token>`
//! with the run's server-to-runner token, compared in constant time with the content of the token file.
//!
//! | Route | Meaning |
//! |---|---|
//! | `GET /health` | [`Health`] |
//! | `GET /events` | WebSocket: the reader sends one [`ReaderHello`], then receives [`RunnerFrame`]s and sends [`ReaderAck`]s |
//! | `POST /messages` | [`DeliverMessage`] -> [`Accepted`]; recorded (fsynced) before the answer; a repeat with a known id gets the same answer |
//! | `POST /interrupt` | ends the current turn (`RUN_ERROR` with code `Interrupted`); 204 even when idle |
//! | `POST /halt` | the same, and no other turn begins: messages that wait are not run, others are refused (409) |
//! | `POST /interrupts/{id}` | [`InterruptAnswer`](ambient_wire::permission::InterruptAnswer) -> [`AnswerTaken`]; recorded (fsynced) before the agent gets it, and handed over at most once; 404 if there was no such request |
//! | `PUT /policy` | [`PermissionPolicy`](ambient_wire::permission::PermissionPolicy) for requests from now on; 204 |
//! | `PUT /settings` | [`AgentSettings`]: mode, model, options, as far as the agent offers them; 204 |
//! | `POST /shutdown` | records the end, waits for the reader's acknowledgement (10 s at most), exits 0; 202 |
//! | `GET /repos` | list of [`RepoStatus`] |
//! | `PUT /repos/{name}` | [`RepoSpec`] -> [`RepoStatus`]; clones, idempotent |
//! | `DELETE /repos/{name}` | 204, even if absent |
//! | `PUT /playbook` | [`Playbook`](ambient_wire::playbook::Playbook) -> [`PlaybookStatus`]; in effect from the next turn on; idempotent; what was in effect stays so until all of it is there |
//! | `DELETE /playbook` | 204, even if there is none |
//! | `GET /git/status?repo=` | [`GitStatus`](ambient_wire::git::GitStatus) |
//! | `GET /git/diff?`[`GitDiffQuery`](ambient_wire::git::GitDiffQuery) | unified diff as text, against the commit it was cloned at if `base` is absent |
//! | `GET /git/log?`[`GitLogQuery`](ambient_wire::git_history::GitLogQuery) | [`GitLog`](ambient_wire::git_history::GitLog) |
//! | `GET /git/list-branches?repo=` | [`GitBranches`](ambient_wire::git_history::GitBranches) |
//! | `POST /git/create-branch` | [`GitBranchCreate`](ambient_wire::git_history::GitBranchCreate) -> [`GitBranchCreated`](ambient_wire::git_history::GitBranchCreated) |
//! | `GET /git/merge-status?`[`GitMergeQuery`](ambient_wire::git_merge::GitMergeQuery) | [`GitMergeStatus`](ambient_wire::git_merge::GitMergeStatus) |
//! | `POST /git/pull` | [`GitPull`](ambient_wire::git_merge::GitPull) -> [`GitPulled`](ambient_wire::git_merge::GitPulled) |
//! | `POST /git/synchronize` | [`GitSynchronize`](ambient_wire::git_merge::GitSynchronize) -> [`GitSynchronized`](ambient_wire::git_merge::GitSynchronized) |
//! | `POST /git/abandon` | [`GitAbandon`](ambient_wire::git_merge::GitAbandon) -> [`GitAbandoned`](ambient_wire::git_merge::GitAbandoned) |
//! | `POST /git/commit` | [`GitCommit`](ambient_wire::git::GitCommit) -> [`GitCommitted`](ambient_wire::git::GitCommitted) |
//! | `POST /git/push` | [`GitPush`](ambient_wire::git::GitPush) -> [`GitPushed`](ambient_wire::git::GitPushed) |
//! | `GET /content?path=` | [`Listing`](ambient_wire::content::Listing) of a directory in the workspace |
//! | `GET /content/{*path}` | a file's bytes; `Range: bytes=a-b` honoured; `X-Content-Sha256` |
//! | `PUT /content/{*path}?parents=&executable=` | bytes -> 201 or 200 with [`FileStatus`](ambient_wire::content::FileStatus); `If-Match` (SHA-256 as an entity tag, or `*`) and `If-None-Match: *` honoured |
//! | `DELETE /content/{*path}?recursive=` | 204 |
//! | `GET /content-status?path=&sha256=` | [`FileStatus`](ambient_wire::content::FileStatus) |
//! | `POST /content-move` | [`FileMove`](ambient_wire::content::FileMove) -> [`FileStatus`](ambient_wire::content::FileStatus) |
//!
//! Names and paths are escaped as in [`file_name`](ambient_wire::file_name). Errors are [`RunnerError`] with status 400 (names the field), 401, 404,
//! 409, 412 (`stale`), 413, 416 (range), 500 or 503 (`busy`).
//!
//! It is not part of the API. What users are shown as the runner reports it, of a session's repositories, files and log, is: those are the
//! types of `ambient_wire`.

mod agent;
mod install;
mod model;
mod playbook;
mod repo;
mod session_paths;
mod stored;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use agent::{AgentCommand, AgentEndpoint, AgentSettings, AnswerTaken};
pub use ambient_wire::{
    network::{Network, NetworkMode},
    permission::PermissionPolicy,
};
pub use install::InstallOrder;
pub use model::{MODEL, MODEL_TOKEN, MODEL_URL, ModelBudget, ModelDialect, ModelEndpoint, ModelPrice, ProjectBudget};
pub use playbook::PlaybookStatus;
pub use repo::{RepoSpec, RepoStatus};
pub use session_paths::SessionPaths;
pub use stored::{PackEnd, StoredAnswer, StoredLook, StoredOrder};

/// Version of the files and frames below; a runner refuses any other.
pub const CONTRACT_VERSION: u32 = 1;

/// Exit code: a prerequisite of the session failed.
pub const EXIT_PREREQUISITE: i32 = 2;
/// Exit code: the runner was called with wrong arguments.
pub const EXIT_USAGE: i32 = 64;
/// Exit code: something the runner must write cannot be written (as in `sysexits.h`).
pub const EXIT_IO: i32 = 74;
/// Exit code: it cannot be written because the disk is full. Counts only if the end could not be recorded either: an agent may
/// exit with any code.
pub const EXIT_DISK_FULL: i32 = 73;
/// Exit code: the fence forbids this run, or another runner holds the workspace; nothing was done.
pub const EXIT_FENCED: i32 = 75;

/// Whether the platform sets this environment variable itself, so that a session cannot override it.
#[must_use]
pub fn is_platform_variable(name: &str) -> bool {
    const NAMES: [&str; 4] = ["HOME", "TMPDIR", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_GLOBAL"];
    const PREFIXES: [&str; 3] = ["AMBIENT_", "GIT_AUTHOR_", "GIT_COMMITTER_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What a runner is started with: `ambient-runner serve --launch FILE`, or, for two user ids,
/// `ambient-runner become --runner-user R --agent-user A -- serve --launch FILE` as root. Contains no secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// [`CONTRACT_VERSION`].
    pub version: u32,
    /// Session id.
    pub session_id: String,
    /// Project id.
    pub project_id: String,
    /// Start-to-stop cycle, from 1.
    pub run: i64,
    /// Launch within the run, from 1.
    pub attempt: i32,
    /// Random text that marks every process of this launch (`AMBIENT_NONCE` in its environment).
    pub nonce: String,
    /// The session's directory (see [`SessionPaths`]).
    pub session_dir: PathBuf,
    /// Socket to listen on. At most 100 bytes.
    pub socket: PathBuf,
    /// An interactive session survives a failed turn; a batch session's runner exits with the agent's code.
    pub interactive: bool,
    /// Which agent to host: `script`, or the name of one that `agent_command` starts.
    pub agent: String,
    /// How an agent that speaks the Agent Client Protocol is started; none for `script`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<AgentCommand>,
    /// Where the agent's models are asked, through the runner's proxy; none = the runner has no proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelEndpoint>,
    /// What the agent may reach of the network. If it is less than the machine does and cannot be enforced, the runner exits with
    /// [`EXIT_PREREQUISITE`].
    #[serde(default, skip_serializing_if = "Network::is_open")]
    pub network: Network,
    /// Shell script that prepares the workspace before the first turn; none = each repository's own, empty = nothing is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
    /// What the agent may do without asking.
    #[serde(default)]
    pub permissions: PermissionPolicy,
    /// Identity of commits.
    pub git_identity: GitIdentity,
    /// Additional paths the agent may read besides the system's (toolchains). Nothing else outside is visible to it.
    pub readable_paths: Vec<PathBuf>,
    /// Folders and files of the platform: no `file://` origin may be one of them, be inside one, or contain one.
    #[serde(default)]
    pub platform_paths: Vec<PathBuf>,
    /// Limits for the agent's processes.
    pub limits: Limits,
    /// What to do if the kernel lacks a part of the confinement.
    #[serde(default)]
    pub confinement: Confinement,
    /// True if the session has its own user id: then limits apply to it alone and the id marks its processes.
    #[serde(default)]
    pub own_user: bool,
    /// The agent's user id, if it differs from the runner's: the runner was then started with `become`.
    #[serde(default)]
    pub agent_user: Option<u32>,
    /// Compute host that launched it; only that host may prove absence.
    #[serde(default)]
    pub host: String,
    /// Cgroups, one per hierarchy, that every process of the agent enters before it becomes the agent's: the runner
    /// writes `0` to their `cgroup.procs`. If it cannot, nothing of the agent is started.
    #[serde(default)]
    pub agent_groups: Vec<PathBuf>,
    /// Limits that compute cannot enforce, in words; reported in [`Started::missing_confinement`].
    #[serde(default)]
    pub unenforced: Vec<String>,
}

/// How strictly an agent is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Without file system confinement the runner exits with [`EXIT_PREREQUISITE`].
    Require,
    /// Uses what the kernel has; what it lacks is reported in [`Started::missing_confinement`].
    #[default]
    BestEffort,
    /// No Landlock; only no-new-privileges and limits.
    Off,
}

/// Name and email for commits made in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitIdentity {
    /// `user.name`.
    pub name: String,
    /// `user.email`.
    pub email: String,
}

/// Resource limits for the agent's processes. Those that apply to all of them together are for compute to enforce.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Processes and threads of the session's user.
    pub processes: u64,
    /// Open files per process.
    pub open_files: u64,
    /// Address space of one process, bytes; 0 = no limit.
    pub address_space_bytes: u64,
    /// Largest file, bytes; 0 = no limit.
    pub file_size_bytes: u64,
    /// Memory of all processes together, bytes; 0 = no limit.
    #[serde(default)]
    pub memory_bytes: u64,
    /// CPU of all processes together, thousandths; 0 = no limit.
    #[serde(default)]
    pub cpu_millis: u64,
    /// Disk space of the session's files, bytes; 0 = no limit.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Data segment of one process, bytes; 0 = no limit. Used if there is no cgroup.
    #[serde(default)]
    pub data_bytes: u64,
}

/// Runs up to and including `stopped_run` may never be launched (again).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fence {
    /// Highest run that was stopped; `i64::MAX` once the session is deleted.
    pub stopped_run: i64,
}

/// Identity of a runner process: a pid alone can be reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Process id; also its session id (`setsid`).
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, clock ticks since boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The launch's nonce.
    pub nonce: String,
    /// First process of the attempt's PID namespace: it outlives everything in it, so its end proves that nothing of the agent
    /// is left. None if the kernel allows us no namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ProcessIdentity>,
    /// Parts of the confinement that the kernel lacks, in words; empty if all are in effect.
    pub missing_confinement: Vec<String>,
}

/// Exactly one process within a boot, as the machine numbers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, clock ticks since boot.
    pub start_time: u64,
}

/// Why a runner ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// The launch's nonce.
    pub nonce: String,
    /// Exit code: 0 completed, 2 prerequisite failed, other = the agent's.
    pub code: i32,
    /// In words.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Set if it was not the agent's doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ExitCause>,
}

/// What ended a runner other than its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The file system has no space left, or the quota is used up.
    DiskFull,
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// From 1, without gaps.
    pub n: i64,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// A [`RunnerEvent`](ambient_wire::runner_event::RunnerEvent), or what a runner of an earlier release recorded in its place.
    pub event: Value,
}

/// First frame of a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderHello {
    /// Epoch of the reader's lease; a reader with a lower one is dropped.
    pub epoch: i64,
    /// Log that the cursor refers to; empty for a new reader. If it is not the runner's, the answer has the runner's `log_id`.
    pub log_id: String,
    /// Last record that the reader has stored; 0 = none.
    pub after: i64,
}

/// What a runner sends to its reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum RunnerFrame {
    /// Answer to the hello.
    Welcome {
        /// Identity of the log: one per run.
        log_id: String,
        /// Highest record so far.
        last: i64,
    },
    /// Records in order, from the cursor on; each fsynced. At most 256 per frame.
    Records {
        /// The records.
        records: Vec<Record>,
    },
    /// A reader with a higher epoch has connected.
    Superseded {
        /// Its epoch.
        epoch: i64,
    },
}

/// What a reader sends after its hello: everything up to `n` is durably stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderAck {
    /// Highest stored record.
    pub n: i64,
}

/// A user's message (or the prompt).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverMessage {
    /// Unique; the prompt's is `{session}/{run}/prompt`.
    pub id: String,
    /// The message's place in the session's live log.
    pub seq: i64,
    /// Text.
    pub text: String,
    /// What comes with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<ambient_wire::session::Attachment>,
}

/// The runner has recorded a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The message's id.
    pub id: String,
    /// False if it was known already.
    pub new: bool,
}

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// [`CONTRACT_VERSION`].
    pub version: u32,
    /// Session id.
    pub session_id: String,
    /// Run.
    pub run: i64,
    /// Attempt.
    pub attempt: i32,
    /// Log of the run.
    pub log_id: String,
    /// `idle`, `working` or `ending`.
    pub state: String,
}

/// Body of every failure of the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerError {
    /// `bad_input`, `unauthorized`, `not_found`, `conflict`, `stale`, `too_large`, `busy`, `git`, `internal`.
    pub code: String,
    /// In words, without secrets.
    pub reason: String,
    /// The input field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}
