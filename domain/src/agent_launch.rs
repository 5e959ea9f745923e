//! The program that runs as a session's agent: what people say of it, and what a run goes by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{mcp::McpServer, network::Network};

/// A command that people give in place of an agent type's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentCommand {
    /// Program: a path, or a name that is looked for on the session's `PATH`.
    pub program: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Folder in the workspace that it works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// What a run's agent is started with, as resolved when the run was started. Contains no secrets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentLaunch {
    /// Agent type, by name.
    pub agent_type: String,
    /// Definition that it was resolved with, and its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionVersion>,
    /// How it is started; none for an agent that is built into the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<AgentCommand>,
    /// Variables of the agent type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// How it is told where models are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<AgentEndpoint>,
    /// Variables of the project and of the definition, which go before those: name to the id under which the value is sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment_variables: BTreeMap<String, String>,
    /// Files that are written to its home before it starts, by path in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub home_files: BTreeMap<String, String>,
    /// Mode, by the agent's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Model, by the agent's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// MCP servers that it is told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// What it may reach of the network; the server's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What prepares the workspace before its first turn; the repositories' own when absent, nothing when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<String>,
}

/// Where an agent asks models: through the proxy at `path`, else at the value of the session's `variable`, else at `usual`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEndpoint {
    /// Path of the proxy.
    #[serde(default)]
    pub path: String,
    /// Variable of the session.
    pub variable: String,
    /// Address that the agent asks by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<String>,
}

/// What can be switched while an agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentSettings {
    /// Mode, by the agent's id of it.
    pub mode: Option<String>,
    /// Model, by the agent's id of it.
    pub model: Option<String>,
    /// Options, by the agent's ids of them and of their values.
    pub options: BTreeMap<String, String>,
}

/// A version of an agent's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionVersion {
    /// Its id.
    pub id: String,
    /// Number of its operations.
    pub version: i64,
}
