//! MCP servers as the agent is told of them.

use serde_json::Value;

use super::content;

/// Those that the agent can use, and why others are left out, in words.
///
/// `${NAME}` in values of variables and headers becomes the value of the session's variable.
pub(super) fn servers<'a>(
    given: &[Value],
    capabilities: &Value,
    variable: impl Fn(&str) -> Option<&'a str>,
) -> (Vec<Value>, Vec<String>) {
    let (mut servers, mut left_out) = (Vec::new(), Vec::new());
    for server in given {
        let name = content::short(server["name"].as_str().unwrap_or_default());
        let transport = server["type"].as_str();
        if let Some(transport) = transport.filter(|transport| capabilities["mcpCapabilities"][*transport] != true) {
            left_out.push(format!("MCP server '{name}' is left out: the agent knows none over {transport}"));
            continue;
        }
        let mut server = server.clone();
        let filled = ["env", "headers"].into_iter().try_for_each(|part| fill(&mut server[part], &variable));
        match filled {
            Ok(()) => {
                // Asking for a field that a server does not have adds it.
                if let Some(fields) = server.as_object_mut() {
                    fields.retain(|_, value| !value.is_null());
                }
                servers.push(server);
            }
            Err(missing) => {
                left_out.push(format!("MCP server '{name}' is left out: the session has no variable {missing}"));
            }
        }
    }
    (servers, left_out)
}

/// Puts variables in; the first that is missing is an error.
fn fill<'a>(list: &mut Value, variable: &impl Fn(&str) -> Option<&'a str>) -> Result<(), String> {
    for entry in list.as_array_mut().into_iter().flatten() {
        if let Value::String(text) = &mut entry["value"] {
            *text = filled(text, variable)?;
        }
    }
    Ok(())
}

fn filled<'a>(text: &str, variable: &impl Fn(&str) -> Option<&'a str>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else { break };
        out += before;
        out += variable(name).ok_or_else(|| content::short(name))?;
        rest = behind;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_put_in_and_what_cannot_be_used_is_left_out_with_a_reason() {
        let variable = |name: &str| (name == "TOKEN").then_some("s3cret");
        let given = [
            json!({"name": "a", "command": "x", "args": ["${TOKEN}"], "env": [{"name": "T", "value": "<${TOKEN}> ${"}]}),
            json!({"type": "http", "name": "b", "url": "https://h", "headers": [{"name": "A", "value": "Bearer ${TOKEN}"}]}),
            json!({"type": "sse", "name": "c", "url": "https://h", "headers": []}),
            json!({"name": "d", "command": "x", "args": [], "env": [{"name": "T", "value": "${OTHER}"}]}),
        ];
        let (servers, left_out) = servers(&given, &json!({"mcpCapabilities": {"http": true}}), variable);
        assert_eq!(servers[0]["env"][0]["value"], "<s3cret> ${");
        assert_eq!(servers[0]["args"], json!(["${TOKEN}"]), "arguments are seen by everybody on the machine");
        assert!(servers[0].get("headers").is_none());
        assert_eq!(servers[1]["headers"][0]["value"], "Bearer s3cret");
        assert_eq!(servers.len(), 2);
        assert_eq!(
            left_out,
            [
                "MCP server 'c' is left out: the agent knows none over sse",
                "MCP server 'd' is left out: the session has no variable OTHER"
            ]
        );
    }
}
