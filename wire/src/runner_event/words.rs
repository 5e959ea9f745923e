//! How what an agent says reads as text.

use serde_json::Value;

/// A content block of the Agent Client Protocol that is not text, in a few words: `[image image/png]`, `[resource file:///a.txt]`.
#[must_use]
pub fn content_in_words(block: &Value) -> String {
    let kind = block["type"].as_str().unwrap_or("content");
    let resource = &block["resource"];
    let details = [&block["uri"], &resource["uri"], &block["name"], &block["mimeType"], &resource["mimeType"]];
    match details.into_iter().find_map(Value::as_str) {
        Some(detail) => format!("[{kind} {detail}]"),
        None => format!("[{kind}]"),
    }
}

/// The command or script in a tool call's arguments, under the names that agents give it.
#[must_use]
pub fn script_of(input: &Value) -> Option<String> {
    ["command", "script", "cmd"].into_iter().find_map(|name| match &input[name] {
        Value::String(script) => Some(script.clone()),
        // What a shell is told follows `-c`.
        Value::Array(words) => {
            let words: Vec<&str> = words.iter().map_while(Value::as_str).collect();
            match words[..] {
                [_, option, script] if option.starts_with('-') && option.ends_with('c') => Some(script.to_owned()),
                [] => None,
                _ => Some(words.join(" ")),
            }
        }
        _ => None,
    })
}

/// What a tool call has returned, if that is text: as it is, or under the names that agents give it.
#[must_use]
pub fn output_in_words(output: &Value) -> Option<&str> {
    if let Value::String(text) = output {
        return Some(text).filter(|text| !text.is_empty()).map(String::as_str);
    }
    let names = ["formatted_output", "aggregated_output", "output", "stdout", "text"];
    let texts = || names.into_iter().filter_map(|name| output[name].as_str());
    texts().find(|text| !text.is_empty()).or_else(|| texts().next())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_text_is_told_by_kind_and_name() {
        for (block, told) in [
            (json!({"type": "image", "data": "aGk=", "mimeType": "image/png"}), "[image image/png]"),
            (json!({"type": "resource", "resource": {"uri": "file:///a", "text": "x"}}), "[resource file:///a]"),
            (json!({"type": "resource_link", "uri": "https://x/", "name": "x"}), "[resource_link https://x/]"),
            (json!(7), "[content]"),
        ] {
            assert_eq!(content_in_words(&block), told);
        }
    }

    #[test]
    fn what_a_call_returned_is_found_under_the_names_that_agents_give_it() {
        for (output, told) in [
            (json!("2 lines"), Some("2 lines")),
            (json!({"stdout": "2", "formatted_output": "2 lines", "exit_code": 0}), Some("2 lines")),
            (json!({"stdout": "", "output": ""}), Some("")),
            (json!(""), None),
            (json!({"rows": 7}), None),
            (json!(null), None),
        ] {
            assert_eq!(output_in_words(&output), told, "{output}");
        }
    }

    #[test]
    fn a_command_is_found_whether_it_is_a_text_or_what_a_shell_is_given() {
        for (input, script) in [
            (json!({"command": "make test", "timeout": 3}), Some("make test")),
            (json!({"command": ["bash", "-lc", "make; echo done"]}), Some("make; echo done")),
            (json!({"command": ["cargo", "test"]}), Some("cargo test")),
            (json!({"command": []}), None),
            (json!({"script": "ls"}), Some("ls")),
            (json!("ls"), None),
        ] {
            assert_eq!(script_of(&input).as_deref(), script, "{input}");
        }
    }
}
