//! The file with the contexts.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Contents of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The context used if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_context: Option<String>,
    /// Contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// A server, the token for it, and the project to work in.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Base URL, `http://127.0.0.1:7080`.
    pub url: String,
    /// Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Project id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

impl fmt::Debug for Context {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "redacted");
        f.debug_struct("Context")
            .field("url", &self.url)
            .field("token", &token)
            .field("project", &self.project)
            .finish()
    }
}

impl File {
    /// Reads the file; an absent one is empty.
    ///
    /// # Errors
    /// When it cannot be read, is not understood, or contains a token and is readable by others.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let (file, mode) = Self::read_with_mode(path)?;
        if mode & 0o077 != 0 && file.contexts.values().any(|context| context.token.is_some()) {
            return Err(ConfigError::Permissions { path: path.to_owned(), mode });
        }
        Ok(file)
    }

    fn read_with_mode(path: &Path) -> Result<(Self, u32), ConfigError> {
        let unreadable = |source| ConfigError::File { verb: "read", path: path.to_owned(), source };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Self::default(), 0o600)),
            Err(error) => return Err(unreadable(error)),
        };
        let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o7777;
        // toml's own rendering quotes the offending line, which may be the token's.
        let file = toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            ConfigError::Syntax { path: path.to_owned(), problem: format!("line {line}: {}", error.message()) }
        })?;
        Ok((file, mode))
    }

    /// Replaces the file atomically, with mode 0600: a reader sees the old or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::File { verb: "write", path: path.to_owned(), source };
        let text = toml::to_string(self).map_err(|error| failed(io::Error::other(error)))?;
        // A symbolic link to the file stays a link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut next = tempfile::Builder::new()
            .prefix(".config.toml.")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)
            .map_err(failed)?;
        next.write_all(text.as_bytes()).and_then(|()| next.as_file().sync_all()).map_err(failed)?;
        next.persist(&target).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Names of all contexts.
    pub(crate) fn names(&self) -> Vec<String> {
        self.contexts.keys().cloned().collect()
    }
}

/// Sets context `name` in this process's configuration file and makes it the current one; other contexts are kept.
/// Returns the file's path.
///
/// # Errors
/// When the file's place is unknown, its contents are not understood (it is left alone), or it cannot be written.
pub fn write_context(name: &str, url: &str, token: &str, project: &str) -> Result<PathBuf, ConfigError> {
    let path = super::path()?;
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let context = Context { url: url.to_owned(), token: some(token), project: some(project) };
    write_context_at(&path, name, context)?;
    Ok(path)
}

/// Like [`write_context`], with a given file.
///
/// # Errors
/// Same as [`write_context`].
pub fn write_context_at(path: &Path, name: &str, context: Context) -> Result<(), ConfigError> {
    // Loose permissions are no reason to refuse: writing repairs them.
    let (mut file, _) = File::read_with_mode(path)?;
    file.contexts.insert(name.to_owned(), context);
    file.current_context = Some(name.to_owned());
    file.write(path)
}
