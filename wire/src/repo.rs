//! Repositories of a session: where they come from, where their commits go, and what has become of those.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use crate::{api::one_object, git::Submodules};

/// A wanted repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, from = "GivenRepo")]
pub struct Repo {
    /// Directory in the workspace; the last part of the URL when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `https://…` or `file:///…`.
    pub url: String,
    /// Branch; the remote's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Where its commits go.
    #[serde(default)]
    pub output: RepoOutput,
    /// Whether they are pushed there at the end of every successful turn, before the end of the turn is recorded (`ambient run --push`).
    #[serde(default)]
    pub auto_push: bool,
    /// Which submodules are fetched when it is cloned; none when absent.
    #[serde(default, skip_serializing_if = "Submodules::is_none")]
    pub submodules: Submodules,
}

/// What callers send: the same, and the former name, so that they are told what to write in its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenRepo {
    #[serde(default)]
    name: Option<String>,
    url: String,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default, deserialize_with = "one_object")]
    output: RepoOutput,
    #[serde(default)]
    auto_push: bool,
    #[serde(default)]
    submodules: Submodules,
    #[serde(default, rename = "push_to", deserialize_with = "former")]
    _push_to: (),
}

fn former<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    let reason = "is not a field of a repository any more; write \
                  \"output\": {\"push_to\": \"same\", \"target_branch\": \"BRANCH\"}, \"auto_push\": true";
    Err(de::Error::custom(reason))
}

impl From<GivenRepo> for Repo {
    fn from(given: GivenRepo) -> Self {
        let GivenRepo { name, url, branch, output, auto_push, submodules, _push_to: () } = given;
        Self { name, url, branch, output, auto_push, submodules }
    }
}

/// Where a repository's commits go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RepoOutput {
    /// Which repository they are pushed to.
    #[serde(default)]
    pub push_to: PushTo,
    /// For `fork`: that repository, which exists already; a URL like `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_repo: Option<String>,
    /// Branch there, never forced; `ambient/{session id}` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_branch: Option<String>,
}

impl RepoOutput {
    /// To a branch of the repository that was cloned.
    #[must_use]
    pub fn same(branch: String) -> Self {
        Self { target_branch: Some(branch), ..Self::default() }
    }
}

/// Which repository commits are pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushTo {
    /// The one that was cloned.
    #[default]
    Same,
    /// A fork of it.
    Fork,
    /// None: it is not pushed, by hand neither.
    None,
}

/// What has become of a repository in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepoOutputStatus {
    /// Its directory in the workspace.
    pub repo: String,
    /// How its last push ended, or that what was done in it was given up since.
    pub status: RepoOutcome,
    /// Repository that was pushed to; null if it was abandoned.
    pub url: Option<String>,
    /// Branch that was pushed to; of an abandoned one the branch that was checked out, if any.
    pub branch: Option<String>,
    /// Commit that the branch is at. Null if a push failed; of an abandoned one the commit that everything given up is kept as, if there was
    /// anything.
    pub commit: Option<String>,
    /// Why a push failed, in words.
    pub message: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// What has become of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepoOutcome {
    /// It was pushed, by a turn or by hand.
    Pushed,
    /// It was put back to the commit that was cloned.
    Abandoned,
    /// A turn could not push it.
    Failed,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_former_field_is_answered_with_what_to_write() {
        let error = serde_json::from_value::<Repo>(json!({"url": "file:///r", "push_to": "out"})).unwrap_err();
        assert!(error.to_string().contains("\"target_branch\""), "{error}");
        let repo = Repo { url: "file:///r".to_owned(), output: RepoOutput::same("out".to_owned()), ..Repo::default() };
        let written = serde_json::to_value(&repo).unwrap();
        let shown =
            json!({"url": "file:///r", "output": {"push_to": "same", "target_branch": "out"}, "auto_push": false});
        assert_eq!(written, shown);
        assert_eq!(serde_json::from_value::<Repo>(written).unwrap(), repo);
    }
}
