//! Renames in a working tree. Git pairs deleted files with new ones only if its index knows the new files, so our index
//! is told about them, without their content. If there are too many or it takes too long, a rename is a deletion and a new file.

use std::{collections::BTreeSet, time::Duration};

use super::working_tree::{MAX_LIST, WorkingTree, terminated};
use crate::{
    error::Result,
    survey::{Finding, Kind},
};

/// Most new files, and most deleted ones, that are compared.
const MAX_COMPARED: usize = 400;
/// Timeout for each step of the comparison.
const PATIENCE: Duration = Duration::from_secs(10);

/// The status with its renames; nothing if there are none to look for.
pub(super) async fn status(tree: &WorkingTree<'_>, listed: &[&str]) -> Option<Vec<u8>> {
    if !announce(tree).await.ok()? {
        return None;
    }
    let git = tree.git().patience(PATIENCE).setting("diff.renameLimit", &MAX_COMPARED.to_string());
    git.run(&[listed, &["--find-renames"]].concat()).await.ok()
}

/// Whether there is something to compare, which the index now knows.
async fn announce(tree: &WorkingTree<'_>) -> Result<bool> {
    if tree.findings.iter().any(|finding| finding.kind == Kind::More) {
        return Ok(false);
    }
    let git = || tree.git().patience(PATIENCE).most(MAX_LIST);
    let deleted = git().run(&["diff-files", "--name-only", "--diff-filter=D", "-z"]).await?;
    if !(1..=MAX_COMPARED).contains(&paths(&deleted).count()) {
        return Ok(false);
    }
    let others = git().run(&["ls-files", "--others", "--exclude-standard", "-z"]).await?;
    // Not large or unreadable ones.
    let found: BTreeSet<&[u8]> = tree.findings.iter().map(|Finding { path, .. }| path.as_slice()).collect();
    let new: Vec<_> = paths(&others).filter(|path| !path.ends_with(b"/") && !found.contains(path)).collect();
    if !(1..=MAX_COMPARED).contains(&new.len()) {
        return Ok(false);
    }
    let new: Vec<_> = new.into_iter().map(<[u8]>::to_vec).collect();
    let add = ["add", "--intent-to-add", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul"];
    git().variable("GIT_LITERAL_PATHSPECS", "1").input(terminated(&new)).run(&add).await?;
    Ok(true)
}

fn paths(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == 0).filter(|path| !path.is_empty())
}
