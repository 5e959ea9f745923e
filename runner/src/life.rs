//! Being the workspace's only runner: launch file, detaching, `life.lock`, the fence, and the records of start and end.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use ambient_runner_protocol::{CONTRACT_VERSION, Fence, LaunchSpec, ProcessIdentity, SessionPaths, Started};
use rustix::fs::OFlags;
use serde::Serialize;

/// How long a new runner waits for an old one to let go.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const MAX_LAUNCH_BYTES: u64 = 1024 * 1024;
const MAX_SOCKET_PATH: usize = 100;
/// Space for a prepared record: the reason of an end is cut to fit.
const RECORD_BYTES: u64 = 8192;

/// Reads and checks the launch file.
///
/// # Errors
/// In words.
pub(crate) fn read_launch(path: &Path) -> Result<LaunchSpec, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.take(MAX_LAUNCH_BYTES).read_to_string(&mut text).map_err(|e| format!("{}: {e}", path.display()))?;
    let spec: LaunchSpec = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if spec.version != CONTRACT_VERSION {
        return Err(format!("contract version {} is not {CONTRACT_VERSION}", spec.version));
    }
    if spec.socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(format!("the socket's path is longer than {MAX_SOCKET_PATH} bytes: {}", spec.socket.display()));
    }
    Ok(spec)
}

/// Closes everything we inherited besides standard input, output and error: an agent would inherit it. Call before anything is
/// opened.
///
/// # Errors
/// A system error, if it does not say what is open.
pub(crate) fn close_inherited() -> std::io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    // One of them was the listing's own, and is closed by now.
    for descriptor in open {
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// Own session, private files, no new privileges, and parent of every orphan of the agent. Call before threads exist.
///
/// # Errors
/// A system error.
pub(crate) fn detach() -> std::io::Result<()> {
    // Being a session leader already (started by hand with setsid) is fine.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Takes `life.lock`; `None` if another runner keeps it.
///
/// # Errors
/// A system error.
pub(crate) fn take_lock(path: &Path) -> std::io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Highest run that was stopped; 0 if none was.
///
/// # Errors
/// When the fence exists but cannot be read: then nothing may be started.
pub(crate) fn stopped_run(paths: &SessionPaths) -> std::io::Result<i64> {
    match std::fs::read(paths.fence()) {
        Ok(bytes) => Ok(serde_json::from_slice::<Fence>(&bytes).map_err(std::io::Error::other)?.stopped_run),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// True if the end of the run was requested, so that a SIGTERM is no accident.
pub(crate) fn end_was_asked_for(paths: &SessionPaths, run: i64) -> bool {
    paths.stop_request(run).exists() || stopped_run(paths).is_ok_and(|stopped| stopped >= run)
}

/// Who we are.
///
/// # Errors
/// A system error.
pub(crate) fn identity(
    nonce: &str,
    init: Option<ProcessIdentity>,
    missing_confinement: Vec<String>,
) -> std::io::Result<Started> {
    let stat = procfs::process::Process::myself().and_then(|me| me.stat()).map_err(std::io::Error::other)?;
    Ok(Started {
        pid: stat.pid,
        start_time: stat.starttime,
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        nonce: nonce.to_owned(),
        init,
        missing_confinement,
    })
}

/// Writes a record so that it is there in full, even after a power loss, or not at all.
///
/// # Errors
/// A system error.
pub(crate) fn write_record<T: Serialize>(path: &Path, record: &T) -> std::io::Result<()> {
    let directory = path.parent().ok_or_else(|| std::io::Error::other("no directory"))?;
    let temporary = temporary(path);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_new(&temporary)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// Space for a record that must be written even when the disk is full.
///
/// # Errors
/// A system error.
pub(crate) fn prepare_record(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow()?);
    let file = options.open(temporary(path))?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RECORD_BYTES) {
        // A file system that cannot promise space: the record is written if there is some.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => file.sync_all(),
        Err(error) => Err(error.into()),
    }
}

/// Like [`write_record`], into the space that was prepared for it.
///
/// # Errors
/// A system error.
pub(crate) fn write_prepared_record<T: Serialize>(path: &Path, record: &T) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(record)?;
    let mut file = match OpenOptions::new().write(true).custom_flags(no_follow()?).open(temporary(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return write_record(path, record),
        Err(error) => return Err(error),
    };
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    std::fs::rename(temporary(path), path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("json.new")
}

static DISK_WAS_FULL: AtomicBool = AtomicBool::new(false);

/// Remembers that something could not be written for lack of space: what follows is then not the agent's fault.
pub(crate) fn note_want_of_space(error: &std::io::Error) {
    if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        DISK_WAS_FULL.store(true, Ordering::Relaxed);
    }
}

/// Whether this runner failed to write something for lack of space.
pub(crate) fn disk_was_full() -> bool {
    DISK_WAS_FULL.load(Ordering::Relaxed)
}

/// Creates a private file that did not exist; never through a link.
pub(crate) fn create_new(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Opens one of our private files for appending, never through a link.
///
/// # Errors
/// A system error.
pub(crate) fn open_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(no_follow()?).open(path)
}

fn no_follow() -> std::io::Result<i32> {
    i32::try_from(OFlags::NOFOLLOW.bits()).map_err(std::io::Error::other)
}

/// Random text.
///
/// # Errors
/// A system error.
pub(crate) fn random_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().replace('-', ""))
}
