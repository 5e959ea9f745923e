//! Enters the cgroups that compute has made for the agent.

use std::path::PathBuf;

/// Moves this process, and with it what it starts, into the cgroups.
///
/// # Errors
/// In words: then nothing of the agent may be started, because nothing would limit or kill it.
pub(crate) fn enter(groups: &[PathBuf]) -> Result<(), String> {
    groups.iter().try_for_each(|group| {
        std::fs::write(group.join("cgroup.procs"), "0")
            .map_err(|error| format!("cannot enter the control group {}: {error}", group.display()))
    })
}
