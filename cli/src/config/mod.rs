//! Which server, with which token, for which project.
//!
//! Contexts live in one TOML file of mode 0600: `$AMBIENT_CONFIG`, else `$XDG_CONFIG_HOME/ambient/config.toml`, else
//! `~/.config/ambient/config.toml`. Flags override variables, variables override the context. A token is never read from a
//! file that others can read, and a context's token is never sent to any server but the context's.

mod file;
mod target;

use std::{env, io, path::PathBuf};

pub use self::file::{Context, File, write_context, write_context_at};
pub(crate) use self::target::{Target, choose_context, parse_url};

/// Variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "AMBIENT_CONFIG";

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a variable nor a home directory says where the file is.
    #[error("cannot tell where the configuration is: set AMBIENT_CONFIG or HOME")]
    NoPlace,
    /// The file cannot be read or written.
    #[error("cannot {verb} {}: {source}", .path.display())]
    File {
        /// `read`, `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is malformed.
    #[error("{}: {problem}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line and cause.
        problem: String,
    },
    /// Others could read the token.
    #[error("{path} contains a token and is readable by others (mode {mode:04o}); run: chmod 600 {path}", path = .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No such context.
    #[error("no context '{name}'{}", if .known.is_empty() { String::new() } else { format!("; known contexts: {}", .known.join(", ")) })]
    UnknownContext {
        /// The requested one.
        name: String,
        /// The existing ones.
        known: Vec<String>,
    },
    /// A setting cannot be used.
    #[error("{setting}: {problem}")]
    Setting {
        /// Flag, variable or file key.
        setting: String,
        /// What is wrong.
        problem: String,
    },
    /// No server is configured.
    #[error("no server is configured: run 'ambient up', or set AMBIENT_URL and AMBIENT_TOKEN")]
    NoServer,
}

/// The relevant variables; an empty one counts as absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) config: Option<PathBuf>,
    pub(crate) config_home: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) no_color: bool,
    /// The terminal understands no escape sequences at all.
    pub(crate) dumb_terminal: bool,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        let text = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            config: path(CONFIG_VARIABLE),
            // The XDG base directory specification says to ignore a relative path.
            config_home: path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()),
            home: path("HOME"),
            url: text("AMBIENT_URL"),
            token: text("AMBIENT_TOKEN"),
            project: text("AMBIENT_PROJECT"),
            no_color: text("NO_COLOR").is_some(),
            dumb_terminal: text("TERM").is_some_and(|term| term == "dumb"),
        }
    }

    /// Path of the configuration file, whether it exists or not.
    pub(crate) fn config_path(&self) -> Result<PathBuf, ConfigError> {
        if let Some(path) = &self.config {
            return Ok(path.clone());
        }
        let base = self.config_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        base.map(|base| base.join("ambient").join("config.toml")).ok_or(ConfigError::NoPlace)
    }
}

/// Path of this process's configuration file, whether it exists or not.
///
/// # Errors
/// When neither `AMBIENT_CONFIG` nor a home directory is known.
pub fn path() -> Result<PathBuf, ConfigError> {
    Environment::of_process().config_path()
}

#[cfg(test)]
mod tests;
