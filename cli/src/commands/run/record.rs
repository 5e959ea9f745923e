//! What a run's live events say about how it went.

use ambient_wire::{
    git::{GitPushed, LeftOut},
    live::Event,
    runner_event::{RepoSnapshot, RunnerEvent},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::commands::session::is_terminal;

/// A phase that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PhaseEntry {
    pub(super) phase: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) exit_code: Option<i64>,
    pub(super) at: DateTime<Utc>,
}

/// A snapshot of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) repo: String,
    pub(super) commit: String,
    /// Unified diff since the clone; empty when nothing changed.
    pub(super) patch: Vec<u8>,
    pub(super) patch_truncated: bool,
    pub(super) left_out: Vec<LeftOut>,
    /// The commit it is based on.
    pub(super) head: Option<String>,
    /// Processes of the agent that were still running.
    pub(super) running: u64,
}

/// A snapshot that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoSnapshot {
    pub(super) repo: String,
    pub(super) reason: String,
}

/// What an origin accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    pub(super) repo: String,
    pub(super) what: GitPushed,
}

/// How a run went.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) phases: Vec<PhaseEntry>,
    /// The latest for each repository.
    pub(super) snapshots: Vec<Snapshot>,
    /// Repositories whose latest snapshot could not be taken.
    pub(super) not_taken: Vec<NoSnapshot>,
    /// The latest for each repository.
    pub(super) pushes: Vec<Pushed>,
    /// Repositories whose latest push failed, or that were abandoned since, in words.
    pub(super) not_pushed: Vec<(String, String)>,
    pub(super) deleted: bool,
}

impl Record {
    pub(super) fn take(&mut self, event: &Event) {
        match event.event_type.as_str() {
            "session.phase" => self.phases.push(PhaseEntry {
                phase: text(&event.data, "phase"),
                reason: text(&event.data, "reason"),
                message: text(&event.data, "message"),
                exit_code: event.data["exit_code"].as_i64(),
                at: event.at,
            }),
            "session.deleted" => self.deleted = true,
            _ => self.recorded(RunnerEvent::read(&event.data)),
        }
    }

    fn recorded(&mut self, event: Option<RunnerEvent>) {
        match event {
            Some(RunnerEvent::RepoPushed { repo, pushed }) => {
                self.forget_push(&repo);
                self.pushes.push(Pushed { repo, what: pushed });
            }
            Some(RunnerEvent::RepoPushFailed { repo, url, branch, reason }) => {
                self.forget_push(&repo);
                self.not_pushed.push((repo, format!("not pushed to {branch} of {url}: {reason}")));
            }
            Some(RunnerEvent::RepoAbandoned { repo, abandoned }) => {
                self.forget_push(&repo);
                let kept =
                    abandoned.kept.map(|kept| format!(", kept as {}", kept.chars().take(12).collect::<String>()));
                self.not_pushed.push((repo, format!("abandoned{}", kept.unwrap_or_default())));
            }
            Some(RunnerEvent::RepoSnapshot { snapshot }) => {
                let snapshot = Snapshot::from(snapshot);
                self.not_taken.retain(|known| known.repo != snapshot.repo);
                self.snapshots.retain(|known| known.repo != snapshot.repo);
                self.snapshots.push(snapshot);
            }
            Some(RunnerEvent::RepoSnapshotFailed { repo, reason }) => {
                self.snapshots.retain(|known| known.repo != repo);
                self.not_taken.retain(|known| known.repo != repo);
                self.not_taken.push(NoSnapshot { repo, reason });
            }
            _ => {}
        }
    }

    fn forget_push(&mut self, repo: &str) {
        self.pushes.retain(|known| known.repo != repo);
        self.not_pushed.retain(|(known, _)| known != repo);
    }

    /// The current phase.
    pub(super) fn last(&self) -> Option<&PhaseEntry> {
        self.phases.last()
    }

    /// Whether the run is over and nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        self.deleted || self.last().is_some_and(|entry| is_terminal(&entry.phase))
    }
}

impl From<RepoSnapshot> for Snapshot {
    fn from(told: RepoSnapshot) -> Self {
        // Kept as it is: a patch that is not text has its own form.
        let exact = told.patch_base64.and_then(|text| STANDARD.decode(text).ok());
        Self {
            repo: told.repo,
            commit: told.commit,
            patch: exact.unwrap_or_else(|| told.patch.into_bytes()),
            patch_truncated: told.patch_truncated,
            left_out: told.left_out,
            head: told.head,
            running: told.running,
        }
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
