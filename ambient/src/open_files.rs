//! How many files this process may open: sockets are files, and the usual limit of 1,024 was meant for programs with few.

use rustix::process::{Resource, getrlimit, setrlimit};

/// None of our limits needs more.
const ENOUGH: u64 = 65_536;

/// Raises the limit as far as allowed, and returns it.
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
            tracing::warn!(%error, now, "cannot raise the limit on open files");
            now
        }
    }
}
