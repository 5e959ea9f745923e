//! Installing an agent: an exact version of a package, none of whose scripts are run.

use std::{
    fs::{File, TryLockError},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use super::{Catalogue, Package};

/// Timeout for an installation, and for waiting for another.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// While another process installs, how often it is looked whether it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

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

/// Installs an agent, and the Node.js that runs it; true if it was not here before. Each in one step: a broken installation is none. Only one
/// process installs at a time.
///
/// # Errors
/// [`InstallError`].
pub async fn install(catalogue: &Catalogue, name: &str) -> Result<bool, InstallError> {
    let entry = catalogue.get(name).ok_or_else(|| InstallError::Unknown(name.to_owned()))?;
    if entry.install.is_none() && entry.node.is_none() {
        return Err(InstallError::NothingToInstall(name.to_owned(), entry.command.join(" ")));
    }
    if catalogue.is_installed(name) {
        return Ok(false);
    }
    std::fs::create_dir_all(&catalogue.folder).map_err(file(&catalogue.folder))?;
    let _only_one = lock(&catalogue.folder.join(".lock")).await?;
    if catalogue.is_installed(name) {
        return Ok(false);
    }
    let mut bin = None;
    if let Some(version) = &entry.node {
        let node = catalogue.node(version);
        put(&Package::of_node(version), &catalogue.place_of_node(version), None).await?;
        bin = node.parent().map(Path::to_owned);
    }
    if let (Some(package), Some(place)) = (&entry.install, catalogue.place(name)) {
        put(package, &place, bin.as_deref()).await?;
    }
    Ok(true)
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> InstallError {
    let path = path.display().to_string();
    move |source| InstallError::File { path, source }
}

/// Waits for whoever installs something else.
async fn lock(path: &Path) -> Result<File, InstallError> {
    let lock = File::options().append(true).create(true).open(path).map_err(file(path))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOOK_AGAIN).await,
            Err(TryLockError::WouldBlock) => {
                let busy = std::io::Error::other("another process is installing an agent, and does not end");
                return Err(file(path)(busy));
            }
            Err(TryLockError::Error(error)) => return Err(file(path)(error)),
        }
    }
}

/// Puts a package to its place, unless it is there; `bin` has the Node.js that npm runs on.
async fn put(package: &Package, place: &Path, bin: Option<&Path>) -> Result<(), InstallError> {
    if package.program(place).is_file() {
        return Ok(());
    }
    let folder = place.parent().unwrap_or(place);
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}-{}", std::process::id()));
    remove(&new).map_err(file(&new))?;
    std::fs::create_dir_all(&new).map_err(file(&new))?;
    if let Err(error) = fetch(package, &new, bin).await {
        let _ = remove(&new);
        return Err(error);
    }
    // What is there is not whole, or it would have counted as installed.
    remove(place).map_err(file(place))?;
    std::fs::rename(&new, place).map_err(file(place))
}

/// It is fine if there is nothing.
fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn fetch(package: &Package, folder: &Path, bin: Option<&Path>) -> Result<(), InstallError> {
    let exact = package.exact();
    let failed = |reason: String| InstallError::Npm { package: exact.join(" "), reason };
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
    if let Some(bin) = bin {
        // What a package asks for by a range, npm chooses for the Node.js that it runs on.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path)));
        npm.env("PATH", path.map_err(|error| failed(error.to_string()))?);
    }
    npm.arg(folder).args(&exact).stdin(Stdio::null()).kill_on_drop(true);
    let done = timeout(PATIENCE, npm.output()).await.map_err(|_| failed("it took too long".to_owned()))?;
    let done =
        done.map_err(|error| failed(format!("npm cannot be run: {error}; Node.js is needed to install agents")))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let end: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(failed(format!("{}: {}", done.status, end.into_iter().rev().collect::<Vec<_>>().join("; "))));
    }
    if !package.program(folder).is_file() {
        return Err(failed(format!("the package has no file {}", package.binary)));
    }
    Ok(())
}
