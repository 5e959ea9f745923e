//! How many files this process may open: sockets are files, and the usual limit of 1,024 was meant for programs with few.

use rustix::process::{Resource, getrlimit, setrlimit};

/// More is not needed by any limit of ours.
const ENOUGH: u64 = 65_536;

/// Raises the limit as far as it may be, and returns it.
pub(crate) fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let now = limit.current.unwrap_or(ENOUGH);
    if now >= most {
        return now;
    }
    limit.current = Some(most);
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => most,
        Err(error) => {
            tracing::warn!(%error, now, "the limit of open files cannot be raised");
            now
        }
    }
}
