//! Sparse checkout: files that the agent's repository has not checked out. They are not deleted, so they stay as the commit has
//! them; which ones is the agent's claim, so they are named, and only what is not in the working tree can be one.

use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use super::{command::Git, directory::Directory};

/// Largest list of such files, bytes.
const MAX_LIST: usize = 16 * 1024 * 1024;

/// Files that are marked as not checked out in an agent's index, if its repository has a sparse checkout. An unreadable index
/// marks nothing.
pub(super) async fn marked(agents: &Git<'_>) -> BTreeSet<Vec<u8>> {
    let is_sparse = agents.clone().maybe(&["config", "--type=bool", "--get", "core.sparseCheckout"]).await;
    if !matches!(is_sparse, Ok(Some(text)) if text == "true") {
        return BTreeSet::new();
    }
    let list =
        agents.clone().most(MAX_LIST).only(|entry| entry.starts_with(b"S ")).run(&["ls-files", "-t", "-z"]).await;
    let list = list.unwrap_or_default();
    list.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(b"S ")).map(<[u8]>::to_vec).collect()
}

/// Absent files; those of a folder that is absent too are reported as that folder.
pub(super) fn topmost(directory: &Directory, absent: &BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
    let mut named: BTreeSet<Vec<u8>> = BTreeSet::new();
    for path in absent {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let steps: Vec<_> = slashes.chain([path.len()]).map(|end| &path[..end]).collect();
        if steps.iter().any(|step| named.contains(*step)) {
            continue;
        }
        let is_absent = |step: &&&[u8]| !directory.has(Path::new(OsStr::from_bytes(step)));
        named.insert(steps.iter().find(is_absent).map_or_else(|| path.clone(), |step| step.to_vec()));
    }
    named
}
