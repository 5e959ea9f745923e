//! What is recorded about a repository.

use std::collections::BTreeMap;

use ambient_runner_protocol::RepoSpec;
use ambient_wire::{
    git::Submodules,
    repo::{PushTo, RepoOutput},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::submodules::Module;

/// What is known about a repository, as of when it was cloned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) url: String,
    pub(crate) branch: Option<String>,
    /// Branch of the origin that is pushed to automatically, as earlier releases recorded it: read as an `output`.
    #[serde(default, skip_serializing)]
    pub(super) push_to: Option<String>,
    /// What becomes of it.
    #[serde(default)]
    pub(crate) role: Role,
    pub(crate) base: Option<String>,
    pub(crate) cloned_at: DateTime<Utc>,
    /// Remarks, in words.
    #[serde(default)]
    pub(crate) notices: Vec<String>,
    /// How much large files have added to it in snapshots.
    #[serde(default)]
    pub(crate) snapshot_bytes: u64,
    /// Which of its submodules were fetched.
    #[serde(default)]
    pub(crate) submodules: Submodules,
    /// Submodules that exist.
    #[serde(default)]
    pub(crate) modules: Vec<Module>,
    /// Latest commits pushed to branches of the origin.
    #[serde(default)]
    pub(crate) pushed: BTreeMap<String, String>,
    /// The snapshot of the last turn.
    #[serde(default)]
    pub(crate) last: Option<Last>,
}

/// What becomes of a repository: of all that is recorded, this alone may change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Where its commits go.
    pub(crate) output: RepoOutput,
    /// Whether they are pushed at the end of every successful turn.
    pub(crate) auto_push: bool,
    /// Whether the agent works in it.
    pub(crate) main: bool,
}

impl Role {
    pub(crate) fn of(spec: &RepoSpec) -> Self {
        Self { output: spec.output.clone(), auto_push: spec.auto_push, main: spec.main }
    }
}

impl Known {
    /// A repository that was just cloned, in which nothing has happened yet.
    pub(crate) fn cloned(url: String, spec: &RepoSpec, base: Option<String>) -> Self {
        Self {
            url,
            branch: spec.branch.clone(),
            push_to: None,
            role: Role::of(spec),
            base,
            cloned_at: Utc::now(),
            notices: Vec::new(),
            snapshot_bytes: 0,
            submodules: spec.submodules,
            modules: Vec::new(),
            pushed: BTreeMap::new(),
            last: None,
        }
    }

    /// What this or an earlier release has recorded.
    ///
    /// # Errors
    /// If it is something else.
    pub(crate) fn read(record: &[u8]) -> serde_json::Result<Self> {
        let mut known: Self = serde_json::from_slice(record)?;
        if let Some(branch) = known.push_to.take() {
            known.role = Role { output: RepoOutput::same(branch), auto_push: true, main: false };
        }
        Ok(known)
    }

    /// Where the turn before this one has left it.
    pub(crate) fn before(&self, turn: &str) -> Option<&Last> {
        match &self.last {
            Some(last) if last.turn.as_deref() == Some(turn) => last.before.as_deref(),
            last => last.as_ref(),
        }
    }

    /// This turn has left it at a snapshot.
    pub(crate) fn left(&mut self, turn: &str, commit: String, head: Option<String>) {
        let before = self.before(turn).map(|before| Box::new(Last { before: None, ..before.clone() }));
        self.last = Some(Last { commit, head, turn: Some(turn.to_owned()), before });
    }

    /// URL of the repository that is pushed to. None: it is not pushed.
    pub(crate) fn destination(&self) -> Option<&str> {
        match self.role.output.push_to {
            PushTo::Same => Some(&self.url),
            PushTo::Fork => self.role.output.target_repo.as_deref(),
            PushTo::None => None,
        }
    }
}

/// Where a turn has left a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Last {
    /// The snapshot.
    pub(crate) commit: String,
    /// What was checked out.
    pub(crate) head: Option<String>,
    /// The turn, `{run}-{turn}`; earlier releases did not say.
    #[serde(default)]
    pub(crate) turn: Option<String>,
    /// Where the turn before had left it: one that is closed again, because the runner died before its end was recorded, counts from there.
    #[serde(default)]
    pub(crate) before: Option<Box<Last>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_closed_again_counts_from_where_it_began() {
        let spec = RepoSpec {
            url: String::new(),
            branch: None,
            output: RepoOutput::default(),
            auto_push: false,
            main: false,
            submodules: Submodules::default(),
        };
        let mut known = Known::cloned("file:///r".to_owned(), &spec, None);
        let before = |known: &Known, turn| known.before(turn).map(|last| last.commit.clone());
        known.left("1-1", "a".to_owned(), None);
        assert_eq!((before(&known, "1-1"), before(&known, "1-2").as_deref()), (None, Some("a")));
        known.left("1-2", "b".to_owned(), None);
        known.left("1-2", "c".to_owned(), None);
        assert_eq!((before(&known, "1-2").as_deref(), before(&known, "1-3").as_deref()), (Some("a"), Some("c")));
        let known = Known::read(&serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!(before(&known, "1-2").as_deref(), Some("a"));
    }

    #[test]
    fn what_an_earlier_release_recorded_is_pushed_to_the_same_branch() {
        let record = br#"{"url": "file:///r", "branch": null, "push_to": "out", "base": null, "cloned_at": "2026-01-02T03:04:05Z"}"#;
        let known = Known::read(record).unwrap();
        assert_eq!(known.role, Role { output: RepoOutput::same("out".to_owned()), auto_push: true, main: false });
        let again = Known::read(&serde_json::to_vec(&known).unwrap()).unwrap();
        assert_eq!((&again.role, again.destination()), (&known.role, Some("file:///r")));
        let elsewhere = |push_to, target_repo: Option<&str>| {
            let output = RepoOutput { push_to, target_repo: target_repo.map(str::to_owned), target_branch: None };
            let known = Known { role: Role { output, ..Role::default() }, ..known.clone() };
            known.destination().map(str::to_owned)
        };
        assert_eq!(elsewhere(PushTo::Fork, Some("file:///f")).as_deref(), Some("file:///f"));
        assert_eq!((elsewhere(PushTo::Fork, None), elsewhere(PushTo::None, None)), (None, None));
    }
}
