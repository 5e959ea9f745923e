//! Directories, files and their owners.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use ambient_runner_protocol::SessionPaths;
use rustix::{fs::OFlags, io::Errno};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    cgroup::Trees,
    error::io_error,
    host::Local,
    hub::Hub,
    options::LocalOptions,
    processes::boot_id,
    space::Space,
    user_ids::{Ids, Users},
};
use crate::{ComputeError, Secret, SecretName, SessionRef};

/// Maximum length of a socket's path, bytes; the system's limit is 107.
const MAX_SOCKET_PATH: usize = 100;
/// Longest accepted id; a KSUID has 27 characters.
const MAX_ID: usize = 40;
/// Largest record that is read.
const MAX_RECORD: u64 = 1024 * 1024;
/// May enter but not list: what sessions' users get on directories that are not theirs.
const ENTER: u32 = 0o711;

impl Local {
    pub(super) fn prepare(options: LocalOptions) -> Result<Self, ComputeError> {
        let data = std::path::absolute(&options.data_dir).map_err(|e| io_error("data directory", e))?;
        let options = LocalOptions { data_dir: data.clone(), ..options };
        let uid_base = options.session_uid_base.filter(|_| rustix::process::geteuid().is_root());
        let ids = uid_base.map(Ids::new).transpose();
        let ids = ids.map_err(|problem| ComputeError::Invalid(format!("session_uid_base: {problem}")))?;
        // Read once while it is possible: what is known about processes depends on it.
        boot_id()?;
        let local = Self {
            runner_binary: options.runner_binary.clone(),
            groups: Trees::detect(&installation(&data)),
            space: Space::new(&data, options.disk_reserve, options.disk_low_water),
            options,
            ids,
            hub: Hub::new(),
        };
        let longest = local.socket(&"x".repeat(27), 1_000_000);
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            let data = data.display();
            return Err(ComputeError::Invalid(format!(
                "the data directory's path is too long for Unix sockets (at most {MAX_SOCKET_PATH} bytes with the socket's \
                 name): {data}"
            )));
        }
        for directory in [data.clone(), data.join("projects"), data.join("run"), data.join("deleted")] {
            local.open_directory(&directory)?;
        }
        local.space.keep_reserve();
        let Some(ids) = ids else { return Ok(local) };
        reachable(&data)?;
        let runner_binary = local.install_runner()?;
        let ids = Some(ids.probe(&runner_binary));
        Ok(Self { runner_binary, ids, ..local })
    }

    /// Sessions' users may not be able to reach the binary where it was built or installed.
    fn install_runner(&self) -> Result<PathBuf, ComputeError> {
        let (source, target) = (&self.options.runner_binary, self.options.data_dir.join("bin/ambient-runner"));
        let what = || format!("installing {}", source.display());
        let about = source.metadata().map_err(|e| io_error(what(), e))?;
        self.open_directory(&self.options.data_dir.join("bin"))?;
        let same =
            |there: std::fs::Metadata| there.len() == about.len() && there.modified().ok() == about.modified().ok();
        if target.metadata().is_ok_and(same) {
            return Ok(target);
        }
        let install = || -> std::io::Result<()> {
            let temporary = target.with_extension(format!("{}.new", random_id()?));
            std::fs::copy(source, &temporary)?;
            std::fs::set_permissions(&temporary, Permissions::from_mode(0o755))?;
            File::options().write(true).open(&temporary)?.set_modified(about.modified()?)?;
            std::fs::rename(&temporary, &target)
        };
        install().map_err(|e| io_error(what(), e))?;
        Ok(target)
    }

    fn projects(&self) -> PathBuf {
        self.options.data_dir.join("projects")
    }

    fn sessions(&self, project_id: &str) -> PathBuf {
        self.projects().join(project_id).join("sessions")
    }

    pub(super) fn paths(&self, session: &SessionRef) -> SessionPaths {
        SessionPaths { root: self.sessions(&session.project_id).join(&session.session_id) }
    }

    pub(super) fn socket_dir(&self, session_id: &str) -> PathBuf {
        self.options.data_dir.join("run").join(session_id)
    }

    pub(super) fn socket(&self, session_id: &str, run: i64) -> PathBuf {
        self.socket_dir(session_id).join(format!("{run}.sock"))
    }

    /// Every session that has a directory.
    pub(super) fn all_sessions(&self) -> Result<Vec<SessionRef>, ComputeError> {
        let mut all = Vec::new();
        for project_id in names(&self.projects())? {
            for session_id in names(&self.sessions(&project_id))? {
                let session = SessionRef { project_id: project_id.clone(), session_id };
                if check_session(&session).is_ok() {
                    all.push(session);
                }
            }
        }
        Ok(all)
    }

    pub(super) fn ensure_project(&self, project_id: &str) -> Result<(), ComputeError> {
        check_id("project id", project_id)?;
        self.open_directory(&self.projects().join(project_id))?;
        self.open_directory(&self.sessions(project_id))
    }

    pub(super) fn delete_project(&self, project_id: &str) -> Result<(), ComputeError> {
        check_id("project id", project_id)?;
        let left = names(&self.sessions(project_id))?;
        if !left.is_empty() {
            return Err(ComputeError::Invalid(format!("project {project_id} still has sessions: {}", left.join(", "))));
        }
        remove_tree(&self.projects().join(project_id))
    }

    /// The session's own directory, with the fence's place, but without a workspace.
    pub(super) fn ensure_root(&self, session: &SessionRef) -> Result<SessionPaths, ComputeError> {
        check_session(session)?;
        self.ensure_project(&session.project_id)?;
        let paths = self.paths(session);
        make_directory(&paths.root, if self.ids.is_some() { 0o750 } else { 0o700 })?;
        Ok(paths)
    }

    /// Creates what is missing; refused for a deleted session. Returns the session's user ids, if it has its own.
    ///
    /// The runner's files become its user's when it is launched ([`Self::settle_users`]).
    pub(super) fn ensure_workspace(&self, session: &SessionRef) -> Result<Option<Users>, ComputeError> {
        check_session(session)?;
        let stopped_run = i64::MAX;
        if self.is_deleted(session)? {
            return Err(ComputeError::Fenced { run: 0, stopped_run });
        }
        let paths = self.ensure_root(session)?;
        let users = self.ensure_users(&paths)?;
        for directory in [paths.workspace(), paths.home(), paths.tmp()] {
            make_directory(&directory, 0o700)?;
            give(&directory, users.map(|users| users.agent))?;
        }
        for directory in [paths.repos(), paths.packs(), self.socket_dir(&session.session_id)] {
            make_directory(&directory, 0o700)?;
        }
        make_directory(&paths.runs(), if users.is_some() { 0o750 } else { 0o700 })?;
        // The session's agent reads here; others do not get past the session's directory.
        for directory in [paths.mirrors(), paths.blocks()] {
            make_directory(&directory, 0o755)?;
        }
        drop(open_lock(&paths.life_lock())?);
        Ok(users)
    }

    /// The runner may add files; the server's are kept (sticky directory).
    pub(super) fn ensure_run(&self, paths: &SessionPaths, run: i64, users: Option<Users>) -> Result<(), ComputeError> {
        let runner = users.map(|users| users.runner);
        let directory = paths.run_dir(run);
        make_directory(&directory, if runner.is_some() { 0o1770 } else { 0o700 })?;
        hand_to_group(&directory, runner)?;
        let secrets = directory.join("secrets");
        make_directory(&secrets, if runner.is_some() { 0o750 } else { 0o700 })?;
        hand_to_group(&secrets, runner)
    }

    pub(super) fn write_secret(
        &self,
        session: &SessionRef,
        run: i64,
        name: SecretName,
        value: &Secret,
    ) -> Result<(), ComputeError> {
        self.ensure_workspace(session)?;
        let paths = self.paths(session);
        // Under the lock: whoever stops the run raises the fence before removing its secrets, and finds what is written here.
        let fence = self.lock_fence(session)?;
        // Again: a workspace may have been removed until now. Once the run has a folder it is not.
        let users = self.ensure_workspace(session)?;
        if fence.stopped_run >= run {
            return Err(ComputeError::Fenced { run, stopped_run: fence.stopped_run });
        }
        self.ensure_run(&paths, run, users)?;
        let runner = users.map(|users| users.runner);
        // Not synced: after a power loss nothing is alive that could use it, and the next launch writes it again.
        replace_file(&secret_path(&paths, run, name), value.reveal().as_bytes(), runner, Lasting::No)
    }

    pub(super) fn delete_secrets(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        let all =
            [SecretName::ServerToRunner, SecretName::RunnerToServer, SecretName::Environment, SecretName::ModelKeys];
        for name in all {
            remove_file(&secret_path(&paths, run, name))?;
        }
        Ok(())
    }

    /// A directory of the server's that sessions' users may pass through.
    fn open_directory(&self, directory: &Path) -> Result<(), ComputeError> {
        let mode = if self.ids.is_some() { ENTER } else { 0o700 };
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).map_err(|e| io_error(format!("making {}", parent.display()), e))?;
        }
        make_directory(directory, mode)?;
        let what = || format!("opening {}", directory.display());
        let now = directory.metadata().map_err(|e| io_error(what(), e))?.permissions().mode();
        if now & mode & 0o111 == mode & 0o111 {
            return Ok(());
        }
        std::fs::set_permissions(directory, Permissions::from_mode(now | mode)).map_err(|e| io_error(what(), e))
    }
}

fn secret_path(paths: &SessionPaths, run: i64, name: SecretName) -> PathBuf {
    match name {
        SecretName::ServerToRunner => paths.server_token(run),
        SecretName::RunnerToServer => paths.runner_token(run),
        SecretName::Environment => paths.environment(run),
        SecretName::ModelKeys => paths.model_keys(run),
    }
}

/// Refuses ids that could be anything but a single file name.
pub(super) fn check_session(session: &SessionRef) -> Result<(), ComputeError> {
    check_id("project id", &session.project_id)?;
    check_id("session id", &session.session_id)
}

pub(super) fn check_id(what: &str, id: &str) -> Result<(), ComputeError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.is_empty() || id.len() > MAX_ID || !id.chars().all(legal) {
        return Err(ComputeError::Invalid(format!("{what}: 1 to {MAX_ID} letters, digits, '-', '_'")));
    }
    Ok(())
}

fn reachable(data: &Path) -> Result<(), ComputeError> {
    for directory in data.ancestors().skip(1) {
        let closed = directory.metadata().is_ok_and(|about| about.permissions().mode() & 0o001 == 0);
        if closed {
            return Err(ComputeError::Invalid(format!(
                "sessions run as other users, who cannot pass {}: choose another data directory, allow it with chmod o+x, or \
                 switch user ids of sessions off",
                directory.display()
            )));
        }
    }
    Ok(())
}

/// The name of a data directory (an absolute path) among the machine's cgroups.
pub(super) fn installation(data: &Path) -> String {
    format!("{:08x}", stable_hash(&data.to_string_lossy()))
}

/// FNV-1a: the same on every host and in every version.
pub(super) fn stable_hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn make_directory(directory: &Path, mode: u32) -> Result<(), ComputeError> {
    let what = || format!("making {}", directory.display());
    match DirBuilder::new().mode(mode).create(directory) {
        // Again, because the umask removes some of the requested bits.
        Ok(()) => std::fs::set_permissions(directory, Permissions::from_mode(mode)).map_err(|e| io_error(what(), e)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error(what(), error)),
    }
}

/// Makes a session's user the owner.
pub(super) fn give(path: &Path, uid: Option<u32>) -> Result<(), ComputeError> {
    let Some(uid) = uid else { return Ok(()) };
    let owned = path.symlink_metadata().is_ok_and(|about| about.uid() == uid && about.gid() == uid);
    if owned {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(uid))
        .map_err(|e| io_error(format!("owner of {}", path.display()), e))
}

pub(super) fn hand_to_group(path: &Path, gid: Option<u32>) -> Result<(), ComputeError> {
    let Some(gid) = gid else { return Ok(()) };
    if path.metadata().is_ok_and(|about| about.gid() == gid) {
        return Ok(());
    }
    chown(path, None, Some(gid)).map_err(|e| io_error(format!("group of {}", path.display()), e))
}

/// Opens a lock file, created if absent, never through a link.
pub(super) fn open_lock(path: &Path) -> Result<File, ComputeError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags(OFlags::NOFOLLOW));
    options.open(path).map_err(|e| io_error(format!("opening {}", path.display()), e))
}

/// Opens a log for appending, never through a link.
pub(super) fn open_append(path: &Path) -> Result<File, ComputeError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
    options.open(path).map_err(|e| io_error(format!("opening {}", path.display()), e))
}

/// Whether a file must survive a power loss.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Yes,
    No,
}

/// Writes a complete file atomically and durably, 0600.
pub(super) fn write_file(path: &Path, bytes: &[u8], uid: Option<u32>) -> Result<(), ComputeError> {
    replace_file(path, bytes, uid, Lasting::Yes)
}

fn replace_file(path: &Path, bytes: &[u8], uid: Option<u32>, lasting: Lasting) -> Result<(), ComputeError> {
    let what = || format!("writing {}", path.display());
    let write = || -> std::io::Result<()> {
        let parent = path.parent().ok_or_else(|| std::io::Error::other("no directory"))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = parent.join(format!(".{name}.{}", random_id()?));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        if let Some(uid) = uid {
            std::os::unix::fs::fchown(&file, Some(uid), Some(uid))?;
        }
        if lasting == Lasting::No {
            return std::fs::rename(&temporary, path);
        }
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|e| io_error(what(), e))
}

/// Writes a record, see [`write_file`].
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T, uid: Option<u32>) -> Result<(), ComputeError> {
    let bytes = serde_json::to_vec(value).map_err(|e| io_error(format!("writing {}", path.display()), e.into()))?;
    write_file(path, &bytes, uid)
}

/// Whether something has this path; if that cannot be determined it is an error.
pub(super) fn is_there(path: &Path) -> Result<bool, ComputeError> {
    path.try_exists().map_err(|e| io_error(format!("looking for {}", path.display()), e))
}

/// Reads a record; `None` if there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ComputeError> {
    let what = || format!("reading {}", path.display());
    let Some(bytes) = read_file(path).map_err(|e| io_error(what(), e))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| io_error(what(), e.into()))
}

/// Reads a record that a runner wrote; garbage counts as none, and is logged. An unreadable file does not.
pub(super) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ComputeError> {
    let rubbish = |error: &dyn std::fmt::Display| {
        tracing::warn!(path = %path.display(), %error, "a record is none");
        None
    };
    match read_file(path) {
        Ok(Some(bytes)) => Ok(serde_json::from_slice(&bytes).map_or_else(|error| rubbish(&error), Some)),
        Ok(None) => Ok(None),
        Err(error) if is_no_file(&error) => Ok(rubbish(&error)),
        Err(error) => Err(io_error(format!("reading {}", path.display()), error)),
    }
}

/// A link, a folder, a socket, a file that we may not read: someone who may write there made it so.
fn is_no_file(error: &std::io::Error) -> bool {
    let made = [Errno::LOOP, Errno::ISDIR, Errno::NOTDIR, Errno::NXIO, Errno::ACCESS];
    Errno::from_io_error(error).is_some_and(|error| made.contains(&error))
}

/// A file's bytes; `None` if there is none. Runners write some of them, so no links are followed and nothing is waited for.
fn read_file(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    let file = match options.read(true).custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK)).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

pub(super) fn remove_file(path: &Path) -> Result<(), ComputeError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(io_error(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes a tree, whatever the agent has made of it.
pub(super) fn remove_tree(path: &Path) -> Result<(), ComputeError> {
    ambient_removal::remove_tree(path).map_err(|e| io_error(format!("removing {}", path.display()), e))
}

/// Names in a directory, sorted; none when it is absent.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, ComputeError> {
    let what = || format!("listing {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(what(), error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(|e| io_error(what(), e))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn random_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().replace('-', ""))
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}
