//! Snapshots: the working tree of every repository as a commit that is on no branch.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ambient_wire::runner::custom;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::command::Git;
use crate::{
    agent::event,
    app::App,
    error::{Error, Result},
    life,
};

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
        let git = || Git::new(app, directory).patience(patience).variable("GIT_INDEX_FILE", &index.path);
        if Git::new(app, directory).maybe(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?.is_some() {
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
        let Ok((directory, _)) = app.repos.directory(app, &name) else { continue };
        let reference = format!("refs/ambient/snapshots/{}-{turn}", app.spec.run);
        let taken = timeout_at(deadline, one(app, &directory, &reference, turn)).await;
        let taken = taken.unwrap_or_else(|_| Err(Error::Git(format!("it took longer than {} s", patience.as_secs()))));
        events.push(match taken {
            Ok(commit) => event::custom(custom::SNAPSHOT, json!({ "repo": name, "commit": commit, "ref": reference })),
            Err(error) => event::custom(custom::SNAPSHOT_FAILED, json!({ "repo": name, "reason": error.to_string() })),
        });
    }
    events
}

async fn one(app: &App, directory: &Path, reference: &str, turn: u64) -> Result<String> {
    let index = TemporaryIndex::of_working_tree(app, directory, Duration::from_secs(60)).await?;
    let tree = Git::new(app, directory).variable("GIT_INDEX_FILE", &index.path).text(&["write-tree"]).await?;
    let head = Git::new(app, directory).maybe(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?;
    let mut arguments = vec!["commit-tree", "--no-gpg-sign", tree.as_str()];
    if let Some(head) = &head {
        arguments.extend(["-p", head]);
    }
    let message = format!("Snapshot after turn {turn} of run {}\n", app.spec.run);
    let commit = Git::new(app, directory).input(&message).text(&arguments).await?;
    Git::new(app, directory).run(&["update-ref", reference, &commit]).await?;
    Ok(commit)
}
