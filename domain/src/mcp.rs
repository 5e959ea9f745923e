//! MCP servers that agents are told of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    entity::{Refusal, RefusalCode},
    name::{self, at_most},
};

/// Most MCP servers.
const MAX_SERVERS: usize = 20;
/// Most arguments, variables and headers of one.
const MAX_PARTS: usize = 100;
/// Longest part, bytes.
const MAX_PART: usize = 4096;

/// A server of the Model Context Protocol. In values of `env` and `headers`, `${NAME}` stands for the session's variable of that name, so that
/// secrets need not be written here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum McpServer {
    /// A program that the agent starts, with its own rights, and talks to over standard input and output.
    Stdio {
        /// Unique among the agent's servers.
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
        /// Unique among the agent's servers.
        name: String,
        /// `https://…` or `http://…`.
        url: String,
        /// Headers of each request.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
    /// HTTP with Server-Sent Events, as earlier servers have it.
    Sse {
        /// Unique among the agent's servers.
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

/// Checks every field.
///
/// # Errors
/// A refusal that names the field.
pub(crate) fn validate(servers: &[McpServer]) -> Result<(), Refusal> {
    if servers.len() > MAX_SERVERS {
        return Err(Refusal::invalid("mcp_servers", format!("at most {MAX_SERVERS}")));
    }
    let mut names = BTreeSet::new();
    for (i, server) in servers.iter().enumerate() {
        let field = |name: &str| format!("mcp_servers[{i}].{name}");
        name::display(&field("name"), server.name(), 100)?;
        if !names.insert(server.name()) {
            let reason = format!("{}: '{}' is used twice", field("name"), server.name());
            return Err(Refusal { code: RefusalCode::Conflict, field: Some(field("name")), reason });
        }
        match server {
            McpServer::Stdio { command, args, env, .. } => {
                part(&field("command"), command)?;
                if command.trim().is_empty() {
                    return Err(Refusal::invalid(field("command"), "must not be empty"));
                }
                at_most(MAX_PARTS, &field("args"), args.len())?;
                args.iter().enumerate().try_for_each(|(n, arg)| part(&field(&format!("args[{n}]")), arg))?;
                name::environment(&field("env"), env.keys())?;
                values(&field("env"), env)?;
            }
            McpServer::Http { url, headers, .. } | McpServer::Sse { url, headers, .. } => {
                part(&field("url"), url)?;
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                if rest
                    .is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace))
                {
                    return Err(Refusal::invalid(field("url"), "must be https://HOST… or http://HOST…"));
                }
                if name::has_credentials(url) {
                    let reason = "must not contain credentials: use headers with ${NAME}";
                    return Err(Refusal::invalid(field("url"), reason));
                }
                for header in headers.keys() {
                    if !is_header(header) {
                        let reason = "names are letters, digits and -";
                        return Err(Refusal::invalid(field(&format!("headers.{header}")), reason));
                    }
                }
                values(&field("headers"), headers)?;
            }
        }
    }
    Ok(())
}

fn is_header(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn values(field: &str, values: &BTreeMap<String, String>) -> Result<(), Refusal> {
    at_most(MAX_PARTS, field, values.len())?;
    values.iter().try_for_each(|(name, value)| part(&format!("{field}.{name}"), value))
}

fn part(field: &str, text: &str) -> Result<(), Refusal> {
    name::line(field, text, MAX_PART)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(server: Value) -> Option<String> {
        let server: McpServer = serde_json::from_value(server).unwrap();
        validate(&[server]).err().and_then(|refusal| refusal.field)
    }

    #[test]
    fn every_field_is_checked_and_named() {
        for (server, field) in [
            (json!({"type": "stdio", "name": "a", "command": "npx", "args": ["x"], "env": {"A": "${B}"}}), None),
            (
                json!({"type": "http", "name": "a", "url": "https://h/x", "headers": {"Authorization": "Bearer ${T}"}}),
                None,
            ),
            (json!({"type": "stdio", "name": "", "command": "npx"}), Some("name")),
            (json!({"type": "stdio", "name": "a", "command": " "}), Some("command")),
            (json!({"type": "stdio", "name": "a", "command": "x", "args": ["a\nb"]}), Some("args[0]")),
            (json!({"type": "stdio", "name": "a", "command": "x", "env": {"A": "\u{0}"}}), Some("env.A")),
            (json!({"type": "sse", "name": "a", "url": "ftp://h"}), Some("url")),
            (json!({"type": "sse", "name": "a", "url": "https://"}), Some("url")),
            (json!({"type": "http", "name": "a", "url": "https://u:p@h/"}), Some("url")),
            (json!({"type": "http", "name": "a", "url": "https://h", "headers": {"a b": "x"}}), Some("headers.a b")),
        ] {
            let expected = field.map(|field| format!("mcp_servers[0].{field}"));
            assert_eq!(refused(server.clone()), expected, "{server}");
        }
        let twice: Vec<McpServer> = serde_json::from_value(json!([
            {"type": "stdio", "name": "a", "command": "x"}, {"type": "sse", "name": "a", "url": "http://h"}
        ]))
        .unwrap();
        assert_eq!(validate(&twice).unwrap_err().field.as_deref(), Some("mcp_servers[1].name"));
    }

    #[test]
    fn fields_that_a_kind_of_server_does_not_have_are_refused() {
        for odd in [
            json!({"type": "stdio", "name": "a", "command": "x", "url": "http://h"}),
            json!({"type": "http", "name": "a", "url": "http://h", "env": {}}),
            json!({"name": "a", "command": "x"}),
        ] {
            assert!(serde_json::from_value::<McpServer>(odd.clone()).is_err(), "{odd}");
        }
    }
}
