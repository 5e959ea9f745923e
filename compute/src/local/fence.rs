//! The fence: runs up to a number may never be launched (again).

use std::{
    fs::{File, TryLockError},
    path::Path,
    time::{Duration, Instant},
};

use ambient_runner_protocol::{Fence, SessionPaths};

use super::{
    error::io_error,
    host::Local,
    layout::{check_session, open_lock, read_json, write_json},
};
use crate::{ComputeError, SessionRef};

/// How long to wait for a lock. A launch that has to end an earlier attempt first holds it for some seconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// The fence under its lock.
pub(super) struct LockedFence {
    pub(super) stopped_run: i64,
    _lock: File,
}

impl Local {
    /// Locks the session's fence. Its directory must exist.
    pub(super) fn lock_fence(&self, session: &SessionRef) -> Result<LockedFence, ComputeError> {
        check_session(session)?;
        let paths = self.paths(session);
        let lock = lock_file(&paths.fence_lock())?;
        Ok(LockedFence { stopped_run: self.stopped_run(session, &paths)?, _lock: lock })
    }

    pub(super) fn stopped_run(&self, session: &SessionRef, paths: &SessionPaths) -> Result<i64, ComputeError> {
        if self.is_deleted(session)? {
            return Ok(i64::MAX);
        }
        Ok(read_json::<Fence>(&paths.fence())?.unwrap_or_default().stopped_run)
    }

    pub(super) fn raise_fence(&self, session: &SessionRef, run: i64) -> Result<(), ComputeError> {
        check_session(session)?;
        if self.is_deleted(session)? {
            return Ok(());
        }
        // Even if the session never had a directory: a late launch has to find the fence.
        let paths = self.ensure_root(session)?;
        let fence = self.lock_fence(session)?;
        if fence.stopped_run >= run {
            return Ok(());
        }
        write_json(&paths.fence(), &Fence { stopped_run: run }, None)?;
        readable(&paths.fence())
    }
}

/// The runner reads the fence as another user.
fn readable(path: &Path) -> Result<(), ComputeError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|e| io_error(format!("permissions of {}", path.display()), e))
}

/// Takes an exclusive lock (flock) on a lock file; released when dropped.
pub(super) fn lock_file(path: &Path) -> Result<File, ComputeError> {
    let file = open_lock(path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => {
                let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "another process holds the lock");
                return Err(io_error(format!("locking {}", path.display()), late));
            }
            Err(TryLockError::Error(error)) => return Err(io_error(format!("locking {}", path.display()), error)),
        }
    }
}
