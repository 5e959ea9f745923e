//! Texts on one line.

use ambient_wire::runner_event::{SETUP_SCRIPT, ToolKind, script_of};
use serde_json::Value;

use crate::output::table::cut;

/// Longest line made from an agent's text, characters.
const MAX_LINE: usize = 160;

pub(super) fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_default()
}

/// `word: explanation`, leaving out what is empty.
pub(super) fn sentence(word: &str, explanation: &str) -> String {
    match (word, explanation) {
        (word, "") => word.to_owned(),
        ("", explanation) => explanation.to_owned(),
        (word, explanation) => format!("{word}: {explanation}"),
    }
}

/// The first line that says something, with `…` if there are more.
pub(crate) fn first_line(text: &str) -> String {
    // A fence says nothing, but its content does.
    let is_fence = |line: &str| line.starts_with("```") || line.starts_with("~~~");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !is_fence(line.trim_start()));
    let first = cut(lines.next().unwrap_or_default().trim(), MAX_LINE);
    if lines.next().is_some() { format!("{first} …") } else { first }
}

/// A command as it is shown, if a call is one.
pub(super) fn command_line(kind: ToolKind, input: &Value) -> Option<String> {
    let script = script_of(input).filter(|_| kind == ToolKind::Execute)?;
    Some(format!("$ {}", first_line(&script)))
}

/// A call on one line: a command as its first line, any other, and a setup script, by its title.
pub(super) fn headline(kind: ToolKind, title: &str, input: &Value) -> String {
    let command = if title.starts_with(SETUP_SCRIPT) { None } else { command_line(kind, input) };
    command.unwrap_or_else(|| {
        let title = first_line(title);
        format!("▸ {}", if title.is_empty() { word(kind) } else { &title })
    })
}

/// A call of a snapshot, which also has those that earlier runners recorded: named and with a script as it is, or as JSON.
pub(super) fn headline_of(kind: Option<ToolKind>, name: &str, arguments: &str) -> String {
    let parsed: Value = serde_json::from_str(arguments).unwrap_or_default();
    if let Some(kind) = kind {
        return headline(kind, name, &parsed);
    }
    let script = script_of(&parsed).or_else(|| (name == "shell" && !parsed.is_object()).then(|| arguments.to_owned()));
    match script {
        Some(script) => format!("$ {}", first_line(&script)),
        None => cut(format!("[{name}] {}", arguments.trim()).trim_end(), MAX_LINE),
    }
}

/// A sort of call in a word.
pub(super) fn word(kind: ToolKind) -> &'static str {
    match kind {
        ToolKind::Read => "read",
        ToolKind::Edit => "edit",
        ToolKind::Delete => "delete",
        ToolKind::Move => "move",
        ToolKind::Search => "search",
        ToolKind::Execute => "run",
        ToolKind::Think => "think",
        ToolKind::Fetch => "fetch",
        ToolKind::SwitchMode => "switch mode",
        ToolKind::Push => "push",
        ToolKind::Other => "tool",
    }
}
