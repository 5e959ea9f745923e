//! Installing an agent: an exact version of a package, none of whose scripts are run.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{Catalogue, Package};

/// Timeout for an installation.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Why an agent was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The catalogue has no such entry.
    #[error("no agent type '{0}'; see 'ambient agent-type list'")]
    Unknown(String),
    /// It is not installed by us.
    #[error("the agent type '{0}' has nothing to install: it is started as {1}")]
    NothingToInstall(String, String),
    /// npm failed.
    #[error("npm cannot install {package}: {reason}")]
    Npm {
        /// Package and version.
        package: String,
        /// In words, with the end of what it printed.
        reason: String,
    },
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// System error.
        source: std::io::Error,
    },
}

/// Installs an agent; true if it was not here before. In one step: a broken installation is none.
///
/// # Errors
/// [`InstallError`].
pub async fn install(catalogue: &Catalogue, name: &str) -> Result<bool, InstallError> {
    let entry = catalogue.get(name).ok_or_else(|| InstallError::Unknown(name.to_owned()))?;
    let (Some(package), Some(place)) = (&entry.install, catalogue.place(name)) else {
        return Err(InstallError::NothingToInstall(name.to_owned(), entry.command.join(" ")));
    };
    if catalogue.is_installed(name) {
        return Ok(false);
    }
    let file = |path: &Path| {
        let path = path.display().to_string();
        move |source| InstallError::File { path, source }
    };
    let folder = place.parent().unwrap_or(&place);
    std::fs::create_dir_all(folder).map_err(file(folder))?;
    let new = folder.join(format!(".{name}-{}", std::process::id()));
    remove(&new).map_err(file(&new))?;
    std::fs::create_dir_all(&new).map_err(file(&new))?;
    let fetched = fetch(package, &new).await;
    if let Err(error) = fetched {
        let _ = remove(&new);
        return Err(error);
    }
    // What is there is not whole, or it would have counted as installed.
    remove(&place).map_err(file(&place))?;
    std::fs::rename(&new, &place).map_err(file(&place))?;
    Ok(true)
}

/// It is fine if there is nothing.
fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn fetch(package: &Package, folder: &Path) -> Result<(), InstallError> {
    let exact = format!("{}@{}", package.name(), package.version);
    let failed = |reason: String| InstallError::Npm { package: exact.clone(), reason };
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--no-package-lock",
        "--silent",
        "--prefix",
    ]);
    // The server's settings, keys among them, are none of its business.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AMBIENT_")) {
        npm.env_remove(name);
    }
    npm.arg(folder).arg(&exact).stdin(Stdio::null()).kill_on_drop(true);
    let done = timeout(PATIENCE, npm.output()).await.map_err(|_| failed("it took too long".to_owned()))?;
    let done =
        done.map_err(|error| failed(format!("npm cannot be run: {error}; Node.js is needed to install agents")))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let end: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(failed(format!("{}: {}", done.status, end.into_iter().rev().collect::<Vec<_>>().join("; "))));
    }
    if !package.folder(folder).join(&package.binary).is_file() {
        return Err(failed(format!("the package has no file {}", package.binary)));
    }
    Ok(())
}
