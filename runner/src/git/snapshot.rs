//! Snapshots: the working tree of every repository as a commit that is on no branch.

use std::{path::Path, time::Duration};

use ambient_wire::runner::custom;
use base64::Engine;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    check_object,
    command::Git,
    patch,
    repos::Known,
    working_tree::{ROOM, Room, WorkingTree},
};
use crate::{
    agent::event,
    app::App,
    error::{Error, Result},
};

/// Most bytes of a patch in the log.
const MAX_PATCH: usize = 128 * 1024;
const TREE_PATIENCE: Duration = Duration::from_secs(60);

/// Takes a snapshot of every repository; the events that tell of them. A failure is told too and fails nothing.
pub(crate) async fn of_all(app: &App, turn: u64, patience: Duration) -> Vec<Value> {
    let deadline = Instant::now() + patience;
    let mut events = Vec::new();
    for name in app.repos.names() {
        let Ok((directory, known)) = app.repos.directory(app, &name) else { continue };
        let reference = format!("refs/ambient/snapshots/{}-{turn}", app.spec.run);
        let snapshot = Snapshot { app, repo: &name, directory: &directory, reference: &reference, known: &known, turn };
        let taken = timeout_at(deadline, snapshot.take()).await;
        let taken = taken.unwrap_or_else(|_| Err(Error::Git(format!("it took longer than {} s", patience.as_secs()))));
        events.push(match taken {
            Ok(value) => event::custom(custom::SNAPSHOT, value),
            Err(error) => event::custom(custom::SNAPSHOT_FAILED, json!({ "repo": name, "reason": error.to_string() })),
        });
    }
    events
}

/// A snapshot to be taken.
struct Snapshot<'a> {
    app: &'a App,
    repo: &'a str,
    directory: &'a Path,
    reference: &'a str,
    known: &'a Known,
    turn: u64,
}

impl Snapshot<'_> {
    /// The commit, and the patch that leads to it: people who come when the runner is gone read it in the log.
    async fn take(&self) -> Result<Value> {
        let (app, directory) = (self.app, self.directory);
        let large = app.repos.large_files(self.repo);
        let room = Room { left: ROOM.saturating_sub(self.known.snapshot_bytes), known: &large };
        let tree = WorkingTree::keep(app, directory, TREE_PATIENCE, &room).await?;
        let object = tree.git().text(&["write-tree"]).await?;
        let head = ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"];
        let head = Git::agents(app, directory).maybe(&head).await?;
        let mut arguments = vec!["commit-tree", "--no-gpg-sign", object.as_str()];
        if let Some(head) = &head {
            arguments.extend(["-p", head]);
        }
        let message = format!("Snapshot after turn {} of run {}\n", self.turn, app.spec.run);
        let commit = Git::agents(app, directory).input(message).text(&arguments).await?;
        check_object(&commit)?;
        Git::agents(app, directory).run(&["update-ref", self.reference, &commit]).await?;
        app.repos.note_large_files(app, self.repo, tree.added, tree.large.clone())?;
        let base = self.known.base.as_deref();
        let others = (&["--patch-with-stat"][..], &[commit.as_str()][..]);
        let (patch, truncated) = patch::since(Git::agents(app, directory), base, others, MAX_PATCH).await?;
        let mut value = json!({
            "repo": self.repo, "commit": commit, "ref": self.reference, "base": base, "patch_truncated": truncated,
            "left_out": tree.left_out,
        });
        put_patch(&mut value, &patch);
        Ok(value)
    }
}

/// JSON holds text, and the log no NUL: what is neither goes as it is in a form of its own.
fn put_patch(value: &mut Value, patch: &[u8]) {
    let text = String::from_utf8_lossy(patch).replace('\0', "\u{fffd}");
    let exact = text.as_bytes() == patch;
    value["patch"] = text.into();
    value["patch_exact"] = exact.into();
    if !exact {
        value["patch_base64"] = base64::engine::general_purpose::STANDARD.encode(patch).into();
    }
}
