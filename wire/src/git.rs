//! Repositories of a session, and what is asked of their git.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is fetched of a repository's submodules when it is cloned. Their addresses stand in the repository, so they pass the checks
/// that a session's own do, and a `file://` one is followed from a `file://` origin only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Submodules {
    /// Nothing: they are empty folders.
    #[default]
    None,
    /// The recorded commit of each, without history, and nothing of the submodules of submodules.
    Shallow,
    /// Each with its history, and theirs in turn.
    Recursive,
}

impl Submodules {
    /// Whether nothing is fetched.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// What a diff, snapshot, commit or status does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// Path in the repository; empty for what goes beyond a limit of the list itself.
    pub path: String,
    /// Why.
    pub reason: LeftOutReason,
    /// What a submodule holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submodule: Option<InSubmodule>,
}

impl LeftOut {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        let reason = match &self.submodule {
            Some(submodule) => format!("is a submodule that {}", submodule.words()),
            None => self.reason.words().to_owned(),
        };
        if self.path.is_empty() { reason } else { format!("{} {reason}", self.path) }
    }
}

/// What a submodule holds that its repository does not point to. By the word of the agent's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InSubmodule {
    /// Files that differ from its commit; null when they could not be told.
    pub uncommitted: Option<u64>,
    /// Commits up to the one checked out that its origin is not known to have; null when they could not be told.
    pub unpublished: Option<u64>,
}

impl InSubmodule {
    /// In words, after its name.
    #[must_use]
    pub fn words(&self) -> String {
        let files = match self.uncommitted {
            Some(0) => None,
            Some(1) => Some("has 1 changed file that is not committed in it".to_owned()),
            Some(many) => Some(format!("has {many} changed files that are not committed in it")),
            None => Some("cannot be looked at, so whether it has changes of its own is not known".to_owned()),
        };
        let commits = match self.unpublished {
            Some(0) => None,
            Some(1) => Some("has 1 commit that its origin does not have".to_owned()),
            Some(many) => Some(format!("has {many} commits that its origin does not have")),
            None if self.uncommitted.is_none() => None,
            None => Some("may have commits that its origin does not have: they cannot be told".to_owned()),
        };
        files.into_iter().chain(commits).collect::<Vec<_>>().join(", and ")
    }
}

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutReason {
    /// The file or folder cannot be read.
    Unreadable,
    /// It is neither file nor folder nor link.
    Special,
    /// It is a repository of its own: only its commit is shown, if it has one.
    Repository,
    /// A submodule that holds what the repository does not point to, or may hold it. Submodules without are not named.
    Submodule,
    /// A changed file that is larger than one in a snapshot may be.
    TooLarge,
    /// A changed large file for which the session's snapshots have no room left.
    NoRoom,
    /// A file or folder whose name git refuses, such as `.GIT`.
    Name,
    /// A changed file that the repository has a filter for. The filter is not run: the file is shown as it lies in the folder.
    Filter,
    /// A file or folder that a sparse checkout leaves away: it is shown as the commit has it.
    NotCheckedOut,
    /// There is more than is named.
    More,
}

impl LeftOutReason {
    /// In words, after the name of what is left out.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Unreadable => "cannot be read",
            Self::Special => "is neither a file nor a folder nor a link",
            Self::Repository => "is a repository of its own",
            Self::Submodule => "is a submodule with work of its own",
            Self::TooLarge => "is too large",
            Self::NoRoom => "is large, and there is no room left for large files",
            Self::Name => "has a name that git refuses",
            Self::Filter => "is shown as it is in the folder: a filter, which is not run here, may keep it otherwise",
            Self::NotCheckedOut => "is not checked out, so a change of it would not be seen",
            Self::More => "there is more than is named",
        }
    }
}

/// `GET /git/diff`: the body is the diff, these are headers.
pub mod diff_header {
    /// `true` when the diff is longer than what is given: it does not apply.
    pub const TRUNCATED: &str = "x-diff-truncated";
    /// JSON list of [`LeftOut`](super::LeftOut), percent-encoded; the first 50, and that there are more.
    pub const LEFT_OUT: &str = "x-diff-left-out";
}

/// `GET /git/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitStatus {
    /// Repository.
    pub repo: String,
    /// Checked-out branch.
    pub branch: Option<String>,
    /// Commit checked out.
    pub head: Option<String>,
    /// Commits since the clone.
    pub ahead: u64,
    /// Changed files, at most 10,000.
    pub files: Vec<GitFile>,
    /// True when there are more.
    #[serde(default)]
    pub truncated: bool,
    /// What cannot be looked at.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// A changed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitFile {
    /// Path in the repository.
    pub path: String,
    /// Two letters as `git status --porcelain` prints them.
    pub status: String,
    /// Path before it was renamed (status ` R`). Among more than 400 new or deleted files, and of files of 1 MiB and more, a rename
    /// is a deletion and a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_path: Option<String>,
}

/// `POST /git/commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitCommit {
    /// Repository.
    pub repo: String,
    /// Message.
    pub message: String,
}

/// Answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitCommitted {
    /// New commit; none when there was nothing to commit.
    pub commit: Option<String>,
    /// What is not in it.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// `POST /git/push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitPush {
    /// Repository.
    pub repo: String,
    /// Branch of the origin; never forced.
    pub branch: String,
}

/// Answer to a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitPushed {
    /// The origin.
    pub url: String,
    /// Branch of the origin.
    pub branch: String,
    /// Commit it points to now.
    pub commit: String,
    /// Commits that came with this push: those that the branch had not; for a new branch, that the origin had not.
    pub commits: u64,
    /// Whether the branch is a new one.
    pub created: bool,
    /// Files of the working tree that differ from the commit, so that their changes are not in the push; null when they could not
    /// be told.
    pub uncommitted: Option<u64>,
    /// What is to be known of it, in words: it points to commits of submodules that their origins do not have, submodules have work of
    /// their own, other branches have commits that are not pushed, there is a stash, a merge is in progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

impl GitPushed {
    /// What came of it, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { url, branch, commit, commits, created, .. } = self;
        let short: String = commit.chars().take(7).collect();
        match (commits, created) {
            (0, false) => format!("nothing new to push: branch {branch} of {url} is already at {short}"),
            (0, true) => format!("no new commit to push: new branch {branch} of {url} is at {short}"),
            (1, _) => format!("pushed 1 commit to branch {branch} of {url}: {short}"),
            (many, _) => format!("pushed {many} commits to branch {branch} of {url}: {short}"),
        }
    }

    /// What else is to be known, in words, a line each.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.lacks().into_iter().chain(self.notices.clone())
    }

    /// What of the working tree the push does not hold.
    fn lacks(&self) -> Option<String> {
        match self.uncommitted {
            Some(0) => None,
            Some(1) => Some("1 changed file is not committed, so it is not in the push".to_owned()),
            Some(many) => Some(format!("{many} changed files are not committed, so they are not in the push")),
            None => Some(
                "whether there are changes that are not committed, so not in the push, could not be told".to_owned(),
            ),
        }
    }
}
