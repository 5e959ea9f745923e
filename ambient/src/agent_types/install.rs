//! Installing an agent: an exact version of a package, none of whose scripts are run. npm is confined to a folder of its own, and where
//! whoever installs is root it is another user; what it has unpacked becomes the server's only afterwards.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use ambient_runner_protocol::{Confinement, InstallOrder};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use super::{Catalogue, Package};

/// Timeout for an installation, and for waiting for another.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const NPM: [&str; 7] =
    ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--silent"];
/// While another process installs, how often it is looked whether it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Why an agent was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The catalogue has no such entry.
    #[error("no agent type '{0}'; see 'ambient agent-type list --here'")]
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

/// With what agents are installed.
#[derive(Debug, Clone)]
pub struct Installer {
    /// The program that confines the package manager.
    pub runner: PathBuf,
    /// The user that it becomes; none: whoever installs is not root, and it has their rights within its confinement.
    pub user: Option<u32>,
    /// What to do if the kernel lacks a part of the confinement.
    pub confinement: Confinement,
}

impl Installer {
    /// Installs an agent, and the Node.js that runs it; true if it was not here before. Each in one step: a broken installation is none.
    /// Only one process installs at a time.
    ///
    /// # Errors
    /// [`InstallError`].
    pub async fn install(&self, catalogue: &Catalogue, name: &str) -> Result<bool, InstallError> {
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
            self.put(&Package::of_node(version), &catalogue.place_of_node(version), None).await?;
            bin = node.parent().map(Path::to_owned);
        }
        if let (Some(package), Some(place)) = (&entry.install, catalogue.place(name)) {
            self.put(package, &place, bin.as_deref()).await?;
        }
        Ok(true)
    }

    /// Puts a package to its place, unless it is there; `bin` has the Node.js that npm runs on.
    async fn put(&self, package: &Package, place: &Path, bin: Option<&Path>) -> Result<(), InstallError> {
        if package.program(place).is_file() {
            return Ok(());
        }
        let folder = place.parent().unwrap_or(place);
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let new = folder.join(format!(".{name}-{}", std::process::id()));
        remove(&new).map_err(file(&new))?;
        let made = self.make(package, &new, bin).await;
        // What is there is not whole, or it would have counted as installed.
        let placed = made.and_then(|tree| {
            remove(place).map_err(file(place))?;
            std::fs::rename(tree, place).map_err(file(place))
        });
        let removed = remove(&new).map_err(file(&new));
        placed.and(removed)
    }

    /// Makes the package's folder in a new folder of the installing user's, beside a home that it can do without afterwards.
    async fn make(&self, package: &Package, new: &Path, bin: Option<&Path>) -> Result<PathBuf, InstallError> {
        let (tree, home) = (new.join("tree"), new.join("home"));
        for folder in [&tree, &home] {
            std::fs::create_dir_all(folder).map_err(file(folder))?;
        }
        if let Some(settings) = npmrc()? {
            std::fs::write(home.join(".npmrc"), settings).map_err(file(&home))?;
        }
        if let Some(user) = self.user {
            // Its credentials for a registry are in there.
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(new, private).map_err(file(new))?;
            for path in [new.to_owned(), tree.clone(), home.clone(), home.join(".npmrc")] {
                match std::os::unix::fs::lchown(&path, Some(user), Some(user)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(&path)(error)),
                    _ => {}
                }
            }
        }
        self.fetch(package, new, &tree, &home, bin).await?;
        // Before its files can be read by all.
        remove(&home).map_err(file(&home))?;
        super::settle::take_over(new).map_err(file(new))?;
        if package.program(&tree).is_file() {
            Ok(tree)
        } else {
            let reason = format!("the package has no file {}", package.binary);
            Err(InstallError::Npm { package: package.exact().join(" "), reason })
        }
    }

    async fn fetch(
        &self,
        package: &Package,
        new: &Path,
        tree: &Path,
        home: &Path,
        bin: Option<&Path>,
    ) -> Result<(), InstallError> {
        let exact = package.exact();
        let failed = |reason: String| InstallError::Npm { package: exact.join(" "), reason };
        let path = std::env::var_os("PATH").unwrap_or_default();
        // What a package asks for by a range, npm chooses for the Node.js that it runs on.
        let path = std::env::join_paths(bin.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path)))
            .map_err(|error| failed(error.to_string()))?;
        let programs = ["npm", "node"].map(|name| std::env::split_paths(&path).find_map(|folder| find(&folder, name)));
        let [Some(npm), Some(node)] = programs else {
            return Err(failed("npm and Node.js are needed to install agents, and are not on the PATH".to_owned()));
        };
        let readable = [homes(&npm), homes(&node)].concat();
        let (folder, user, confinement) = (new.to_owned(), self.user, self.confinement);
        let order = serde_json::to_string(&InstallOrder { folder, readable, user, confinement });
        let mut command = Command::new(&self.runner);
        command.arg("install").arg("--order").arg(order.map_err(|error| failed(error.to_string()))?).arg("--").arg(npm);
        command.args(NPM).arg("--prefix").arg(tree).args(&exact);
        // The server's settings, keys among them, are none of its business.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AMBIENT_")) {
            command.env_remove(name);
        }
        command.env("PATH", path).env("HOME", home).env("TMPDIR", home).current_dir(home);
        command.env("npm_config_cache", home.join(".npm")).env("npm_config_userconfig", home.join(".npmrc"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let done = timeout(PATIENCE, command.output()).await.map_err(|_| failed("it took too long".to_owned()))?;
        let done = done.map_err(|error| failed(format!("{}: {error}", self.runner.display())))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            let end: Vec<&str> = said.lines().rev().take(5).collect();
            return Err(failed(format!("{}: {}", done.status, end.into_iter().rev().collect::<Vec<_>>().join("; "))));
        }
        Ok(())
    }
}

/// What whoever installs has said to npm: its registry, its proxy, credentials. The package manager is another user, with another home.
fn npmrc() -> Result<Option<Vec<u8>>, InstallError> {
    let named = std::env::var_os("npm_config_userconfig").map(PathBuf::from);
    let Some(path) = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".npmrc"))) else {
        return Ok(None);
    };
    match std::fs::read(&path) {
        Ok(settings) => Ok(Some(settings)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(&path)(error)),
    }
}

fn find(folder: &Path, program: &str) -> Option<PathBuf> {
    Some(folder.join(program)).filter(|path| path.is_file())
}

/// The folders that a program of Node.js needs: where it is called, and the package that it is a part of.
fn homes(program: &Path) -> Vec<PathBuf> {
    let real = std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    let package = real.ancestors().find(|folder| folder.join("package.json").is_file());
    [program.parent(), real.parent(), package].into_iter().flatten().map(Path::to_owned).collect()
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

/// It is fine if there is nothing.
fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
