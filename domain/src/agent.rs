//! Agents: workers, described once. A definition that sessions are created from; the program that a session runs is its
//! *agent type*.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    column::{Column, ColumnType::Text},
    definition::{Definition, DefinitionSpec},
    entity::Refusal,
    mcp::{self, McpServer},
    model_rules::ModelRules,
    name,
    network::Network,
    patch::{merge, nullable},
    permission::Permissions,
    session::{AgentCommand, ResourceOverrides, ResourcePatch, launch, validate_command},
};

/// An agent of a project.
pub type Agent = Definition<AgentSpec>;

/// What people write about an agent. Whatever is absent is left to the session, and by it to the project and the server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Display name; empty: the name.
    #[serde(default)]
    pub display_name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Who it is and how it works.
    #[serde(default)]
    pub prompt: String,
    /// Repository it works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<String>,
    /// Program that runs as this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Command in place of the agent type's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<AgentCommand>,
    /// Mode of the agent, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<String>,
    /// MCP servers that its sessions' agents are told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    /// Limits that replace the server's.
    #[serde(default, skip_serializing_if = "ResourceOverrides::is_empty")]
    pub resource_overrides: ResourceOverrides,
    /// What its sessions' agents may reach of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What prepares its sessions' workspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
    /// Environment variables for its sessions: name to the id under which the value is sealed. Values are never in operations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment_variables: BTreeMap<String, String>,
    /// Which models its sessions may ask, where, and how much of them each may use.
    #[serde(default, skip_serializing_if = "ModelRules::is_empty")]
    pub models: ModelRules,
    /// What its sessions may do without asking, after what they say themselves.
    #[serde(default, skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Changes to an agent; absent = unchanged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "outer: absent; inner: null, which clears the field")]
pub struct AgentPatch {
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
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<Option<String>>,
    /// Program that runs as this agent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<Option<String>>,
    /// Command in place of the agent type's.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub agent_command: Option<Option<AgentCommand>>,
    /// Mode of the agent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub agent_mode: Option<Option<String>>,
    /// All MCP servers, in place of those before; null: none.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Option<Vec<McpServer>>>,
    /// Model.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub llm_model: Option<Option<String>>,
    /// Sampling temperature.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub llm_temperature: Option<Option<f64>>,
    /// Limit on output tokens.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub llm_max_tokens: Option<Option<i64>>,
    /// Chat (true) or batch.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Option<bool>>,
    /// Maximum duration of a run, seconds.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Option<i64>>,
    /// Seconds without activity before it is stopped.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<Option<i64>>,
    /// Limits to set (value) or to return to the server's (null; null in place of the object returns all of them).
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub resource_overrides: Option<Option<ResourcePatch>>,
    /// What its sessions' agents may reach of the network.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub network: Option<Option<Network>>,
    /// What prepares its sessions' workspaces.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<Option<String>>,
    /// Variables to set (id of the sealed value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_variables: Option<BTreeMap<String, Option<String>>>,
    /// All that is said about models, in place of what was said before; null: nothing.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub models: Option<Option<ModelRules>>,
    /// All permissions, in place of those before; null: none.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Option<Permissions>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
}

impl DefinitionSpec for AgentSpec {
    const KIND: &'static str = "agent";
    const TITLE: &'static str = "Agent";
    const COLUMNS: &'static [Column<Agent>] = &[
        Agent::NAME,
        Agent::CREATED_BY,
        Agent::LABELS,
        Column::new("display_name", Text, |a: &Agent| json!(a.spec.display_name)).ordered(),
        Column::new("agent_type", Text, |a: &Agent| json!(a.spec.agent_type))
            .filtered("Program that runs as the agent.")
            .ordered(),
        Column::new("llm_model", Text, |a: &Agent| json!(a.spec.llm_model)).filtered("Model.").ordered(),
    ];
    const RULES_SESSIONS: bool = true;
    type Patch = AgentPatch;

    fn validate(&self) -> Result<(), Refusal> {
        if !self.display_name.is_empty() {
            name::display("display_name", &self.display_name, 100)?;
        }
        name::text("description", &self.description)?;
        name::text("prompt", &self.prompt)?;
        self.repo_url.as_ref().map_or(Ok(()), |url| name::git_url("repo_url", url))?;
        self.agent_type.as_ref().map_or(Ok(()), |agent_type| name::display("agent_type", agent_type, 100))?;
        self.agent_command.as_ref().map_or(Ok(()), validate_command)?;
        launch::mode(self.agent_mode.as_deref())?;
        mcp::validate(&self.mcp_servers)?;
        launch::model(self.llm_model.as_deref())?;
        launch::temperature(self.llm_temperature)?;
        launch::max_tokens(self.llm_max_tokens)?;
        launch::timeout(self.timeout)?;
        launch::inactivity_timeout(self.inactivity_timeout)?;
        self.resource_overrides.validate()?;
        self.network.as_ref().map_or(Ok(()), Network::validate)?;
        launch::setup_script(self.setup_script.as_deref())?;
        name::environment("environment_variables", self.environment_variables.keys())?;
        self.models.validate("models", &self.environment_variables)?;
        self.permissions.validate("permissions")?;
        name::map("labels", &self.labels)?;
        name::map("annotations", &self.annotations)
    }

    fn patched(&self, patch: &AgentPatch) -> Self {
        let (mut spec, patch) = (self.clone(), patch.clone());
        spec.display_name = patch.display_name.unwrap_or(spec.display_name);
        spec.description = patch.description.unwrap_or(spec.description);
        spec.prompt = patch.prompt.unwrap_or(spec.prompt);
        spec.repo_url = patch.repo_url.unwrap_or(spec.repo_url);
        spec.agent_type = patch.agent_type.unwrap_or(spec.agent_type);
        spec.agent_command = patch.agent_command.unwrap_or(spec.agent_command);
        spec.agent_mode = patch.agent_mode.unwrap_or(spec.agent_mode);
        spec.mcp_servers = patch.mcp_servers.map_or(spec.mcp_servers, Option::unwrap_or_default);
        spec.llm_model = patch.llm_model.unwrap_or(spec.llm_model);
        spec.llm_temperature = patch.llm_temperature.unwrap_or(spec.llm_temperature);
        spec.llm_max_tokens = patch.llm_max_tokens.unwrap_or(spec.llm_max_tokens);
        spec.interactive = patch.interactive.unwrap_or(spec.interactive);
        spec.timeout = patch.timeout.unwrap_or(spec.timeout);
        spec.inactivity_timeout = patch.inactivity_timeout.unwrap_or(spec.inactivity_timeout);
        let limits =
            patch.resource_overrides.map_or_else(ResourcePatch::default, |all| all.unwrap_or(ResourcePatch::CLEARED));
        spec.resource_overrides = spec.resource_overrides.patched(&limits);
        spec.network = patch.network.unwrap_or(spec.network);
        spec.setup_script = patch.setup_script.unwrap_or(spec.setup_script);
        merge(&mut spec.environment_variables, patch.environment_variables);
        spec.models = patch.models.map_or(spec.models, Option::unwrap_or_default);
        spec.permissions = patch.permissions.map_or(spec.permissions, Option::unwrap_or_default);
        merge(&mut spec.labels, patch.labels);
        merge(&mut spec.annotations, patch.annotations);
        spec
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}
