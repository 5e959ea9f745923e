//! Agent types: the catalogue of programs that can run as agents, and whether they are here.
//!
//! The release has a catalogue; operators extend it, or replace an entry, with a file of the same form. An agent is installed to a folder of
//! its own, outside the data directory, that sessions can read and nobody but the server's user can write.

mod install;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ambient_api::AgentType;
use ambient_domain::session::{AgentCommand, AgentEndpoint, AgentLaunch};
use serde::Deserialize;

pub use install::{InstallError, install};

const CATALOGUE: &str = include_str!("catalogue.toml");
/// Largest file of agent types, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A catalogue that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CatalogueError {
    file: String,
    problem: String,
}

/// An entry of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub title: String,
    /// How it gets here; absent = it is on the machine already.
    #[serde(default)]
    pub install: Option<Package>,
    /// Program and arguments.
    pub command: Vec<String>,
    #[serde(default)]
    endpoint: Option<Endpoint>,
    /// What a session has to set for it.
    #[serde(default)]
    pub variables: Vec<String>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

/// A package of npm's registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name; `{arch}` is `x64` or `arm64`.
    npm: String,
    /// Exact version.
    pub version: String,
    /// What has to be there afterwards, below its folder.
    binary: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    #[serde(default)]
    path: String,
    variable: String,
    #[serde(default)]
    usual: Option<String>,
}

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

    /// Whether what is needed is there.
    #[must_use]
    pub fn is_installed(&self, name: &str) -> bool {
        match self.get(name).map(|entry| &entry.install) {
            None => false,
            Some(None) => true,
            Some(Some(package)) => {
                self.place(name).is_some_and(|place| package.folder(&place).join(&package.binary).is_file())
            }
        }
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
        let mut command = entry.command.iter().map(|word| word.replace("{install}", &folder));
        let program = command.next().unwrap_or_default();
        let placed = |(name, value): (&String, &String)| (name.clone(), value.replace("{install}", &folder));
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

impl Package {
    fn name(&self) -> String {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        self.npm.replace("{arch}", arch)
    }

    /// Its folder in the place it was installed to.
    fn folder(&self, place: &Path) -> PathBuf {
        place.join("node_modules").join(self.name())
    }
}

fn parse(file: &str, text: &str) -> Result<BTreeMap<String, Entry>, CatalogueError> {
    let wrong = |problem: String| CatalogueError { file: file.to_owned(), problem };
    let entries: BTreeMap<String, Entry> = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    for (name, entry) in &entries {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty()
            || name.len() > 63
            || !name.chars().all(legal)
            || ["script", "custom"].contains(&name.as_str())
        {
            return Err(wrong(format!(
                "[{name}]: a name is 1 to 63 of a-z, 0-9 and '-', and neither 'script' nor 'custom'"
            )));
        }
        if entry.command.first().is_none_or(String::is_empty) {
            return Err(wrong(format!("[{name}]: command needs a program")));
        }
        if let Some(package) = &entry.install {
            let legal = |c: char| c.is_ascii_alphanumeric() || "@/-_.{}".contains(c);
            let is_path = !package.binary.starts_with('/') && !package.binary.split('/').any(|part| part == "..");
            if !package.npm.chars().all(legal) || package.npm.contains("..") || package.npm.starts_with('-') {
                return Err(wrong(format!("[{name}]: install.npm is not the name of a package")));
            }
            if package.version.is_empty()
                || !package.version.chars().all(|c| c.is_ascii_alphanumeric() || "-.+".contains(c))
            {
                return Err(wrong(format!("[{name}]: install.version is not an exact version")));
            }
            if !is_path {
                return Err(wrong(format!("[{name}]: install.binary is not a path below the package")));
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
        assert_eq!(names, ["script", "custom", "codex", "mine"]);
        assert_eq!(types[3].launch.command.as_ref().unwrap().args, ["acp"]);
        for (text, told) in [
            ("[\"a b\"]\ntitle=\"\"\ncommand=[\"x\"]", "[a b]: a name"),
            ("[script]\ntitle=\"\"\ncommand=[\"x\"]", "neither 'script'"),
            ("[a]\ntitle=\"\"\ncommand=[]", "command needs a program"),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\ncolour=1", "colour"),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"../x\",version=\"1\",binary=\"b\"}", "install.npm"),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"x\",version=\"^1\",binary=\"b\"}", "install.version"),
            ("[a]\ntitle=\"\"\ncommand=[\"x\"]\ninstall={npm=\"x\",version=\"1\",binary=\"../b\"}", "install.binary"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Catalogue::load(Some(&file), dir.path()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
