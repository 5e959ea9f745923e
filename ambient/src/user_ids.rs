//! User ids of a server of root, after those of its sessions.

use ambient_compute::local::SESSION_UIDS;

/// Ids that belong to nobody.
const NOBODY: [u32; 2] = [65_534, 65_535];

/// Reads stored snapshots.
pub(crate) fn reader(base: u32) -> u32 {
    after_sessions(base).next().unwrap_or(base)
}

/// Installs agents.
pub(crate) fn installer(base: u32) -> u32 {
    after_sessions(base).nth(1).unwrap_or(base)
}

fn after_sessions(base: u32) -> impl Iterator<Item = u32> {
    (base.saturating_add(SESSION_UIDS)..).filter(|id| !NOBODY.contains(id))
}
