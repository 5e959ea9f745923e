//! Markers of deleted sessions: nothing of them is ever launched again, even by someone who has been on the way for long.
//!
//! A marker is an empty file. It exists before the first file of the session is removed; it may be removed when nothing that could
//! act on the session is left, which only the database and the workflow engine can say.

use std::{
    io::ErrorKind,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    error::io_error,
    host::Local,
    layout::{check_id, is_there, names, remove_file, write_file},
};
use crate::{ComputeError, SessionRef};

/// Anything on its way for longer than this has ended.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most markers reported at once: later sweeps find the others.
const AT_ONCE: usize = 500;

impl Local {
    fn mark(&self, session_id: &str) -> PathBuf {
        self.options.data_dir.join("deleted").join(session_id)
    }

    /// True if the session is deleted, as long as its marker is kept.
    pub(super) fn is_deleted(&self, session: &SessionRef) -> Result<bool, ComputeError> {
        is_there(&self.mark(&session.session_id))
    }

    pub(super) fn mark_deleted(&self, session: &SessionRef) -> Result<(), ComputeError> {
        write_file(&self.mark(&session.session_id), b"", None)
    }

    /// Sessions whose marker has expired.
    pub(super) fn old_deletions(&self) -> Result<Vec<String>, ComputeError> {
        let mut marks = names(&self.options.data_dir.join("deleted"))?;
        // Starts from a different one each second: otherwise markers that have to stay would hide those after them.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let from = usize::try_from(now).unwrap_or_default() % marks.len().max(1);
        marks.rotate_left(from);
        let mut old = Vec::new();
        for session_id in marks {
            if check_id("session id", &session_id).is_ok() && self.is_old(&session_id)? {
                old.push(session_id);
            }
            if old.len() == AT_ONCE {
                break;
            }
        }
        Ok(old)
    }

    fn is_old(&self, session_id: &str) -> Result<bool, ComputeError> {
        let mark = self.mark(session_id);
        match mark.metadata().and_then(|about| about.modified()) {
            // One in the future has no age.
            Ok(modified) => Ok(modified.elapsed().is_ok_and(|age| age >= KEPT)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error(format!("age of {}", mark.display()), error)),
        }
    }

    /// Removes a marker that has expired; one that has been renewed stays.
    pub(super) fn forget_deletion(&self, session_id: &str) -> Result<(), ComputeError> {
        check_id("session id", session_id)?;
        if self.is_old(session_id)? { remove_file(&self.mark(session_id)) } else { Ok(()) }
    }
}
