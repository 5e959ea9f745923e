//! Directories, files and their owners.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use ambient_wire::runner::SessionPaths;
use rustix::{fs::OFlags, io::Errno};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Local, LocalOptions,
    cgroup::Trees,
    fence, io_error,
    processes::{boot_id, live_uids},
    space::Space,
    watch::Hub,
};
use crate::{ComputeError, Secret, SecretName, SessionRef};

/// How many user ids sessions may have.
pub const SESSION_UIDS: u32 = 25_000;
/// How many they had in earlier releases: such sessions keep theirs.
const EARLIER_UIDS: u32 = 50_000;
/// Not a session's: the kernel shows what a user namespace does not map as the one, and takes the other for "no change" in
/// 16 bits.
const NOBODY: [u32; 2] = [65_534, 65_535];
/// Most bytes of a socket's path; the system's limit is 107.
const MAX_SOCKET_PATH: usize = 100;
/// Longest id that is taken; a KSUID has 27.
const MAX_ID: usize = 40;
/// Largest record that is read.
const MAX_RECORD: u64 = 1024 * 1024;
/// Enters but does not list: what sessions' users get of directories that are not theirs.
const ENTER: u32 = 0o711;

/// Whether sessions may have the [`SESSION_UIDS`] user ids from `base` up.
///
/// # Errors
/// In words.
pub fn check_uid_base(base: u32) -> Result<(), String> {
    let range = base..=base.saturating_add(SESSION_UIDS - 1);
    let taken = NOBODY.iter().chain(&[0, u32::MAX]).find(|uid| range.contains(uid));
    taken.map_or(Ok(()), |uid| Err(format!("the {SESSION_UIDS} ids from {base} up must not contain {uid}")))
}

impl Local {
    pub(super) fn prepare(options: LocalOptions) -> Result<Self, ComputeError> {
        let data = std::path::absolute(&options.data_dir).map_err(|e| io_error("data directory", e))?;
        let options = LocalOptions { data_dir: data.clone(), ..options };
        let uid_base = options.session_uid_base.filter(|_| rustix::process::geteuid().is_root());
        if let Some(base) = uid_base {
            check_uid_base(base).map_err(|problem| ComputeError::Invalid(format!("session_uid_base: {problem}")))?;
        }
        // Read once while it can be: what is known of processes depends on it.
        boot_id()?;
        let local = Self {
            runner_binary: options.runner_binary.clone(),
            groups: Trees::detect(&format!("{:08x}", stable_hash(&data.to_string_lossy()))),
            space: Space::new(&data, options.disk_reserve, options.disk_low_water),
            options,
            uid_base,
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
        if uid_base.is_none() {
            return Ok(local);
        }
        reachable(&data)?;
        let runner_binary = local.install_runner()?;
        Ok(Self { runner_binary, ..local })
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

    /// The session's own directory, with the fence's place, without a workspace.
    pub(super) fn ensure_root(&self, session: &SessionRef) -> Result<SessionPaths, ComputeError> {
        check_session(session)?;
        self.ensure_project(&session.project_id)?;
        let paths = self.paths(session);
        make_directory(&paths.root, if self.uid_base.is_some() { 0o750 } else { 0o700 })?;
        Ok(paths)
    }

    /// Makes what is missing; refused for a deleted session. The user id of the session, when it has its own.
    pub(super) fn ensure_workspace(&self, session: &SessionRef) -> Result<Option<u32>, ComputeError> {
        check_session(session)?;
        let stopped_run = i64::MAX;
        if self.is_deleted(session)? {
            return Err(ComputeError::Fenced { run: 0, stopped_run });
        }
        let paths = self.ensure_root(session)?;
        let uid = self.uid_base.map(|base| self.ensure_uid(base, &paths)).transpose()?;
        for directory in
            [paths.workspace(), paths.home(), paths.tmp(), paths.repos(), self.socket_dir(&session.session_id)]
        {
            make_directory(&directory, 0o700)?;
            give(&directory, uid)?;
        }
        let runs = paths.root.join("runs");
        make_directory(&runs, if uid.is_some() { 0o750 } else { 0o700 })?;
        hand_to_group(&runs, uid)?;
        // The session's agent reads here; others do not get past the session's directory.
        make_directory(&paths.mirrors(), 0o755)?;
        give(&paths.mirrors(), uid)?;
        let life = open_lock(&paths.life_lock())?;
        drop(life);
        give(&paths.life_lock(), uid)?;
        Ok(uid)
    }

    /// The runner may add files; what the server wrote stays (sticky directory).
    pub(super) fn ensure_run(&self, paths: &SessionPaths, run: i64, uid: Option<u32>) -> Result<(), ComputeError> {
        let directory = paths.run_dir(run);
        make_directory(&directory, if uid.is_some() { 0o1770 } else { 0o700 })?;
        hand_to_group(&directory, uid)?;
        let secrets = directory.join("secrets");
        make_directory(&secrets, if uid.is_some() { 0o750 } else { 0o700 })?;
        hand_to_group(&secrets, uid)
    }

    /// The session's user id: the group of its directory.
    pub(super) fn own_uid(&self, paths: &SessionPaths) -> Result<Option<u32>, ComputeError> {
        let Some(base) = self.uid_base else { return Ok(None) };
        let gid = match paths.root.metadata() {
            Ok(about) => about.gid(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(format!("group of {}", paths.root.display()), error)),
        };
        let is_ours = (base..base.saturating_add(EARLIER_UIDS)).contains(&gid) && !NOBODY.contains(&gid);
        Ok(is_ours.then_some(gid))
    }

    /// A user id that no other session of this data directory has, and no process now. The path goes into the hash, because
    /// another installation on this machine may have the same base.
    fn ensure_uid(&self, base: u32, paths: &SessionPaths) -> Result<u32, ComputeError> {
        let _one = fence::lock_file(&self.options.data_dir.join("uid.lock"))?;
        if let Some(uid) = self.own_uid(paths)? {
            return Ok(uid);
        }
        let mut taken = live_uids()?;
        for other in self.all_sessions()? {
            taken.extend(self.own_uid(&self.paths(&other))?);
        }
        let first = stable_hash(&paths.root.to_string_lossy()) % SESSION_UIDS;
        let free = (0..SESSION_UIDS).map(|i| base + (first + i) % SESSION_UIDS).find(|uid| !taken.contains(uid));
        let uid =
            free.ok_or_else(|| ComputeError::Invalid(format!("all {SESSION_UIDS} user ids for sessions are taken")))?;
        hand_to_group(&paths.root, Some(uid))?;
        Ok(uid)
    }

    pub(super) fn write_secret(
        &self,
        session: &SessionRef,
        run: i64,
        name: SecretName,
        value: &Secret,
    ) -> Result<(), ComputeError> {
        let uid = self.ensure_workspace(session)?;
        let paths = self.paths(session);
        self.ensure_run(&paths, run, uid)?;
        write_file(&secret_path(&paths, run, name), value.reveal().as_bytes(), uid)
    }

    pub(super) fn delete_secrets(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        for name in [SecretName::ServerToRunner, SecretName::RunnerToServer, SecretName::Environment] {
            remove_file(&secret_path(&paths, run, name))?;
        }
        Ok(())
    }

    /// A directory of the server's that sessions' users may pass through.
    fn open_directory(&self, directory: &Path) -> Result<(), ComputeError> {
        let mode = if self.uid_base.is_some() { ENTER } else { 0o700 };
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
    }
}

/// Refuses ids that could be anything but one file name.
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

/// FNV-1a: the same on every host and in every version.
fn stable_hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn make_directory(directory: &Path, mode: u32) -> Result<(), ComputeError> {
    let what = || format!("making {}", directory.display());
    match DirBuilder::new().mode(mode).create(directory) {
        // Again, because the umask takes from what was asked for.
        Ok(()) => std::fs::set_permissions(directory, Permissions::from_mode(mode)).map_err(|e| io_error(what(), e)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error(what(), error)),
    }
}

/// Makes the session's user the owner.
pub(super) fn give(path: &Path, uid: Option<u32>) -> Result<(), ComputeError> {
    let Some(uid) = uid else { return Ok(()) };
    let owned = path.symlink_metadata().is_ok_and(|about| about.uid() == uid && about.gid() == uid);
    if owned {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(uid))
        .map_err(|e| io_error(format!("owner of {}", path.display()), e))
}

fn hand_to_group(path: &Path, gid: Option<u32>) -> Result<(), ComputeError> {
    let Some(gid) = gid else { return Ok(()) };
    if path.metadata().is_ok_and(|about| about.gid() == gid) {
        return Ok(());
    }
    chown(path, None, Some(gid)).map_err(|e| io_error(format!("group of {}", path.display()), e))
}

/// Opens a lock file, made when absent, never through a link.
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

/// Writes a whole file atomically and durably, 0600.
pub(super) fn write_file(path: &Path, bytes: &[u8], uid: Option<u32>) -> Result<(), ComputeError> {
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

/// Whether something has this path; what cannot be told is an error.
pub(super) fn is_there(path: &Path) -> Result<bool, ComputeError> {
    path.try_exists().map_err(|e| io_error(format!("looking for {}", path.display()), e))
}

/// Reads a record; `None` when there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ComputeError> {
    let what = || format!("reading {}", path.display());
    let Some(bytes) = read_file(path).map_err(|e| io_error(what(), e))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| io_error(what(), e.into()))
}

/// Reads a record that a runner wrote; rubbish counts as none, and is told. That it cannot be read does not.
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

/// A link, a folder, a socket, a file that we may not read: whoever may write there has made it so.
fn is_no_file(error: &std::io::Error) -> bool {
    let made = [Errno::LOOP, Errno::ISDIR, Errno::NOTDIR, Errno::NXIO, Errno::ACCESS];
    Errno::from_io_error(error).is_some_and(|error| made.contains(&error))
}

/// A file's bytes; `None` when there is none. Runners write some of them, so nothing is followed or waited for.
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

#[cfg(test)]
mod tests {
    use super::{SESSION_UIDS, check_uid_base};

    #[test]
    fn the_ids_of_sessions_are_nobody_elses_by_definition() {
        for base in [1_000, 40_000, 65_534 - SESSION_UIDS, 65_536, 1_900_000_000] {
            assert_eq!(check_uid_base(base), Ok(()), "{base}");
        }
        for (base, uid) in [(0, 0), (65_534 - SESSION_UIDS + 1, 65_534), (65_535, 65_535), (u32::MAX - 1, u32::MAX)] {
            assert!(check_uid_base(base).unwrap_err().ends_with(&format!(" {uid}")), "{base}");
        }
    }
}
