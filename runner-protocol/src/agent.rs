//! Agents that speak the Agent Client Protocol.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How an agent is started. Contains no secrets. In arguments, values of variables and contents of files the runner replaces `{home}`,
/// `{workspace}`, `{endpoint}`, [`MODEL_URL`](crate::MODEL_URL), [`MODEL_TOKEN`](crate::MODEL_TOKEN) and [`MODEL`](crate::MODEL); an argument, a
/// variable or a line of a file for which there is no value is left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentCommand {
    /// Program: a path, or a name that is looked for on the session's `PATH`.
    pub program: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables of its environment; the session's own go before them, the platform's behind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// How it is told where models are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<AgentEndpoint>,
    /// Folder in the workspace that it works in; the main repository, or else the workspace, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Files that are written to its home before it starts, by path in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub home_files: BTreeMap<String, String>,
    /// Settings that it is given when a conversation begins or is loaded.
    #[serde(default)]
    pub settings: AgentSettings,
    /// MCP servers that it is told of, as the protocol has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<Value>,
    /// Id of the agent's own conversation in an earlier run of this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
}

/// What `{endpoint}` stands for: through the proxy its URL with `path`, else the value of the session's `variable`, else `usual`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEndpoint {
    /// Behind the proxy's URL, such as `/v1`.
    #[serde(default)]
    pub path: String,
    /// Variable of the session.
    pub variable: String,
    /// Address that the agent asks by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual: Option<String>,
}

/// What can be switched while an agent runs; absent = unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSettings {
    /// Mode, by the agent's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Model, by the agent's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Options, by the agent's ids of them and of their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// The runner has an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerTaken {
    /// The request.
    pub interrupt_id: String,
    /// False if the request was closed already: answered (then this changes nothing), cancelled, expired or lost.
    pub taken: bool,
}
