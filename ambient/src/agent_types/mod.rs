//! Agent types: the catalogue of programs that can run as agents, and whether they are here.
//!
//! The release has a catalogue; operators extend it, or replace an entry, with a file of the same form. An agent is installed to a folder of
//! its own, outside the data directory, that sessions can read and nobody but the server's user can write.

mod check;
mod entry;
mod install;
mod settle;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ambient_api::AgentType;
use ambient_domain::session::{AgentCommand, AgentEndpoint, AgentLaunch};
pub use check::{Checked, check};
pub use entry::{CatalogueError, Entry, Package};
use entry::{Endpoint, parse};
pub use install::{InstallError, Installer};

const CATALOGUE: &str = include_str!("catalogue.toml");
/// Largest file of agent types, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// All entries, by name.
#[derive(Debug, Clone)]
pub struct Catalogue {
    entries: BTreeMap<String, Entry>,
    folder: PathBuf,
}

impl Catalogue {
    /// The release's entries, and those of an operator's file, for agents that are installed below `folder`.
    ///
    /// # Errors
    /// [`CatalogueError`], naming the file and the entry.
    pub fn load(file: Option<&Path>, folder: &Path) -> Result<Self, CatalogueError> {
        let mut entries = parse("the release's catalogue", CATALOGUE)?;
        if let Some(file) = file {
            let name = file.display().to_string();
            let wrong = |problem: String| CatalogueError { file: name.clone(), problem };
            let size = std::fs::metadata(file).map_err(|e| wrong(e.to_string()))?.len();
            if size > MAX_FILE {
                return Err(wrong(format!("larger than {MAX_FILE} bytes")));
            }
            entries.extend(parse(&name, &std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?)?);
        }
        Ok(Self { entries, folder: folder.to_owned() })
    }

    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// An entry.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Where an entry's package is, or will be; none if it has none.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<PathBuf> {
        let package = self.get(name)?.install.as_ref()?;
        Some(self.folder.join(format!("{name}-{}", package.version)))
    }

    /// Where the Node.js of that version is, or will be. No entry's place is in this folder: they have their names and versions.
    fn place_of_node(&self, version: &str) -> PathBuf {
        self.folder.join("node").join(version)
    }

    /// The program `node` of that version.
    fn node(&self, version: &str) -> PathBuf {
        Package::of_node(version).program(&self.place_of_node(version))
    }

    /// Whether what is needed is there.
    #[must_use]
    pub fn is_installed(&self, name: &str) -> bool {
        let Some(entry) = self.get(name) else { return false };
        let has_package = entry
            .install
            .as_ref()
            .is_none_or(|package| self.place(name).is_some_and(|place| package.program(&place).is_file()));
        has_package && entry.node.as_ref().is_none_or(|version| self.node(version).is_file())
    }

    /// All agent types of a server.
    #[must_use]
    pub fn agent_types(&self) -> Vec<AgentType> {
        let mut all = AgentType::built_in();
        all.extend(self.entries.iter().map(|(name, entry)| self.agent_type(name, entry)));
        all
    }

    fn agent_type(&self, name: &str, entry: &Entry) -> AgentType {
        let folder = self.place(name).zip(entry.install.as_ref()).map(|(place, package)| package.folder(&place));
        let folder = folder.map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
        let node = entry.node.as_ref().map(|version| self.node(version).to_string_lossy().into_owned());
        let node = node.unwrap_or_default();
        let put = |text: &String| text.replace("{install}", &folder).replace("{node}", &node);
        let mut command = entry.command.iter().map(put);
        let program = command.next().unwrap_or_default();
        let placed = |(name, value): (&String, &String)| (name.clone(), put(value));
        AgentType {
            name: name.to_owned(),
            title: entry.title.clone(),
            installed: self.is_installed(name),
            variables: entry.variables.clone(),
            launch: AgentLaunch {
                agent_type: name.to_owned(),
                command: Some(AgentCommand { program, args: command.collect(), directory: None }),
                environment: entry.environment.iter().map(placed).collect(),
                home_files: entry.files.iter().map(placed).collect(),
                endpoint: entry.endpoint.clone().map(|Endpoint { path, variable, usual }| AgentEndpoint {
                    path,
                    variable,
                    usual,
                }),
                mode: entry.mode.clone(),
                ..AgentLaunch::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_releases_catalogue_can_be_read_and_an_operators_file_goes_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::load(None, dir.path()).unwrap();
        assert!(catalogue.get("codex").is_some() && !catalogue.is_installed("codex"));
        let file = dir.path().join("agents.toml");
        std::fs::write(&file, "[codex]\ntitle = \"Ours\"\ncommand = [\"/opt/codex\"]\n[mine]\ntitle = \"Mine\"\ncommand = [\"mine\", \"acp\"]\n").unwrap();
        let catalogue = Catalogue::load(Some(&file), dir.path()).unwrap();
        assert!(catalogue.is_installed("codex"), "what has no package is on the machine");
        let types = catalogue.agent_types();
        let names: Vec<&str> = types.iter().map(|known| known.name.as_str()).collect();
        assert_eq!(
            names,
            ["script", "custom", "claude", "codex", "codex-2", "copilot", "gemini", "mine", "opencode", "qwen"]
        );
        assert_eq!(types[7].launch.command.as_ref().unwrap().args, ["acp"]);
        for (text, told) in [
            ("[\"a b\"]\ntitle=\"\"\ncommand=[\"x\"]", "[a b]: a name"),
            ("[script]\ntitle=\"\"\ncommand=[\"x\"]", "neither 'script'"),
            ("[a]\ntitle=\"\"\ncommand=[]", "command needs a program"),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\ncolour=1", "colour"),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"../x\",version=\"1.0.0\",binary=\"b\"}", "install.npm"),
            (
                "[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"x\",version=\"^1.0.0\",binary=\"b\"}",
                "install.version",
            ),
            (
                "[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"x\",version=\"latest\",binary=\"b\"}",
                "install.version",
            ),
            (
                "[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"x\",version=\"1.0.0\",binary=\"b\",with={y=\"~1\"}}",
                "install.with",
            ),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\nnode=\"22\"", "node is not"),
            ("[a]\ntitle=\"\"\ncommand=[\"{node}\"]", "{node} is used"),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\n[a.files]\n\"../x\"=\"\"", "files has a name"),
            (
                "[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"x\",version=\"1.0.0\",binary=\"../b\"}",
                "install.binary",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Catalogue::load(Some(&file), dir.path()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_releases_entries_are_exact_and_their_files_are_whole_with_and_without_a_model() {
        let catalogue = Catalogue::load(None, Path::new("/agents")).unwrap();
        for known in catalogue.agent_types() {
            let Some(command) = &known.launch.command else { continue };
            let words = std::iter::once(&command.program).chain(&command.args).chain(known.launch.environment.values());
            let left: Vec<_> = words.filter(|word| word.contains("{install}") || word.contains("{node}")).collect();
            assert!(left.is_empty(), "{}: {left:?}", known.name);
            assert!(command.program.starts_with("/agents/"), "{}: the machine's own program", known.name);
            assert!(!known.variables.is_empty(), "{}", known.name);
            let endpoint = known.launch.endpoint.as_ref().expect("it can be told where models are");
            for (file, text) in &known.launch.home_files {
                // What is left out, line by line, when there is no value.
                let mut open = vec!["{model}", "{model_token}", "{model_url}"];
                open.extend(endpoint.usual.is_none().then_some("{endpoint}"));
                let without: String =
                    text.split_inclusive('\n').filter(|line| !open.iter().any(|name| line.contains(name))).collect();
                for text in [text, &without] {
                    let is_whole = match file.rsplit_once('.').unwrap().1 {
                        "json" => serde_json::from_str::<serde_json::Value>(text).is_ok(),
                        "toml" => toml::from_str::<toml::Table>(text).is_ok(),
                        _ => text.is_empty(),
                    };
                    assert!(is_whole, "{}: {file}: {text}", known.name);
                }
            }
        }
    }
}
