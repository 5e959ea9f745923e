//! Projects.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent_type::AgentCommand,
    api::{object, objects, one_object},
    mcp::McpServer,
    model::{ModelBudget, ModelRules},
    network::Network,
    permission::Permissions,
    retention::Retention,
    session::SecretText,
};

/// A project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// `Project`.
    pub kind: String,
    /// KSUID.
    pub id: String,
    /// `/api/ambient/v1/projects/{id}`.
    pub href: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Number of operations so far; what `If-Match` compares.
    pub version: i64,
    /// Unique name.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Description.
    pub description: String,
    /// Prompt for its sessions. Only stored: agents do not get it yet.
    pub prompt: String,
    /// `Active` or `Terminating`.
    pub status: String,
    /// Whether its space has been set up.
    pub provisioned: bool,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// For tools.
    pub annotations: BTreeMap<String, String>,
    /// Names of its sessions' environment variables. Their values are never shown.
    #[serde(default)]
    pub environment_variable_names: Vec<String>,
    /// Defaults for its sessions.
    pub settings: ProjectSettings,
}

/// Defaults for a project's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSettings {
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<String>,
    /// Seconds without activity before a session is stopped; 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// What sessions may do without asking, after what they and their agents say themselves.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// Program that runs as the agent, where neither session nor agent says; the server's, or `custom` with a command, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Command in place of that agent type's; it speaks the Agent Client Protocol.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<AgentCommand>,
    /// MCP servers that agents are told of, where neither session nor agent has any.
    #[serde(default, deserialize_with = "objects", skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// What agents may reach of the network; the server's when absent.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Shell script that prepares workspaces, where neither session nor agent has one; the repositories' own when absent. At most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
    /// For how long what finished sessions have left is kept.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "Retention::is_empty")]
    pub retention: Retention,
    /// Which models agents may ask, how much one session may use, where they are asked and with whose key.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "ModelRules::is_empty")]
    pub models: ModelRules,
    /// How much all sessions together may use of models. Changes apply to running sessions within seconds.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub model_budget: Option<ModelBudget>,
}

/// `POST /projects`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectCreate {
    /// Unique name: `^[a-z][a-z0-9-]*[a-z0-9]$`, 2-63 characters.
    pub name: String,
    /// Display name.
    #[serde(default)]
    pub display_name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Prompt for its sessions. Only stored: agents do not get it yet.
    #[serde(default)]
    pub prompt: String,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Environment variables for its sessions; those of an agent, and then those of a session, go before them by name. Values are sealed
    /// and never shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub environment_variables: BTreeMap<String, SecretText>,
    /// Defaults for its sessions.
    #[serde(default, deserialize_with = "one_object")]
    pub settings: ProjectSettings,
}

/// `PATCH /projects/{id}`: a JSON merge patch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectPatch {
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Prompt for its sessions. Only stored: agents do not get it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
    /// Variables to set (value) or remove (null), for runs that are started from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    pub environment_variables: Option<BTreeMap<String, Option<SecretText>>>,
    /// All settings; replaces them.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub settings: Option<ProjectSettings>,
}

/// A role in a project. `POST /projects/{id}/permissions` grants it, replacing the subject's previous one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectPermission {
    /// `user` or `group`.
    pub subject_type: String,
    /// Name of the user or group.
    pub subject_name: String,
    /// `view`, `edit` or `admin`.
    pub role: String,
}
