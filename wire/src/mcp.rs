//! MCP servers that agents are told of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A server of the Model Context Protocol. In values of `env` and `headers`, `${NAME}` stands for the session's variable of that name, so that
/// secrets need not be written here, where they would be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum McpServer {
    /// A program that the agent starts, with its own rights, and talks to over standard input and output.
    Stdio {
        /// Unique among the agent's servers, 1-100 characters.
        name: String,
        /// Program: a path, or a name that is looked for on the session's `PATH`.
        command: String,
        /// Its arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
        /// Variables of its environment.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, String>,
    },
    /// Streamable HTTP.
    Http {
        /// Unique among the agent's servers, 1-100 characters.
        name: String,
        /// `https://…` or `http://…`.
        url: String,
        /// Headers of each request.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
    /// HTTP with Server-Sent Events, as earlier servers have it.
    Sse {
        /// Unique among the agent's servers, 1-100 characters.
        name: String,
        /// `https://…` or `http://…`.
        url: String,
        /// Headers of each request.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
}

impl McpServer {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Stdio { name, .. } | Self::Http { name, .. } | Self::Sse { name, .. } => name,
        }
    }
}
