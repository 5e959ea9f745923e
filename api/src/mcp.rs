//! MCP servers in the API's form and in the domain's.

use ambient_domain::mcp::McpServer;
use ambient_wire::mcp as wire;

pub(crate) fn given(servers: Vec<wire::McpServer>) -> Vec<McpServer> {
    let one = |server| match server {
        wire::McpServer::Stdio { name, command, args, env } => McpServer::Stdio { name, command, args, env },
        wire::McpServer::Http { name, url, headers } => McpServer::Http { name, url, headers },
        wire::McpServer::Sse { name, url, headers } => McpServer::Sse { name, url, headers },
    };
    servers.into_iter().map(one).collect()
}

pub(crate) fn shown(servers: &[McpServer]) -> Vec<wire::McpServer> {
    let one = |server: &McpServer| match server.clone() {
        McpServer::Stdio { name, command, args, env } => wire::McpServer::Stdio { name, command, args, env },
        McpServer::Http { name, url, headers } => wire::McpServer::Http { name, url, headers },
        McpServer::Sse { name, url, headers } => wire::McpServer::Sse { name, url, headers },
    };
    servers.iter().map(one).collect()
}
