//! MCP servers from a file.

use std::path::Path;

use ambient_wire::mcp::McpServer;
use serde_json::Value;

use super::input;
use crate::error::CliError;

/// A list in the API's form, or an object with `mcpServers` by name, as other tools have it.
pub(crate) fn servers(file: &Path) -> Result<Vec<McpServer>, CliError> {
    let text = input::text_of("--mcp", Some(file))?.unwrap_or_default();
    read(&text).map_err(|reason| CliError::Usage(format!("--mcp: {reason}")))
}

fn read(text: &str) -> Result<Vec<McpServer>, String> {
    let given: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let servers = match &given["mcpServers"] {
        Value::Object(by_name) => by_name.iter().map(|(name, server)| named(name, server)).collect(),
        _ if given.is_array() => given.as_array().cloned().unwrap_or_default(),
        _ => return Err("it is neither a list nor an object with 'mcpServers'".to_owned()),
    };
    let read = |(i, server): (usize, Value)| {
        serde_json::from_value(server).map_err(|error| format!("server {}: {error}", i + 1))
    };
    servers.into_iter().enumerate().map(read).collect()
}

fn named(name: &str, server: &Value) -> Value {
    let mut server = server.clone();
    if let Some(fields) = server.as_object_mut() {
        fields.insert("name".to_owned(), name.into());
        if !fields.contains_key("type") {
            let kind = if fields.contains_key("url") { "http" } else { "stdio" };
            fields.insert("type".to_owned(), kind.into());
        }
    }
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_what_is_neither_is_named() {
        let ours =
            r#"[{"type": "stdio", "name": "files", "command": "npx", "args": ["-y", "files"], "env": {"A": "${A}"}}]"#;
        let theirs = r#"{"mcpServers": {"files": {"command": "npx", "args": ["-y", "files"], "env": {"A": "${A}"}}}}"#;
        assert_eq!(read(ours).unwrap(), read(theirs).unwrap());
        let http = read(r#"{"mcpServers": {"b": {"url": "https://h/mcp"}}}"#).unwrap();
        assert!(matches!(&http[..], [McpServer::Http { name, .. }] if name == "b"));
        for (text, told) in [
            ("{", "not JSON"),
            ("{}", "neither"),
            (r#"[{"type": "stdio", "name": "x"}]"#, "server 1: missing field `command`"),
            (r#"{"mcpServers": {"x": {"command": "x", "odd": 1}}}"#, "server 1: unknown field `odd`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
