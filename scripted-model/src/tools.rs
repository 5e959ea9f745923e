//! From what a scenario wants done to a call of a tool that the agent declares.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

const WRITE: [&str; 6] = ["write", "write_file", "Write", "write_to_file", "fs_write", "create"];
const EDIT: [&str; 6] = ["edit", "replace", "Edit", "edit_file", "replace_in_file", "str_replace"];
const READ: [&str; 6] = ["read", "read_file", "Read", "view", "fs_read", "read_files"];
const SHELL: [&str; 9] = [
    "bash",
    "run_shell_command",
    "Bash",
    "shell",
    "exec_command",
    "shell_command",
    "execute_command",
    "run_command",
    "run_commands",
];
const PLAN: [&str; 6] = ["todowrite", "TodoWrite", "todo_write", "write_todos", "update_plan", "todo"];
/// A patch in the form of Codex, as text or as an argument.
const PATCH: &str = "apply_patch";

const PATHS: [&str; 5] = ["filePath", "file_path", "path", "absolute_path", "target_file"];

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Write {
        path: String,
        content: String,
    },
    Edit {
        path: String,
        old: String,
        new: String,
    },
    Read {
        path: String,
    },
    Shell {
        command: String,
    },
    /// Steps with their states.
    Plan {
        steps: Vec<(String, String)>,
    },
}

/// How a tool takes its arguments.
#[derive(Debug)]
pub(crate) enum Declared {
    /// An object that fits a JSON schema.
    Schema(Value),
    /// Text.
    Freeform,
}

/// Tools that an agent declares, by name.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    pub(crate) declared: BTreeMap<String, Declared>,
    /// Commands ask to run outside of the agent's sandbox, where a tool has an argument for that.
    pub(crate) escalates: bool,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    /// An object, or text for a tool that takes text.
    pub(crate) arguments: Value,
}

impl Tools {
    pub(crate) fn declare(&mut self, name: &Value, schema: &Value) {
        if let Some(name) = name.as_str() {
            self.declared.insert(name.to_owned(), Declared::Schema(schema.clone()));
        }
    }

    /// The call that does it; none if no tool can.
    pub(crate) fn call(&self, action: &Action) -> Option<ToolCall> {
        match action {
            Action::Write { path, content } => self.write(path, content),
            Action::Edit { path, old, new } => self.edit(path, old, new),
            Action::Read { path } => self.read(path),
            Action::Shell { command } => self.shell(command),
            Action::Plan { steps } => self.plan(steps),
        }
    }

    fn write(&self, path: &str, content: &str) -> Option<ToolCall> {
        if let Some((name, schema)) = self.first(&WRITE) {
            let content_name = property(schema, &["content", "contents", "file_text", "new_text"], "content");
            return Some(filled(name, schema, [(property(schema, &PATHS, "path"), path), (content_name, content)]));
        }
        let lines: String = content.lines().map(|line| format!("+{line}\n")).collect();
        self.patch(&format!("*** Begin Patch\n*** Add File: {path}\n{lines}*** End Patch\n"))
            .or_else(|| self.shell(&format!("printf '%s' {} > {}", quoted(content), quoted(path))))
    }

    fn edit(&self, path: &str, old: &str, new: &str) -> Option<ToolCall> {
        if let Some((name, schema)) = self.first(&EDIT) {
            let before = property(schema, &["oldString", "old_string", "old_str", "old_text"], "old_string");
            let after = property(schema, &["newString", "new_string", "new_str", "new_text"], "new_string");
            return Some(filled(name, schema, [(property(schema, &PATHS, "path"), path), (before, old), (after, new)]));
        }
        self.patch(&format!("*** Begin Patch\n*** Update File: {path}\n@@\n-{old}\n+{new}\n*** End Patch\n"))
            .or_else(|| self.shell(&format!("sed -i {} {}", quoted(&format!("s/{old}/{new}/")), quoted(path))))
    }

    fn read(&self, path: &str) -> Option<ToolCall> {
        match self.first(&READ) {
            Some((name, schema)) => Some(filled(name, schema, [(property(schema, &PATHS, "path"), path)])),
            None => self.shell(&format!("cat {}", quoted(path))),
        }
    }

    fn shell(&self, command: &str) -> Option<ToolCall> {
        let (name, schema) = self.first(&SHELL)?;
        let argument = property(schema, &["command", "cmd", "commands"], "command");
        let is_list = schema["properties"][argument]["type"] == "array";
        let value = match (is_list, argument) {
            (false, _) => json!(command),
            (true, "commands") => json!([command]),
            (true, _) => json!(["bash", "-lc", command]),
        };
        let mut call = filled(name, schema, []);
        call.arguments[argument] = value;
        if schema["properties"].get("description").is_some() {
            call.arguments["description"] = json!("scripted");
        }
        // Codex's name for it.
        if self.escalates && schema["properties"].get("sandbox_permissions").is_some() {
            call.arguments["sandbox_permissions"] = json!("require_escalated");
            call.arguments["justification"] = json!("scripted");
        }
        Some(call)
    }

    fn plan(&self, steps: &[(String, String)]) -> Option<ToolCall> {
        let (name, _) = self.first(&PLAN)?;
        let arguments = match name {
            "update_plan" => {
                let steps = steps.iter().map(|(step, status)| json!({ "step": step, "status": status }));
                json!({ "plan": steps.collect::<Vec<_>>() })
            }
            "write_todos" => {
                let steps = steps.iter().map(|(step, status)| json!({ "description": step, "status": status }));
                json!({ "todos": steps.collect::<Vec<_>>() })
            }
            _ => {
                let steps = steps.iter().enumerate().map(|(n, (step, status))| {
                    let id = n.to_string();
                    json!({ "id": id, "content": step, "status": status, "priority": "medium", "activeForm": step })
                });
                json!({ "todos": steps.collect::<Vec<_>>() })
            }
        };
        Some(ToolCall { name: name.to_owned(), arguments })
    }

    fn patch(&self, patch: &str) -> Option<ToolCall> {
        match self.declared.get(PATCH)? {
            Declared::Freeform => Some(ToolCall { name: PATCH.to_owned(), arguments: json!(patch) }),
            Declared::Schema(schema) => {
                let argument = property(schema, &["patchText", "input", "patch"], "input");
                Some(filled(PATCH, schema, [(argument, patch)]))
            }
        }
    }

    /// The first of these names that is declared with a schema.
    fn first<'a>(&'a self, names: &[&'a str]) -> Option<(&'a str, &'a Value)> {
        names.iter().find_map(|name| match self.declared.get(*name)? {
            Declared::Schema(schema) => Some((*name, schema)),
            Declared::Freeform => None,
        })
    }
}

/// The first of these names that the schema has.
fn property<'a>(schema: &Value, names: &[&'a str], default: &'a str) -> &'a str {
    names.iter().find(|name| schema["properties"].get(**name).is_some()).copied().unwrap_or(default)
}

/// A call with these arguments, and something for whatever else the schema requires.
fn filled<const N: usize>(name: &str, schema: &Value, arguments: [(&str, &str); N]) -> ToolCall {
    let mut all: Map<String, Value> =
        arguments.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required {
        all.entry(name).or_insert_with(|| something(&schema["properties"][name]));
    }
    ToolCall { name: name.to_owned(), arguments: Value::Object(all) }
}

fn something(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let of_type = schema["type"].get(0).unwrap_or(&schema["type"]);
    match of_type.as_str() {
        Some("boolean") => json!(false),
        Some("number" | "integer") => json!(1),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("scripted"),
    }
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Action, Declared, Tools};

    fn write() -> Action {
        Action::Write { path: "/w/a b.txt".to_owned(), content: "it's\n".to_owned() }
    }

    #[test]
    fn arguments_have_the_names_that_the_agent_declares_and_what_else_it_requires() {
        let mut tools = Tools::default();
        let schema = json!({
            "properties": { "file_path": {}, "contents": {}, "mode": { "enum": ["new"] }, "n": { "type": ["integer"] } },
            "required": ["file_path", "mode", "n"],
        });
        tools.declare(&json!("Write"), &schema);
        let call = tools.call(&write()).unwrap();
        assert_eq!(call.name, "Write");
        let expected = json!({ "file_path": "/w/a b.txt", "contents": "it's\n", "mode": "new", "n": 1 });
        assert_eq!(call.arguments, expected);
    }

    #[test]
    fn without_a_tool_for_it_a_patch_or_the_shell_does_it() {
        let mut tools = Tools::default();
        assert_eq!(tools.call(&write()), None);
        tools.declare(&json!("shell"), &json!({ "properties": { "command": { "type": "array" } } }));
        let call = tools.call(&write()).unwrap();
        let command = r"printf '%s' 'it'\''s
' > '/w/a b.txt'";
        assert_eq!(call.arguments, json!({ "command": ["bash", "-lc", command] }));
        tools.declared.insert("apply_patch".to_owned(), Declared::Freeform);
        let call = tools.call(&write()).unwrap();
        assert_eq!(call.arguments, "*** Begin Patch\n*** Add File: /w/a b.txt\n+it's\n*** End Patch\n");
    }
}
