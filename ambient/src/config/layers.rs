//! The layers a setting can come from, and the one place where a value is parsed.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::Value;

use super::{ConfigError, ConfigFlags, FILE_VARIABLE, keys, models, otel, snapshots};

/// `AMBIENT_*` variables that are not server settings: the command line's, and those of tests.
const OTHER_VARIABLES: &[&str] =
    &[FILE_VARIABLE, "AMBIENT_URL", "AMBIENT_TOKEN", "AMBIENT_PROJECT", "AMBIENT_CONTEXT", "AMBIENT_CONFIG"];

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A key of this file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Flags over environment over file.
pub(super) struct Layers {
    flags: toml::Table,
    environment: HashMap<OsString, OsString>,
    file: toml::Table,
    pub(super) path: PathBuf,
    pub(super) origins: BTreeMap<&'static str, Origin>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn new(
        flags: &ConfigFlags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self {
            flags: toml::Table::try_from(flags).unwrap_or_default(),
            environment: environment.into_iter().collect(),
            file: toml::Table::new(),
            path: PathBuf::new(),
            origins: BTreeMap::new(),
            warnings: Vec::new(),
        };
        let named = flags.config.clone().or_else(|| layers.path_variable(FILE_VARIABLE));
        layers.path = named.clone().unwrap_or_else(|| layers.default_file());
        layers.read_file(named.is_some())?;
        layers.warn_of_unknown_variables();
        Ok(layers)
    }

    /// The value of `key` in the highest layer that has one; `None` if none has.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<Option<T>, ConfigError> {
        let variable = variable_of(key);
        let (origin, value) = if let Some(Value::String(text)) = self.flags.get(key) {
            (Origin::Flag(format!("--{}", key.replace('_', "-"))), from_text(text))
        } else if let Some(value) = self.environment.get(&OsString::from(&variable)) {
            let text = value.to_str().ok_or_else(|| "is not UTF-8".to_owned());
            (Origin::Variable(variable), text.and_then(from_text))
        } else if let Some(value) = self.file.remove(key) {
            (Origin::File(self.path.clone()), from_value(value))
        } else {
            return Ok(None);
        };
        self.origins.insert(key, origin.clone());
        value.map(Some).map_err(|message| ConfigError::Invalid { key, message, origin })
    }

    /// A variable that is not ours alone; an empty one counts as not set.
    pub(super) fn standard(&self, variable: &str) -> Option<&str> {
        self.environment.get(&OsString::from(variable))?.to_str().filter(|value| !value.is_empty())
    }

    /// The value of `key` from such a variable.
    pub(super) fn take_standard<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        variable: &str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.standard(variable).map(from_text) else { return Ok(None) };
        let origin = Origin::Variable(variable.to_owned());
        self.origins.insert(key, origin.clone());
        value.map(Some).map_err(|message| ConfigError::Invalid { key, message, origin })
    }

    /// A variable that contains a path; an empty one counts as not set.
    pub(super) fn path_variable(&self, name: &str) -> Option<PathBuf> {
        self.environment.get(&OsString::from(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn default_file(&self) -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return "/etc/ambient/server.toml".into();
        }
        let home = || self.path_variable("HOME").map(|home| home.join(".config"));
        let folder = self.path_variable("XDG_CONFIG_HOME").or_else(home);
        // Without a home directory, never whatever happens to be in the current directory.
        folder.map_or_else(|| "/etc/ambient/server.toml".into(), |folder| folder.join("ambient/server.toml"))
    }

    fn read_file(&mut self, must_exist: bool) -> Result<(), ConfigError> {
        let path = self.path.clone();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(()),
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        // Not the error's own text: it shows the line, which may contain a password.
        let syntax = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError::Syntax { path: path.clone(), message: format!("line {line}: {}", error.message()) }
        };
        self.file = text.parse().map_err(syntax)?;
        if let Some(key) = self.file.keys().find(|key| !keys().any(|known| known == key.as_str())) {
            return Err(ConfigError::UnknownKey { path, key: key.clone() });
        }
        let secrets = ["database_url", "temporal_api_key"].into_iter().chain(models::SECRETS).chain(snapshots::SECRETS);
        let secrets = secrets.chain(otel::SECRETS);
        let secret = secrets.into_iter().find(|key| self.file.contains_key(*key));
        if let Some(key) = secret.filter(|_| readable_by_others(&path)) {
            self.warnings.push(format!("{} contains {key} and others may read it; chmod 600", path.display()));
        }
        Ok(())
    }

    fn warn_of_unknown_variables(&mut self) {
        let known = |name: &str| OTHER_VARIABLES.contains(&name) || keys().any(|key| variable_of(key) == name);
        let ours = self.environment.keys().filter_map(|name| name.to_str());
        let ours = ours.filter(|name| name.starts_with("AMBIENT_") && !name.starts_with("AMBIENT_TEST_"));
        let mut unknown: Vec<String> = ours.filter(|name| !known(name)).map(str::to_owned).collect();
        unknown.sort();
        self.warnings.extend(unknown.into_iter().map(|name| format!("environment variable {name} is not a setting")));
    }
}

fn variable_of(key: &str) -> String {
    format!("AMBIENT_{}", key.to_ascii_uppercase())
}

fn readable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

/// Text has no type: it is read as the setting's own type, which only the setting knows.
fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let as_text = match from_value(Value::String(text.to_owned())) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Ok(number) = text.parse() {
        return from_value(Value::Integer(number));
    }
    if let Ok(flag) = text.parse() {
        return from_value(Value::Boolean(flag));
    }
    let items = text.split(':').filter(|item| !item.is_empty()).map(|item| Value::String(item.to_owned()));
    from_value(Value::Array(items.collect())).map_err(|_| as_text)
}
