//! Agent types: programs that can run as agents, and commands in their place.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A program that can run as an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentType {
    /// `AgentType`.
    pub kind: String,
    /// Name, as in `agent_type` of sessions and agents.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Whether sessions can run it on this server.
    pub installed: bool,
    /// Environment variables that a session has to set for it, one of each group: `["OPENAI_API_KEY"]`.
    pub variables: Vec<String>,
}

/// A command that speaks the Agent Client Protocol over its standard input and output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentCommand {
    /// Program: a path, or a name that is looked for on the session's `PATH`. It runs with the session's rights, and must be readable to
    /// sessions.
    pub program: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Folder in the workspace that it works in; the main repository, or else the workspace, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}
