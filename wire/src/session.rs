//! Sessions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent_type::AgentCommand,
    api::{object, objects, one_object, optional_objects, present, present_object},
    mcp::McpServer,
    model::ModelRules,
    network::Network,
    permission::Permissions,
    playbook::{Playbook, ReconciledPlaybook},
    repo::{Repo, RepoOutputStatus},
    retention::SessionRetention,
};

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// `Session`.
    pub kind: String,
    /// KSUID.
    pub id: String,
    /// `/api/ambient/v1/sessions/{id}`.
    pub href: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Number of operations so far; what `If-Match` compares.
    pub version: i64,
    /// Project id.
    pub project_id: String,
    /// Display name.
    pub name: String,
    /// First message of every run.
    pub prompt: Option<String>,
    /// Wanted repositories.
    pub repos: Vec<Repo>,
    /// Place in `repos`, from 0, of the one that the agent works in; null: the only one, or else the workspace.
    #[serde(default)]
    pub main_repo_index: Option<u32>,
    /// Playbook that its agent is to go by.
    #[serde(default)]
    pub active_workflow: Option<Playbook>,
    /// Agent that the session belongs to.
    pub agent_id: Option<String>,
    /// Program that runs as the agent.
    pub agent_type: String,
    /// Command in place of the agent type's.
    #[serde(default)]
    pub agent_command: Option<AgentCommand>,
    /// Mode of the agent, by its id.
    #[serde(default)]
    pub agent_mode: Option<String>,
    /// Options of the agent, by its ids of them and of their values.
    #[serde(default)]
    pub agent_options: BTreeMap<String, String>,
    /// MCP servers that the agent is told of, as the session itself says; without any, its agent's.
    #[serde(default)]
    pub mcp_servers: Vec<McpServer>,
    /// Chat (true) or batch.
    pub interactive: bool,
    /// Completes at the end of a turn even if interactive.
    pub stop_on_run_finished: bool,
    /// Maximum duration of a run, seconds; null = no limit.
    pub timeout: Option<i64>,
    /// Seconds without activity before it is stopped; 0 = never.
    pub inactivity_timeout: i64,
    /// Model.
    pub llm_model: Option<String>,
    /// Sampling temperature.
    pub llm_temperature: f64,
    /// Limit on output tokens.
    pub llm_max_tokens: i64,
    /// Limits that the session sets itself; the server's apply otherwise.
    #[serde(default)]
    pub resource_overrides: ResourceOverrides,
    /// What its agent may reach of the network, if the session itself says so; else its agent's definition does, its project, or the server.
    #[serde(default)]
    pub network: Option<Network>,
    /// Shell script that prepares its workspace, if the session itself says so.
    #[serde(default)]
    pub setup_script: Option<String>,
    /// Names of its environment variables; their values are never shown.
    #[serde(default)]
    pub environment_variable_names: Vec<String>,
    /// What the session itself says about models; its agent, its project and the server say more, see `GET /sessions/{id}/models`.
    #[serde(default)]
    pub models: ModelRules,
    /// What the agent may do without asking, as the session itself says; its agent's and project's are added at each launch.
    #[serde(default)]
    pub permissions: Permissions,
    /// Session that this one was made from.
    pub parent_session_id: Option<String>,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// For tools.
    pub annotations: BTreeMap<String, String>,
    /// User id of its creator.
    pub created_by_user_id: String,
    /// `Pending`, `Creating`, `Running`, `Stopping`, `Stopped`, `Completed`, `Failed`; null if never started.
    pub phase: Option<String>,
    /// Start-to-stop cycle; 0 if never started.
    pub run: i64,
    /// Launch within the run.
    pub attempt: i32,
    /// Number of restarts over all runs.
    pub sdk_restart_count: i64,
    /// The agent's own id of its conversation; null if it has none, as `script`, or has not started yet.
    #[serde(default)]
    pub sdk_session_id: Option<String>,
    /// Version of the declarative part of the spec.
    pub generation: i64,
    /// Generation in effect.
    pub observed_generation: i64,
    /// When the last run was accepted.
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended.
    pub completion_time: Option<DateTime<Utc>>,
    /// How the last run ended: its reason, message and exit code.
    pub outcome: Option<SessionOutcome>,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Why it is not running, and what happens next.
    pub status_detail: Option<StatusDetail>,
    /// Repositories as they currently are.
    pub reconciled_repos: Vec<ReconciledRepo>,
    /// Playbook that is in effect.
    #[serde(default)]
    pub reconciled_workflow: Option<ReconciledPlaybook>,
    /// What has become of its repositories in the current or last run, in the order of their names; those that were neither pushed nor
    /// abandoned are not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_statuses: Option<Vec<RepoOutputStatus>>,
    /// What the agent said last in the current or last run, as of the end of its last turn; at most 16,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// What went wrong in the current or last run: why its last turn did not finish, or why the run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Highest seq of the live log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<i64>,
    /// What retention has removed of it; absent if nothing, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<SessionRetention>,
}

/// Limits of a session: for all its processes together, except `open_files`, which is per process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceOverrides {
    /// CPU, such as `500m`, `0.5` or `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^([1-9][0-9]{0,5}m|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,2}(\.[0-9]{1,3})?)$",
        example = "500m"
    )]
    pub cpu: Option<String>,
    /// Memory, such as `512Mi`, `2Gi` or `1G`; an agent that reaches it is killed and the session fails with `OutOfMemory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^([1-9][0-9]{0,17}|(0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,5}(\.[0-9]{1,3})?)(k|M|G|T|Ki|Mi|Gi|Ti))$",
        example = "2Gi"
    )]
    pub memory: Option<String>,
    /// Maximum number of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16, maximum = 4_194_304)]
    pub processes: Option<u64>,
    /// Disk space for the session's files, such as `10Gi`; above it the agent is killed and the session fails with `DiskFull`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^([1-9][0-9]{0,17}|(0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,5}(\.[0-9]{1,3})?)(k|M|G|T|Ki|Mi|Gi|Ti))$",
        example = "10Gi"
    )]
    pub disk: Option<String>,
    /// Maximum number of open files per process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 64, maximum = 1_048_576)]
    pub open_files: Option<u64>,
}

/// Changes to a session's limits: a value sets one, null returns it to the server's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "a merge patch tells an absent field from null")]
pub struct ResourcePatch {
    /// CPU.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^([1-9][0-9]{0,5}m|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,2}(\.[0-9]{1,3})?)$"
    )]
    pub cpu: Option<Option<String>>,
    /// Memory.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^([1-9][0-9]{0,17}|(0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,5}(\.[0-9]{1,3})?)(k|M|G|T|Ki|Mi|Gi|Ti))$"
    )]
    pub memory: Option<Option<String>>,
    /// Maximum number of processes and threads.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16, maximum = 4_194_304)]
    pub processes: Option<Option<u64>>,
    /// Disk space for the session's files.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^([1-9][0-9]{0,17}|(0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,5}(\.[0-9]{1,3})?)(k|M|G|T|Ki|Mi|Gi|Ti))$"
    )]
    pub disk: Option<Option<String>>,
    /// Maximum number of open files per process.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 64, maximum = 1_048_576)]
    pub open_files: Option<Option<u64>>,
}

/// A secret in a request; not shown when printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// How a run will end or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionOutcome {
    /// `Stopped`, `Completed` or `Failed`.
    pub phase: String,
    /// Reason, in one word.
    pub reason: String,
    /// Message, for people.
    pub message: String,
    /// The runner's exit code, if it had one.
    pub exit_code: Option<i32>,
}

/// A repository as it is in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReconciledRepo {
    /// Directory.
    pub name: String,
    /// Origin.
    pub url: String,
    /// Checked-out branch.
    pub branch: Option<String>,
    /// Commit checked out at the end of the last turn, or, before the first, when it was reconciled. As claimed by the agent's repository.
    pub head: Option<String>,
    /// When it was cloned.
    pub cloned_at: DateTime<Utc>,
    /// Remarks, in words: it is empty, parts of it were not fetched, it cannot be read.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// `Ready`, `RunnerStarted`, `TornDown`, …
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason, in one word.
    pub reason: String,
    /// Message, for people.
    pub message: String,
    /// Last change of `status`.
    pub last_transition_time: DateTime<Utc>,
    /// Generation at which it was observed.
    pub observed_generation: i64,
}

/// Why a session is not running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusDetail {
    /// Reason, in one word.
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What it is waiting for.
    pub blocked_on: Option<String>,
    /// Next attempt.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Workflow id of the execution working on it.
    pub workflow_execution: Option<String>,
}

/// `POST /sessions`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionCreate {
    /// Project id or name.
    pub project_id: String,
    /// Display name, 1-100 characters; made from the prompt when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// First message of every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Repositories.
    #[serde(default, deserialize_with = "objects")]
    pub repos: Vec<Repo>,
    /// Place in `repos`, from 0, of the one that the agent works in; when absent, the only one, or else the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_repo_index: Option<u32>,
    /// Playbook that its agent goes by: a folder of a git repository with instructions, commands and agents.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub active_workflow: Option<Playbook>,
    /// Agent that the session belongs to, in the same project. What the session leaves open comes from it: agent type, model and limits when the session
    /// is created; command, mode, network, setup script, variables and permissions at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Agent type; the agent's, the project's, or else the server's (`custom` with a command), when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Command in place of the agent type's; it speaks the Agent Client Protocol.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<AgentCommand>,
    /// Mode that the agent is put into, by its id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<String>,
    /// Options that the agent is given, by its ids of them and of their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agent_options: BTreeMap<String, String>,
    /// MCP servers that the agent is told of; its agent's or its project's, if there are none.
    #[serde(default, deserialize_with = "objects", skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// Chat (true, the default) or batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// Complete at the end of a turn even if interactive.
    #[serde(default)]
    pub stop_on_run_finished: bool,
    /// Maximum duration of a run, seconds; when absent 300 for batch, no limit for interactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Seconds without activity before it is stopped; 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<String>,
    /// Sampling temperature; 0.7 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_temperature: Option<f64>,
    /// Limit on output tokens; 4000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_max_tokens: Option<i64>,
    /// Limits that replace the server's. A limit above the server's maximum is refused.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub resource_overrides: Option<ResourceOverrides>,
    /// What the agent may reach of the network; its agent's, its project's, or else the server's, when absent.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Shell script that prepares the workspace before the first turn, with the agent's rights; its agent's, its project's, or else
    /// each repository's `.ambient/setup.sh`, when absent; empty: none. At most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
    /// Environment variables for the agent, such as API keys. Values are sealed, at most 16 KiB, and never shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub environment_variables: BTreeMap<String, SecretText>,
    /// Which models it may ask, how much it may use, where they are asked and with whose key.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "ModelRules::is_empty")]
    pub models: ModelRules,
    /// What the agent may do without asking.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// Session that this one is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_session_id: Option<String>,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Start at once.
    #[serde(default)]
    pub start: bool,
}

/// `PATCH /sessions/{id}`: a JSON merge patch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "a merge patch tells an absent field from null")]
pub struct SessionPatch {
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// First message of every run.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Option<String>>,
    /// All repositories; replaces them.
    #[serde(default, deserialize_with = "optional_objects", skip_serializing_if = "Option::is_none")]
    pub repos: Option<Vec<Repo>>,
    /// Place in `repos`, from 0, of the one that the agent works in; null: the only one, or else the workspace.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub main_repo_index: Option<Option<u32>>,
    /// Playbook, at any time; null: none.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub active_workflow: Option<Option<Playbook>>,
    /// Command in place of the agent type's; null: none.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<Option<AgentCommand>>,
    /// Mode of the agent, at any time; null leaves it as it is, and the next run to what its agent says.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<Option<String>>,
    /// Options of the agent to set (value) or remove (null), at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_options: Option<BTreeMap<String, Option<String>>>,
    /// All MCP servers; replaces them.
    #[serde(default, deserialize_with = "optional_objects", skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<McpServer>>,
    /// Maximum duration of a run, seconds.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Option<i64>>,
    /// Seconds without activity before it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// Model, at any time, as far as the agent can change it while it runs.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<Option<String>>,
    /// Sampling temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_temperature: Option<f64>,
    /// Limit on output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_max_tokens: Option<i64>,
    /// Limits to set (value) or to return to the server's (null; null in place of the object returns all of them).
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub resource_overrides: Option<Option<ResourcePatch>>,
    /// What the agent may reach of the network; null: its agent's, its project's, or else the server's.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub network: Option<Option<Network>>,
    /// Shell script that prepares the workspace; null: its agent's, its project's, or else the repositories' own.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<Option<String>>,
    /// Environment variables to set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    pub environment_variables: Option<BTreeMap<String, Option<SecretText>>>,
    /// All that is said about models, in place of what was said before; null: nothing. Limits may be changed at any time, the rest while
    /// the session does not run.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub models: Option<Option<ModelRules>>,
    /// All permissions, in place of those before, at any time; null: none.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Option<Permissions>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
}

/// `POST /sessions/{id}/start`; the body may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionStart {
    /// Prompt for this run, in place of the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

/// `POST /sessions/{id}/stop`; the body may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionStop {
    /// Administrators only: do not wait for the proof that nothing is left.
    #[serde(default)]
    pub force: bool,
}

/// `POST /sessions/{id}/messages`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageCreate {
    /// Text, at most 1 MiB.
    pub text: String,
    /// What comes with it, at most 10.
    #[serde(default, deserialize_with = "objects", skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Start the session if it is not running.
    #[serde(default)]
    pub start: bool,
}

/// Something that a message comes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Attachment {
    /// A file of the workspace, read with the agent's rights when the message is worked on: an image, audio or text goes into the message if the
    /// agent takes such, anything else is named.
    File {
        /// In the workspace, such as `hello/shot.png`.
        path: String,
    },
    /// Something elsewhere, which the agent may fetch.
    Link {
        /// Its address, such as `https://…`.
        uri: String,
        /// What it is called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// An accepted message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageAccepted {
    /// `Message`.
    pub kind: String,
    /// Message id.
    pub id: String,
    /// Session id.
    pub session_id: String,
    /// Its place in the live log, if known.
    pub seq: Option<i64>,
}

/// A repository of a session, as wanted and as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionRepo {
    /// Directory in the workspace.
    pub name: String,
    /// Origin.
    pub url: String,
    /// Wanted branch, or the one checked out; null = the remote's default.
    pub branch: Option<String>,
    /// `Wanted` (not in the workspace yet), `Reconciled`, `Missing` (its folder was gone at the end of the last turn), `Broken` (its
    /// state could not be saved then), or `Removing` (no longer wanted).
    pub status: String,
    /// Commit checked out at the end of the last turn, or, before the first, when it was reconciled. As claimed by the agent's repository.
    pub head: Option<String>,
    /// When it was cloned.
    pub cloned_at: Option<DateTime<Utc>>,
    /// Remarks, in words: it is empty, parts of it were not fetched, it cannot be read.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// A compute resource of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionResource {
    /// `process`, `directory`, `socket`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// State, in one word.
    pub status: String,
    /// Details, in words.
    pub detail: String,
}

/// A message of a session's conversation, assembled from its live log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// `Message`.
    pub kind: String,
    /// Message id.
    pub id: String,
    /// Session id.
    pub session_id: String,
    /// `user` or `assistant`.
    pub role: String,
    /// Text.
    pub text: String,
    /// What came with it.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// Place in the live log where it starts.
    pub seq: i64,
    /// When it started.
    pub at: DateTime<Utc>,
}
