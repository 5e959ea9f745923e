//! Snapshots: the working tree of every repository as a commit that is on no branch.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ambient_wire::runner::custom;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{command::Git, operations::EMPTY_TREE};
use crate::{
    agent::event,
    app::App,
    error::{Error, Result},
    life,
};

/// Most bytes of a patch in the log.
const MAX_PATCH: usize = 128 * 1024;

/// An index of our own, so that the agent's is left alone. Removed when dropped.
pub(crate) struct TemporaryIndex {
    pub(crate) path: PathBuf,
}

impl TemporaryIndex {
    /// The working tree, untracked files included, ignored ones not.
    ///
    /// # Errors
    /// Git's.
    pub(crate) async fn of_working_tree(app: &App, directory: &Path, patience: Duration) -> Result<Self> {
        let id = life::random_id().map_err(|e| Error::io("no random number", &e))?;
        let index = Self { path: app.paths.tmp().join(format!("index-{id}")) };
        let git = || Git::agents(app, directory).patience(patience).variable("GIT_INDEX_FILE", &index.path);
        if Git::agents(app, directory).maybe(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?.is_some() {
            git().run(&["read-tree", "HEAD"]).await?;
        }
        git().run(&["add", "--all"]).await?;
        Ok(index)
    }
}

impl Drop for TemporaryIndex {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes a snapshot of every repository; the events that tell of them. A failure is told too and fails nothing.
pub(crate) async fn of_all(app: &App, turn: u64, patience: Duration) -> Vec<Value> {
    let deadline = Instant::now() + patience;
    let mut events = Vec::new();
    for name in app.repos.names() {
        let Ok((directory, known)) = app.repos.directory(app, &name) else { continue };
        let reference = format!("refs/ambient/snapshots/{}-{turn}", app.spec.run);
        let base = known.base.unwrap_or_else(|| EMPTY_TREE.to_owned());
        let taken = timeout_at(deadline, one(app, &directory, &reference, turn, &base)).await;
        let taken = taken.unwrap_or_else(|_| Err(Error::Git(format!("it took longer than {} s", patience.as_secs()))));
        events.push(match taken {
            Ok((commit, patch)) => {
                let (patch, truncated) = cut(&patch);
                let value = json!({
                    "repo": name, "commit": commit, "ref": reference, "base": base,
                    "patch": patch, "patch_truncated": truncated,
                });
                event::custom(custom::SNAPSHOT, value)
            }
            Err(error) => event::custom(custom::SNAPSHOT_FAILED, json!({ "repo": name, "reason": error.to_string() })),
        });
    }
    events
}

/// The commit, and the patch that leads to it: people who come when the runner is gone read it in the log.
async fn one(app: &App, directory: &Path, reference: &str, turn: u64, base: &str) -> Result<(String, Vec<u8>)> {
    let index = TemporaryIndex::of_working_tree(app, directory, Duration::from_secs(60)).await?;
    let tree = Git::agents(app, directory).variable("GIT_INDEX_FILE", &index.path).text(&["write-tree"]).await?;
    let head = Git::agents(app, directory).maybe(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?;
    let mut arguments = vec!["commit-tree", "--no-gpg-sign", tree.as_str()];
    if let Some(head) = &head {
        arguments.extend(["-p", head]);
    }
    let message = format!("Snapshot after turn {turn} of run {}\n", app.spec.run);
    let commit = Git::agents(app, directory).input(message).text(&arguments).await?;
    Git::agents(app, directory).run(&["update-ref", reference, &commit]).await?;
    let arguments = ["diff", "--no-ext-diff", "--no-textconv", "--no-color", "--patch-with-stat", base, &commit, "--"];
    // A patch too large to be read is no reason to have no snapshot.
    let patch = Git::agents(app, directory).run(&arguments).await.unwrap_or_default();
    Ok((commit, patch))
}

/// The text of a patch, cut at a line's end; and whether it was cut.
fn cut(patch: &[u8]) -> (String, bool) {
    if patch.len() <= MAX_PATCH {
        return (String::from_utf8_lossy(patch).into_owned(), false);
    }
    let head = &patch[..MAX_PATCH];
    let end = head.iter().rposition(|byte| *byte == b'\n').map_or(MAX_PATCH, |at| at + 1);
    (String::from_utf8_lossy(&head[..end]).into_owned(), true)
}
