//! An entry of a catalogue: how an agent gets here, and how it is started.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// A catalogue that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CatalogueError {
    pub(super) file: String,
    pub(super) problem: String,
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
    /// The Node.js that runs it, an exact version; absent = it needs none.
    #[serde(default)]
    pub node: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    #[serde(default)]
    pub(super) endpoint: Option<Endpoint>,
    /// What a session has to set for it.
    #[serde(default)]
    pub variables: Vec<String>,
    #[serde(default)]
    pub(super) mode: Option<String>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) files: BTreeMap<String, String>,
}

/// A package of npm's registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name; `{arch}` is `x64` or `arm64`.
    pub(super) npm: String,
    /// Exact version.
    pub version: String,
    /// What has to be there afterwards, below its folder.
    pub(super) binary: String,
    /// Packages that it asks for by a range, each in an exact version.
    #[serde(default)]
    pub(super) with: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    #[serde(default)]
    pub(super) path: String,
    pub(super) variable: String,
    #[serde(default)]
    pub(super) usual: Option<String>,
}

impl Package {
    /// Node.js itself, as npm has it.
    pub(super) fn of_node(version: &str) -> Self {
        Self {
            npm: "node-linux-{arch}".to_owned(),
            version: version.to_owned(),
            binary: "bin/node".to_owned(),
            with: BTreeMap::new(),
        }
    }

    /// Its name on this machine.
    pub(super) fn name(&self) -> String {
        self.npm.replace("{arch}", arch())
    }

    /// It and those that it has to come with, as npm takes them.
    pub(super) fn exact(&self) -> Vec<String> {
        let with = self.with.iter().map(|(name, version)| format!("{}@{version}", name.replace("{arch}", arch())));
        std::iter::once(format!("{}@{}", self.name(), self.version)).chain(with).collect()
    }

    /// Its folder in the place it was installed to.
    pub(super) fn folder(&self, place: &Path) -> PathBuf {
        place.join("node_modules").join(self.name())
    }

    /// What has to be there.
    pub(super) fn program(&self, place: &Path) -> PathBuf {
        self.folder(place).join(&self.binary)
    }

    fn problem(&self) -> Option<&'static str> {
        if !is_package(&self.npm) {
            Some("install.npm is not the name of a package")
        } else if !is_exact(&self.version) {
            Some("install.version is not an exact version")
        } else if !is_inside(&self.binary) {
            Some("install.binary is not a path below the package")
        } else if !self.with.iter().all(|(name, version)| is_package(name) && is_exact(version)) {
            Some("install.with has the name of no package, or not an exact version")
        } else {
            None
        }
    }
}

/// How npm's packages name this machine.
fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" }
}

/// A path that leads nowhere else.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

fn is_package(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "@/-_.{}".contains(c);
    !name.is_empty() && name.chars().all(legal) && !name.contains("..") && !name.starts_with('-')
}

fn is_exact(version: &str) -> bool {
    // Less than three numbers is a range, and a word, such as `latest`, a tag that moves.
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    numbers.split('.').count() == 3
        && numbers.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        && version.chars().all(|c| c.is_ascii_alphanumeric() || "-.+".contains(c))
}

impl Entry {
    fn problem(&self, name: &str) -> Option<&'static str> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = !name.is_empty() && name.len() <= 63 && name.chars().all(legal);
        if !is_name || ["script", "custom"].contains(&name) {
            return Some("a name is 1 to 63 of a-z, 0-9 and '-', and neither 'script' nor 'custom'");
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Some("command needs a program");
        }
        if self.node.as_deref().is_some_and(|version| !is_exact(version)) {
            return Some("node is not an exact version");
        }
        if !self.files.keys().all(|file| is_inside(file)) {
            return Some("files has a name that is not a path below the home");
        }
        let texts = self.command.iter().chain(self.environment.values()).chain(self.files.values());
        if self.node.is_none() && texts.into_iter().any(|text| text.contains("{node}")) {
            return Some("{node} is used, and node has no version");
        }
        self.install.as_ref().and_then(Package::problem)
    }
}

/// Reads the entries of a file, by name.
pub(super) fn parse(file: &str, text: &str) -> Result<BTreeMap<String, Entry>, CatalogueError> {
    let wrong = |problem: String| CatalogueError { file: file.to_owned(), problem };
    let entries: BTreeMap<String, Entry> = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    for (name, entry) in &entries {
        if let Some(problem) = entry.problem(name) {
            return Err(wrong(format!("[{name}]: {problem}")));
        }
    }
    Ok(entries)
}
