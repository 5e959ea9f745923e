//! Snapshots: the working tree of every repository as a commit that is on no branch.

use std::{path::Path, time::Duration};

use ambient_wire::runner_event::{RepoPack, RepoPosition, RepoProblem, RepoSnapshot, RunnerEvent};
use base64::Engine;
use tokio::time::{Instant, timeout_at};

use super::{
    changes, check_object,
    command::Git,
    known::Known,
    packs, patch,
    repos::{self, Repos},
    working_tree::{Place, Room, WorkingTree},
};
use crate::{
    error::{Error, Result},
    process::Mark,
};

/// Most bytes of a patch in the log.
const MAX_PATCH: usize = 128 * 1024;
/// What is left for the rest once the time for packs is over.
const RESERVE: Duration = Duration::from_millis(500);
const TREE_PATIENCE: Duration = Duration::from_secs(60);

/// Snapshots of a turn.
#[derive(Default)]
pub(crate) struct Snapshots {
    /// The events that report them.
    pub(crate) events: Vec<RunnerEvent>,
    /// Repositories of which none could be taken.
    pub(crate) problems: Vec<RepoProblem>,
    /// What is checked out in the others.
    pub(crate) positions: Vec<RepoPosition>,
}

/// Takes a snapshot of every repository. A failure is reported too, and fails nothing.
pub(crate) async fn of_all(repos: &Repos, turn: u64, patience: Duration) -> Snapshots {
    let deadline = Instant::now() + patience;
    let mut all = Snapshots::default();
    for name in repos.names() {
        let (missing, reason) = match repos.directory(&name) {
            Ok((directory, known)) => {
                let (repo, directory, known) = (&*name, &*directory, &known);
                let taken =
                    timeout_at(deadline, Snapshot { repos, repo, directory, known, turn, deadline }.take()).await;
                match taken {
                    Ok(Ok((snapshot, position))) => {
                        all.positions.push(position);
                        all.events.push(RunnerEvent::RepoSnapshot { snapshot });
                        continue;
                    }
                    Ok(Err(error)) => (false, error.to_string()),
                    Err(_) => (false, format!("it took longer than {} s", patience.as_secs())),
                }
            }
            Err(error) => (true, error.to_string()),
        };
        all.events.push(RunnerEvent::RepoSnapshotFailed { repo: name.clone(), reason: reason.clone() });
        all.problems.push(RepoProblem { repo: name, missing, reason });
    }
    all
}

/// A snapshot to be taken.
struct Snapshot<'a> {
    repos: &'a Repos,
    repo: &'a str,
    directory: &'a Path,
    known: &'a Known,
    turn: u64,
    deadline: Instant,
}

impl Snapshot<'_> {
    /// The commit, and the patch that leads to it: people who come when the runner is gone read it in the log.
    async fn take(&self) -> Result<(RepoSnapshot, RepoPosition)> {
        let (repos, directory) = (self.repos, self.directory);
        let attempt = &*repos.attempt;
        let running = attempt.processes.count(Mark::Left(attempt.run_id(self.turn))).await;
        let large = repos.large_files(self.repo);
        let room = Room::of_snapshots(self.known.snapshot_bytes, &large);
        let place = Place::new(directory, self.known);
        let tree = WorkingTree::keep(attempt, place, TREE_PATIENCE, &room).await?;
        let object = tree.git().text(&["write-tree"]).await?;
        let mut arguments = vec!["commit-tree", "--no-gpg-sign", object.as_str()];
        if let Some(head) = &tree.head {
            arguments.extend(["-p", head]);
        }
        let message = format!("Snapshot after turn {} of run {}\n", self.turn, attempt.spec.run);
        let commit = tree.git().input(message).text(&arguments).await?;
        check_object(&commit)?;
        // The reference is the agent's, which can be in its way. The snapshot does not depend on it.
        let turn = format!("{}-{}", attempt.spec.run, self.turn);
        let reference = format!("refs/ambient/snapshots/{turn}");
        let kept = Git::repository(attempt, directory).run(&["update-ref", &reference, &commit]).await;
        let reference = match kept {
            Ok(_) => reference,
            Err(error) => {
                tracing::warn!(repo = self.repo, %error, "a snapshot has no reference");
                String::new()
            }
        };
        repos.note_added(self.repo, tree.added, tree.large.clone())?;
        let changes = changes::of_turn(&tree, self.known, &turn, &commit).await;
        let base = self.known.base.as_deref();
        let others = (&["--patch-with-stat"][..], &[commit.as_str()][..]);
        // Side by side: people wait for the end of the turn.
        let shown = async {
            let patch = patch::since(tree.git(), base, others, MAX_PATCH).await?;
            Ok::<_, Error>((patch, repos::position(attempt, directory).await?))
        };
        let (shown, packed) = tokio::join!(shown, self.pack(&object, &commit));
        let ((patch, truncated), (branch, _)) = shown?;
        let (text, exact) = as_text(&patch);
        let (packs, not_stored) = packed.map_or_else(|reason| (Vec::new(), Some(reason)), |packs| (packs, None));
        // Last: what a turn that gets no further has changed is told with the next one.
        repos.amend(self.repo, |known| known.left(&turn, commit.clone(), tree.head.clone()))?;
        let snapshot = RepoSnapshot {
            repo: self.repo.to_owned(),
            commit,
            head: tree.head.clone(),
            reference,
            base: base.map(str::to_owned),
            patch: text,
            patch_truncated: truncated,
            patch_exact: exact,
            patch_base64: (!exact).then(|| base64::engine::general_purpose::STANDARD.encode(&patch)),
            left_out: tree.left_out.clone(),
            running: running as u64,
            changes,
            tree: Some(object),
            packs,
            not_stored,
        };
        Ok((snapshot, RepoPosition { repo: self.repo.to_owned(), branch, head: tree.head.clone() }))
    }

    /// Its packs, or in words why there are none. Without them there still is a snapshot.
    async fn pack(&self, tree: &str, commit: &str) -> std::result::Result<Vec<RepoPack>, String> {
        let end = self.deadline.checked_sub(RESERVE).unwrap_or(self.deadline);
        let packed = timeout_at(end, packs::pack(self.repos, self.repo, self.directory, (tree, commit))).await;
        packed.map_err(|_| "there was not enough time to make its pack".to_owned())?.map_err(|error| error.to_string())
    }
}

/// The text, and whether it is exact: JSON contains text, and the log no NUL.
fn as_text(patch: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(patch).replace('\0', "\u{fffd}");
    let exact = text.as_bytes() == patch;
    (text, exact)
}
