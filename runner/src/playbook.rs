//! A playbook as its commit has it: instructions, commands and agents, read from hostile files into bounded texts.

use std::collections::BTreeMap;

use ambient_wire::{
    file_name,
    playbook::{PlaybookAgent, PlaybookCommand, PlaybookConfig, PlaybookMetadata, ReconciledPlaybook},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest message that a command may become, bytes: as long as messages are.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Longest name and description, characters.
const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 1_000;
/// Most problems that are told.
const MAX_PROBLEMS: usize = 20;
/// In the text of a command: what the person wrote after its name.
const ARGUMENTS: &str = "$ARGUMENTS";

/// What a session goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Playbook {
    /// Where its files are, for the agent to read.
    pub(crate) folder: String,
    pub(crate) reconciled: ReconciledPlaybook,
    pub(crate) metadata: PlaybookMetadata,
    /// Texts of its commands, by id.
    bodies: BTreeMap<String, String>,
}

/// A file of a playbook that was read, by the name that it has in its folder.
pub(crate) struct Read {
    pub(crate) name: Vec<u8>,
    /// Not there: too large, or no file.
    pub(crate) content: std::result::Result<Vec<u8>, String>,
}

/// What was read of a playbook.
pub(crate) struct Files {
    pub(crate) config: Option<Vec<u8>>,
    pub(crate) commands: Vec<Read>,
    pub(crate) agents: Vec<Read>,
}

impl Playbook {
    /// Made of what was read.
    ///
    /// # Errors
    /// In words: its configuration cannot be used.
    pub(crate) fn of(folder: String, reconciled: ReconciledPlaybook, files: Files) -> Result<Self, String> {
        let config = files.config.map_or(Ok(PlaybookConfig::default()), |text| config(&text))?;
        let (mut problems, mut bodies) = (Vec::new(), BTreeMap::new());
        let mut commands = Vec::new();
        for file in files.commands {
            let Some((id, text)) = text(file, ".claude/commands", &mut problems) else { continue };
            let (head, body) = front_matter(&text);
            let (name, description) = about(&head, &id);
            commands.push(PlaybookCommand { slash_command: format!("/{id}"), id: id.clone(), name, description });
            bodies.insert(id, body.to_owned());
        }
        let mut agents = Vec::new();
        for file in files.agents {
            let Some((id, text)) = text(file, ".claude/agents", &mut problems) else { continue };
            let (name, description) = about(&front_matter(&text).0, &id);
            agents.push(PlaybookAgent { id, name, description });
        }
        let left = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        if left > 0 {
            problems.push(format!("and {left} more"));
        }
        let (kind, commit) = ("WorkflowMetadata".to_owned(), Some(reconciled.commit.clone()));
        let metadata = PlaybookMetadata { kind, commit, commands, agents, config, problems };
        Ok(Self { folder, reconciled, metadata, bodies })
    }

    /// What an agent is told when it begins to go by this playbook, marked as what it is.
    pub(crate) fn told(&self) -> String {
        let (reconciled, config) = (&self.reconciled, &self.metadata.config);
        let place = if reconciled.path.is_empty() { String::new() } else { format!(", folder {}", reconciled.path) };
        format!(
            "[Playbook of this session: {}, from {}{place} at {}. Go by it until you are told otherwise. Its files, with descriptions of \
             agents and commands, are in {} (read only).]\n{}\n[End of the playbook]",
            self.title(),
            reconciled.git_url,
            reconciled.commit,
            self.folder,
            config.system_prompt
        )
    }

    fn title(&self) -> &str {
        let name = &self.metadata.config.name;
        if name.is_empty() { "without a name" } else { name }
    }

    /// The message that stands for one which begins with a command of the playbook; none if it does not, or if the agent has a command
    /// of that name itself.
    pub(crate) fn expanded(&self, message: &str, is_agents: impl Fn(&str) -> bool) -> Option<Expanded> {
        let rest = message.strip_prefix('/')?;
        let (id, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let body = self.bodies.get(id).filter(|_| !is_agents(id))?;
        let arguments = arguments.trim();
        let places = body.matches(ARGUMENTS).count();
        let bytes = body.len() + places.max(1) * (arguments.len() + 2);
        if bytes > MAX_MESSAGE {
            let notice =
                format!("/{id} is a command of the playbook, but the message would get too long: it is sent as it is");
            return Some(Expanded { text: message.to_owned(), notice });
        }
        let text = match places {
            0 if arguments.is_empty() => body.clone(),
            0 => format!("{body}\n\n{arguments}"),
            _ => body.replace(ARGUMENTS, arguments),
        };
        Some(Expanded { text, notice: format!("/{id} is a command of the playbook: the agent is sent its text") })
    }
}

/// What is sent in place of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// For the log, in words.
    pub(crate) notice: String,
}

/// What an agent is told that has gone by a playbook, when there is none any more.
pub(crate) const NO_MORE: &str = "[The playbook of this session is not in effect any more. Do not go by it.]";

fn config(text: &[u8]) -> Result<PlaybookConfig, String> {
    const FILE: &str = ".ambient/ambient.json";
    let object: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| format!("{FILE} is not a JSON object: {error}"))?;
    let field = |name: &str, most: usize| match object.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        // A database that keeps what was read takes no NUL.
        Some(Value::String(text)) => Ok(text.replace('\0', "").chars().take(most).collect()),
        Some(_) => Err(format!("{FILE}: {name} is no text")),
    };
    Ok(PlaybookConfig {
        name: field("name", MAX_NAME)?,
        description: field("description", MAX_DESCRIPTION)?,
        system_prompt: field("systemPrompt", usize::MAX)?,
        startup_prompt: field("startupPrompt", usize::MAX)?,
        artifacts_dir: field("artifactsDir", MAX_DESCRIPTION)?,
    })
}

/// Id and text of a file; none, with a problem, if it cannot be used.
fn text(file: Read, folder: &str, problems: &mut Vec<String>) -> Option<(String, String)> {
    let name = file_name::escape(&file.name);
    let mut refuse = |why: &str| {
        problems.push(format!("{folder}/{}: {why}", name.chars().take(MAX_NAME).collect::<String>()));
        None
    };
    let id = name.strip_suffix(".md").unwrap_or_default().to_owned();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.is_empty() || id.len() > MAX_NAME || !id.chars().all(is_plain) {
        return refuse("its name is not made of letters, digits, '.', '_' and '-'");
    }
    match file.content.map(String::from_utf8) {
        Ok(Ok(text)) if !text.contains('\0') => Some((id, text)),
        Ok(_) => refuse("it is no text in UTF-8"),
        Err(why) => refuse(&why),
    }
}

/// The plain `name: value` lines between the `---` at the beginning of a file, and what follows them.
fn front_matter(text: &str) -> (BTreeMap<&str, String>, &str) {
    let none = (BTreeMap::new(), text);
    let Some(rest) = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n")) else { return none };
    let (mut head, mut at, mut folded) = (BTreeMap::new(), 0, None);
    for line in rest.split_inclusive('\n') {
        at += line.len();
        let plain = line.trim_end();
        if plain == "---" {
            return (head, rest[at..].trim_start_matches(['\r', '\n']));
        }
        let is_indented = plain.starts_with([' ', '\t']);
        match (folded, plain.split_once(':')) {
            // Of a value over several lines, joined as YAML folds them.
            (Some(key), _) if is_indented => {
                let value: &mut String = head.entry(key).or_default();
                let space = if value.is_empty() { "" } else { " " };
                value.push_str(space);
                value.push_str(plain.trim());
            }
            (_, Some((key, value))) if !is_indented => {
                let value = value.trim();
                let is_block = value.starts_with(['|', '>']);
                folded = (is_block || value.is_empty()).then_some(key.trim());
                let value = if is_block { "" } else { value.trim_matches(['"', '\'']) };
                head.insert(key.trim(), value.to_owned());
            }
            _ => folded = None,
        }
    }
    // Without an end it is text.
    none
}

fn about(head: &BTreeMap<&str, String>, id: &str) -> (String, String) {
    let of = |names: &[&str], most: usize| {
        let value = names.iter().find_map(|name| head.get(name).filter(|value| !value.is_empty()));
        value.map(|value| value.chars().filter(|c| !c.is_control()).take(most).collect::<String>())
    };
    let name = of(&["displayName", "name"], MAX_NAME).unwrap_or_else(|| id.to_owned());
    (name, of(&["description"], MAX_DESCRIPTION).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(name: &str, content: &str) -> Read {
        Read { name: name.as_bytes().to_vec(), content: Ok(content.as_bytes().to_vec()) }
    }

    fn made(config: Option<&str>, commands: Vec<Read>) -> Result<Playbook, String> {
        let reconciled = ReconciledPlaybook {
            git_url: "file:///p".to_owned(),
            branch: None,
            path: "a/b".to_owned(),
            commit: "c".repeat(40),
            reconciled_at: chrono::Utc::now(),
        };
        let config = config.map(|text| text.as_bytes().to_vec());
        let agents = vec![file("reviewer.md", "---\nname: Rita\ndescription: >\n  reads\n  code\n---\nYou read.\n")];
        Playbook::of("/m/p".to_owned(), reconciled, Files { config, commands, agents })
    }

    #[test]
    fn commands_agents_and_configuration_are_read_and_what_cannot_be_used_is_named() {
        let commands = vec![
            file("fix.md", "---\r\nname: \"Fix\"\r\ndescription: mends: things\r\n---\r\n\r\nFix $ARGUMENTS now."),
            file("plain.md", "Just text."),
            file("open.md", "---\nname: never closed\n"),
            file("a b.md", "x"),
            Read { name: b"\xff.md".to_vec(), content: Ok(Vec::new()) },
            Read { name: b"raw.md".to_vec(), content: Ok(vec![0xff]) },
            Read { name: b"link.md".to_vec(), content: Err("it is no file".to_owned()) },
        ];
        let config = r#"{"name": "Triage", "systemPrompt": "Be brief.\u0000", "results": {"x": 1}, "rubric": null}"#;
        let playbook = made(Some(config), commands).unwrap();
        let seen: Vec<_> = playbook.metadata.commands.iter().map(|c| (&*c.id, &*c.name, &*c.description)).collect();
        assert_eq!(seen, [("fix", "Fix", "mends: things"), ("plain", "plain", ""), ("open", "open", "")]);
        let agent = &playbook.metadata.agents[0];
        assert_eq!((&*agent.name, &*agent.description), ("Rita", "reads code"));
        assert_eq!(playbook.metadata.problems.len(), 4, "{:?}", playbook.metadata.problems);
        assert!(playbook.told().contains("Triage") && playbook.told().contains("\nBe brief.\n"));

        let send = |message: &str| playbook.expanded(message, |id| id == "plain").map(|sent| sent.text);
        assert_eq!(send("/fix  the menu \n").as_deref(), Some("Fix the menu now."));
        assert_eq!(send("/fix").as_deref(), Some("Fix  now."));
        assert_eq!((send("/plain"), send("/other x"), send("fix"), send(" /fix")), (None, None, None, None));
        let long = format!("/fix {}", "x".repeat(MAX_MESSAGE));
        assert_eq!(playbook.expanded(&long, |_| false).unwrap().text, long);
        assert_eq!(playbook.expanded("/plain a b", |_| false).unwrap().text, "Just text.\n\na b");
    }

    #[test]
    fn a_configuration_that_is_none_is_told() {
        for (config, told) in [
            ("[]", "not a JSON object"),
            ("{", "not a JSON object"),
            (r#"{"systemPrompt": 7}"#, "systemPrompt is no text"),
        ] {
            let problem = made(Some(config), Vec::new()).unwrap_err();
            assert!(problem.contains(".ambient/ambient.json") && problem.contains(told), "{problem}");
        }
    }
}
