//! What runners are told about agents, from what sessions say.

use ambient_domain::{mcp::McpServer, session::Session};
use ambient_runner_protocol::AgentSettings;
use serde_json::{Value, json};

/// Mode, model and options that the agent of the session's run is to have.
#[must_use]
pub fn settings(session: &Session) -> AgentSettings {
    let wanted = session.agent_settings();
    AgentSettings { mode: wanted.mode, model: wanted.model, options: wanted.options }
}

/// An MCP server as the Agent Client Protocol has it.
#[must_use]
pub fn mcp_server(server: &McpServer) -> Value {
    let list = |values: &std::collections::BTreeMap<String, String>| -> Vec<Value> {
        values.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
    };
    match server {
        McpServer::Stdio { name, command, args, env } => {
            json!({ "name": name, "command": command, "args": args, "env": list(env) })
        }
        McpServer::Http { name, url, headers } => {
            json!({ "type": "http", "name": name, "url": url, "headers": list(headers) })
        }
        McpServer::Sse { name, url, headers } => {
            json!({ "type": "sse", "name": name, "url": url, "headers": list(headers) })
        }
    }
}
