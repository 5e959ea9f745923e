//! A session's repositories, and requests about their git.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which submodules of a repository are fetched when it is cloned. Their URLs are in the repository, so they pass the same checks
/// as a session's own, and a `file://` one is followed only from a `file://` origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Submodules {
    /// None: they are empty folders.
    #[default]
    None,
    /// The recorded commit of each, without history, and no submodules of submodules.
    Shallow,
    /// Each with its history, and their submodules in turn.
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
    /// Path in the repository; empty for what exceeds the list's own limit.
    pub path: String,
    /// Why.
    pub reason: LeftOutReason,
    /// What a submodule contains.
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

/// What a submodule contains that its repository does not point to. As claimed by the agent's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InSubmodule {
    /// Number of files that differ from its commit; null if unknown.
    pub uncommitted: Option<u64>,
    /// Number of commits up to the one checked out that its origin is not known to have; null if unknown.
    pub unpublished: Option<u64>,
}

impl InSubmodule {
    /// In words, to follow its name.
    #[must_use]
    pub fn words(&self) -> String {
        let files = match self.uncommitted {
            Some(0) => None,
            Some(1) => Some("has 1 changed file that is not committed in it".to_owned()),
            Some(many) => Some(format!("has {many} changed files that are not committed in it")),
            None => Some("cannot be inspected, so it is not known whether it has changes of its own".to_owned()),
        };
        let commits = match self.unpublished {
            Some(0) => None,
            Some(1) => Some("has 1 commit that its origin does not have".to_owned()),
            Some(many) => Some(format!("has {many} commits that its origin does not have")),
            None if self.uncommitted.is_none() => None,
            None => Some("may have commits that its origin does not have: this could not be determined".to_owned()),
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
    /// It is neither a file nor a folder nor a link.
    Special,
    /// It is a repository of its own: only its commit is shown, if it has one.
    Repository,
    /// A submodule with content that the repository does not point to, or that may have some. Others are not named.
    Submodule,
    /// A changed file that is too large for a snapshot.
    TooLarge,
    /// A changed large file for which the session's snapshots have no space left.
    NoRoom,
    /// A file or folder whose name git refuses, such as `.GIT`.
    Name,
    /// A changed file with a filter of the repository's own. The filter is not run: the file is shown as it is in the folder.
    Filter,
    /// A file or folder that a sparse checkout omits: it is shown as it is in the commit.
    NotCheckedOut,
    /// There are more than are named.
    More,
}

impl LeftOutReason {
    /// In words, to follow the name of what is left out.
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
            Self::Filter => {
                "is shown as it is in the folder: a filter, which is not run here, may store it differently"
            }
            Self::NotCheckedOut => "is not checked out, so a change of it would not be seen",
            Self::More => "there is more than is named",
        }
    }
}

/// Which changes a diff shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GitChanges {
    /// From the commit that was cloned, or another one, to the files as they are.
    #[default]
    All,
    /// From the checked-out commit to the agent's index: what its `git add` has taken.
    Staged,
    /// From the agent's index to the files as they are, new ones included.
    Unstaged,
}

/// Which difference.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GitDiffQuery {
    /// Repository; may be absent if there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Commit to compare with; when absent, the one that was cloned. Only with all changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Only this file or folder, relative to the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// All changes when absent; or only those that are in the agent's index, or not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub changes: Option<GitChanges>,
}

/// `GET /git/diff`: the body is the diff, these are its headers.
pub mod diff_header {
    /// `true` if the diff is truncated: it does not apply.
    pub const TRUNCATED: &str = "x-diff-truncated";
    /// JSON list of [`LeftOut`](super::LeftOut), percent-encoded; the first 50, and whether there are more.
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
    /// Number of commits since the clone.
    pub ahead: u64,
    /// Changed files, at most 10,000.
    pub files: Vec<GitFile>,
    /// True if there are more.
    #[serde(default)]
    pub truncated: bool,
    /// What could not be inspected.
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
    /// Path before it was renamed (status ` R`). Among more than 400 new or deleted files, and for files of 1 MiB and more, a rename
    /// is shown as a deletion and a new file.
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

/// Response to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitCommitted {
    /// New commit; none if there was nothing to commit.
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
    /// Branch of the origin, or of the fork that the repository's output names; never forced.
    pub branch: String,
}

/// Response to a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitPushed {
    /// The repository that was pushed to: the origin, or a fork of it.
    pub url: String,
    /// Branch there.
    pub branch: String,
    /// Commit it now points to.
    pub commit: String,
    /// Number of commits that came with this push: those that the branch did not have; for a new branch, that the origin did not have.
    pub commits: u64,
    /// Whether the branch is new.
    pub created: bool,
    /// Number of files in the working tree that differ from the commit, so that their changes are not in the push; null if
    /// unknown.
    pub uncommitted: Option<u64>,
    /// Remarks, in words: it points to commits of submodules that their origins do not have, submodules have uncommitted or unpushed
    /// work, other branches have unpushed commits, there is a stash, a merge is in progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

impl GitPushed {
    /// The result, in words.
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

    /// Further remarks, in words, one per line.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.lacks().into_iter().chain(self.notices.clone())
    }

    /// What the push does not contain of the working tree.
    fn lacks(&self) -> Option<String> {
        match self.uncommitted {
            Some(0) => None,
            Some(1) => Some("1 changed file is not committed, so it is not in the push".to_owned()),
            Some(many) => Some(format!("{many} changed files are not committed, so they are not in the push")),
            None => Some(
                "could not determine whether there are uncommitted changes, which would not be in the push".to_owned(),
            ),
        }
    }
}
