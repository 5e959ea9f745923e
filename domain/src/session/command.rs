//! Commands on a session, from people (may be refused) and from reporters of facts (never refused).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    attachment::Attachment, fact::Fact, feedback::Feedback, output::Repo, playbook::Playbook, resources::ResourcePatch,
    spec::Spec,
};
use crate::{
    agent_launch::AgentCommand,
    mcp::McpServer,
    model_rules::ModelRules,
    network::Network,
    permission::{Answer, Permissions},
};

/// Why a stop was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// A person.
    UserStopped,
    /// No activity for the configured time.
    InactivityTimeout,
    /// The run's time is up.
    Timeout,
    /// The budget is used up.
    BudgetExceeded,
}

impl StopReason {
    /// Condition reason.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserStopped => "UserStopped",
            Self::InactivityTimeout => "InactivityTimeout",
            Self::Timeout => "Timeout",
            Self::BudgetExceeded => "BudgetExceeded",
        }
    }
}

/// A message without its body: the body is in the live log, written in the same transaction. Its id is the id of the
/// operation that accepted it; a prompt's is `{session}/{run}/prompt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Length of the text, bytes.
    pub bytes: u64,
    /// SHA-256 of the text, hex.
    pub sha256: String,
    /// What comes with the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

impl Message {
    /// Length and hash of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(text.as_bytes());
        let sha256 = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes: text.len() as u64, sha256, attachments: Vec::new() }
    }
}

/// Changes to a spec; absent = unchanged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "outer: absent; inner: null, which clears the field")]
pub struct SessionPatch {
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Labels to set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Annotations to set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
    /// All repositories; replaces them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repos: Option<Vec<Repo>>,
    /// Place of the repository that the agent works in.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub main_repo_index: Option<Option<u32>>,
    /// Playbook.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub active_workflow: Option<Option<Playbook>>,
    /// Prompt.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Option<String>>,
    /// Command in place of the agent type's.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<Option<AgentCommand>>,
    /// Mode of the agent.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<Option<String>>,
    /// Options of the agent to set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_options: Option<BTreeMap<String, Option<String>>>,
    /// All MCP servers; replaces them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<McpServer>>,
    /// Maximum duration of a run, seconds.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Option<i64>>,
    /// Seconds without activity before it is stopped; 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// Model.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<Option<String>>,
    /// Temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_temperature: Option<f64>,
    /// Limit on output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_max_tokens: Option<i64>,
    /// Limits to set (value) or to return to the server's (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_overrides: Option<ResourcePatch>,
    /// What the agent may reach of the network.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub network: Option<Option<Network>>,
    /// What prepares the workspace.
    #[serde(default, deserialize_with = "crate::patch::nullable", skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<Option<String>>,
    /// Variables to set (id of the sealed value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_variables: Option<BTreeMap<String, Option<String>>>,
    /// All that is said about models; replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<ModelRules>,
    /// All permissions; replaces them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
}

/// Commands.
#[allow(clippy::large_enum_variant, reason = "a command is made once and moved a few times")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// A new session; with `start`, started in the same operation.
    Create {
        /// Id (KSUID).
        session_id: String,
        /// Project id.
        project_id: String,
        /// Desired state, with defaults resolved.
        spec: Box<Spec>,
        /// Start at once.
        start: bool,
    },
    /// Change the spec.
    Patch(SessionPatch),
    /// Add one repository.
    AddRepo(Repo),
    /// Remove one repository.
    RemoveRepo {
        /// Its name.
        name: String,
    },
    /// Start a run.
    Start {
        /// The prompt for this run, in place of the spec's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<Message>,
    },
    /// Stop the run.
    Stop {
        /// Why.
        reason: StopReason,
        /// With an inactivity stop: the last event its author saw; refused if the log is newer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen_seq: Option<i64>,
        /// Only for this run (clocks of a run that is over do nothing).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<i64>,
        /// Administrators: do not wait for the proof.
        #[serde(default)]
        force: bool,
    },
    /// Delete.
    Delete,
    /// A user's message.
    SendMessage {
        /// The message without its text.
        message: Message,
        /// Start the session if it is not running.
        #[serde(default)]
        start: bool,
    },
    /// A person's answer to what the agent asks.
    AnswerInterrupt {
        /// The request.
        interrupt_id: String,
        /// The answer.
        answer: Answer,
        /// With `reject`: what the agent is told instead, as the next message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<Message>,
    },
    /// What a person thinks of what the agent has said or done.
    GiveFeedback(Feedback),
    /// What a workflow or compute has observed.
    Fact {
        /// The run it is about.
        run: i64,
        /// The attempt it is about; 0 = any attempt of the run.
        attempt: i32,
        /// The observation.
        fact: Fact,
    },
}
