//! What all parts of a host's compute share. Each adds its own methods to [`Local`].

use std::path::PathBuf;

use super::{cgroup::Trees, error::io_error, hub::Hub, options::LocalOptions, space::Space, user_ids::Ids};
use crate::ComputeError;

/// What all parts share.
pub(super) struct Local {
    pub(super) options: LocalOptions,
    /// The binary as sessions' users can execute it.
    pub(super) runner_binary: PathBuf,
    /// User ids, if the server is root and sessions have their own.
    pub(super) ids: Option<Ids>,
    pub(super) hub: Hub,
    /// Cgroups, as far as this machine lets us use them.
    pub(super) groups: Trees,
    /// The file system everything is on.
    pub(super) space: Space,
}

/// Runs blocking work where it blocks nobody; it is completed even if the caller goes away.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ComputeError> + Send + 'static,
) -> Result<T, ComputeError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| io_error("blocking work", std::io::Error::other(e)))?
}
