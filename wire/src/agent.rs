//! Agents: definitions that sessions are created from.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent_type::AgentCommand,
    api::{object, objects, one_object, optional_objects, present, present_object},
    definition::Definition,
    mcp::McpServer,
    model::ModelRules,
    network::Network,
    permission::Permissions,
    session::{ResourceOverrides, ResourcePatch, SecretText},
};

/// An agent: a worker, described once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// `Agent`.
    pub kind: String,
    /// KSUID.
    pub id: String,
    /// `/api/ambient/v1/agents/{id}`.
    pub href: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Number of operations so far; what `If-Match` compares.
    pub version: i64,
    /// Project id.
    pub project_id: String,
    /// Unique in the project.
    pub name: String,
    /// User id of its creator.
    pub created_by_user_id: String,
    /// Display name.
    pub display_name: String,
    /// Description.
    pub description: String,
    /// Who it is and how it works.
    pub prompt: String,
    /// Repository it works on.
    pub repo_url: Option<String>,
    /// Program that runs as this agent.
    pub agent_type: Option<String>,
    /// Command in place of the agent type's.
    #[serde(default)]
    pub agent_command: Option<AgentCommand>,
    /// Mode of the agent, by its id.
    #[serde(default)]
    pub agent_mode: Option<String>,
    /// MCP servers that its sessions' agents are told of.
    #[serde(default)]
    pub mcp_servers: Vec<McpServer>,
    /// Model.
    pub llm_model: Option<String>,
    /// Sampling temperature.
    pub llm_temperature: Option<f64>,
    /// Limit on output tokens.
    pub llm_max_tokens: Option<i64>,
    /// Chat (true) or batch.
    pub interactive: Option<bool>,
    /// Maximum duration of a run, seconds.
    pub timeout: Option<i64>,
    /// Seconds without activity before it is stopped; 0 = never.
    pub inactivity_timeout: Option<i64>,
    /// Limits that replace the server's.
    #[serde(default)]
    pub resource_overrides: ResourceOverrides,
    /// What its sessions' agents may reach of the network.
    #[serde(default)]
    pub network: Option<Network>,
    /// Shell script that prepares its sessions' workspaces, unless a session has its own.
    #[serde(default)]
    pub setup_script: Option<String>,
    /// Names of its environment variables; values are never shown.
    #[serde(default)]
    pub environment_variable_names: Vec<String>,
    /// Which models its sessions may ask, how much each may use, where they are asked and with whose key.
    #[serde(default)]
    pub models: ModelRules,
    /// What its sessions may do without asking, after what they say themselves.
    #[serde(default)]
    pub permissions: Permissions,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// For tools.
    pub annotations: BTreeMap<String, String>,
}

/// `POST /agents`. Whatever is absent is left to the session, and by it to the project and the server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "project_id": "demo", "name": "reviewer", "prompt": "You review changes.", "agent_type": "script", "labels": { "team": "tools" }
}))]
pub struct AgentCreate {
    /// Project id or name.
    pub project_id: String,
    /// Unique in the project, 1-100 characters.
    pub name: String,
    /// Display name.
    #[serde(default)]
    pub display_name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Who it is and how it works.
    #[serde(default)]
    pub prompt: String,
    /// Repository it works on: `https://…` or `file:///…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<String>,
    /// Program that runs as this agent, such as `script`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Command in place of the agent type's; it speaks the Agent Client Protocol.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<AgentCommand>,
    /// Mode that the agent is put into, by its id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<String>,
    /// MCP servers that its sessions' agents are told of, unless a session has its own.
    #[serde(default, deserialize_with = "objects", skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<String>,
    /// Sampling temperature, 0-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_temperature: Option<f64>,
    /// Limit on output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_max_tokens: Option<i64>,
    /// Chat (true) or batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// Maximum duration of a run, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Seconds without activity before it is stopped; 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// Limits that replace the server's. A limit above the server's maximum is refused.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub resource_overrides: Option<ResourceOverrides>,
    /// What its sessions' agents may reach of the network.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Shell script that prepares its sessions' workspaces, unless a session has its own; at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
    /// Environment variables for its sessions, such as API keys. Values are sealed, at most 16 KiB, and never shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub environment_variables: BTreeMap<String, SecretText>,
    /// Which models its sessions may ask, how much each may use, where they are asked and with whose key.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "ModelRules::is_empty")]
    pub models: ModelRules,
    /// What its sessions may do without asking, after what they say themselves.
    #[serde(default, deserialize_with = "one_object", skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// `PATCH /agents/{id}`: a JSON merge patch. Null leaves a setting to the session again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "a merge patch tells an absent field from null")]
#[schema(example = json!({ "prompt": "You review changes and say why.", "timeout": null }))]
pub struct AgentPatch {
    /// Unique in the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who it is and how it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Repository it works on.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<Option<String>>,
    /// Program that runs as this agent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<Option<String>>,
    /// Command in place of the agent type's; null: none.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<Option<AgentCommand>>,
    /// Mode of the agent; null: its own.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<Option<String>>,
    /// All MCP servers; replaces them.
    #[serde(default, deserialize_with = "optional_objects", skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Vec<McpServer>>,
    /// Model.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<Option<String>>,
    /// Sampling temperature.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub llm_temperature: Option<Option<f64>>,
    /// Limit on output tokens.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub llm_max_tokens: Option<Option<i64>>,
    /// Chat (true) or batch.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Option<bool>>,
    /// Maximum duration of a run, seconds.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Option<i64>>,
    /// Seconds without activity before it is stopped; 0 = never.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<Option<i64>>,
    /// Limits to set (value) or to return to the server's (null; null in place of the object returns all of them).
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub resource_overrides: Option<Option<ResourcePatch>>,
    /// What its sessions' agents may reach of the network; null: the project's or the server's.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub network: Option<Option<Network>>,
    /// Shell script that prepares its sessions' workspaces; null: the repositories' own.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<Option<String>>,
    /// Environment variables to set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    pub environment_variables: Option<BTreeMap<String, Option<SecretText>>>,
    /// All that is said about models, in place of what was said before; null: nothing.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub models: Option<Option<ModelRules>>,
    /// All permissions, in place of those before; null: none.
    #[serde(default, deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Option<Permissions>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
}

impl Definition for Agent {
    const KIND: &'static str = "Agent";
    const ENTITY_KIND: &'static str = "agent";
    const PATH: &'static str = "agents";
    const PARAM: &'static str = "agent_id";
    const ABOUT: &'static str = "Agents: workers, described once";
    const TABLE: &'static [&'static str] = &["agent_type", "llm_model", "description"];
    type Create = AgentCreate;
    type Patch = AgentPatch;
}
