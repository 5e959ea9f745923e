//! Repository references: bookmarks of repositories that a project's people come back to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    column::{Column, ColumnType::Text},
    definition::{Definition, DefinitionSpec},
    entity::Refusal,
    name,
    patch::{merge, nullable},
};

/// A bookmark in a project.
pub type RepositoryRef = Definition<RepositoryRefSpec>;

/// Who hosts a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Plain git.
    Git,
}

impl Provider {
    /// Every name.
    pub const NAMES: &'static [&'static str] = &["github", "gitlab", "git"];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Git => "git",
        }
    }

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Github, Self::Gitlab, Self::Git].into_iter().find(|provider| provider.as_str() == name)
    }
}

/// What people write in a bookmark. Provider, owner and name are derived from the URL unless given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryRefSpec {
    /// `https://…` or `file:///…`.
    pub url: String,
    /// Branch; the remote's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Who hosts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Its owner at the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its name at the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_name: Option<String>,
    /// For selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Changes to a bookmark; absent = unchanged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "outer: absent; inner: null, which clears the field")]
pub struct RepositoryRefPatch {
    /// Its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Branch.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub branch: Option<Option<String>>,
    /// Who hosts it.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub provider: Option<Option<Provider>>,
    /// Its owner at the host.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub owner: Option<Option<String>>,
    /// Its name at the host.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub repo_name: Option<Option<String>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// Set (value) or remove (null).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, Option<String>>>,
}

impl RepositoryRefSpec {
    /// Who hosts it: as given, else derived from the URL's host.
    #[must_use]
    pub fn provider(&self) -> Provider {
        let by_host = || match self.host_and_path().0.split(':').next().unwrap_or_default() {
            host if host.eq_ignore_ascii_case("github.com") => Provider::Github,
            host if host.eq_ignore_ascii_case("gitlab.com") => Provider::Gitlab,
            _ => Provider::Git,
        };
        self.provider.unwrap_or_else(by_host)
    }

    /// Its owner: as given, else the segments of an `https://` URL before the last. What is percent-encoded is nobody's name.
    #[must_use]
    pub fn owner(&self) -> Option<String> {
        let of_url = || {
            let (host, path) = self.host_and_path();
            let steps: Vec<&str> = name::repo_path(path).split('/').filter(|step| !step.is_empty()).collect();
            let (_, owner) = steps.split_last()?;
            let owner = owner.join("/");
            (!host.is_empty() && !owner.is_empty() && !owner.contains('%')).then_some(owner)
        };
        self.owner.clone().or_else(of_url)
    }

    /// Its name: as given, else the URL's last segment.
    #[must_use]
    pub fn repo_name(&self) -> String {
        self.repo_name.clone().unwrap_or_else(|| name::repo_name_of_url(&self.url))
    }

    /// A `file://` URL has no host.
    fn host_and_path(&self) -> (&str, &str) {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split_once('/').unwrap_or((rest, ""))
    }
}

impl DefinitionSpec for RepositoryRefSpec {
    const KIND: &'static str = "repository_ref";
    const TITLE: &'static str = "RepositoryRef";
    const COLUMNS: &'static [Column<RepositoryRef>] = &[
        RepositoryRef::NAME,
        RepositoryRef::CREATED_BY,
        RepositoryRef::LABELS,
        Column::new("url", Text, |r: &RepositoryRef| json!(r.spec.url)).filtered("Exact URL.").ordered(),
        Column::new("branch", Text, |r: &RepositoryRef| json!(r.spec.branch)).filtered("Branch."),
        Column::new("provider", Text, |r: &RepositoryRef| json!(r.spec.provider()))
            .filtered("`github`, `gitlab` or `git`.")
            .one_of(Provider::NAMES)
            .ordered(),
        Column::new("owner", Text, |r: &RepositoryRef| json!(r.spec.owner()))
            .filtered("Its owner at the host.")
            .ordered(),
        Column::new("repo_name", Text, |r: &RepositoryRef| json!(r.spec.repo_name()))
            .filtered("Its name at the host.")
            .ordered(),
    ];
    type Patch = RepositoryRefPatch;

    fn validate(&self) -> Result<(), Refusal> {
        name::git_url("url", &self.url)?;
        self.branch.as_ref().map_or(Ok(()), |branch| name::branch("branch", branch))?;
        self.owner.as_ref().map_or(Ok(()), |owner| name::display("owner", owner, 200))?;
        self.repo_name.as_ref().map_or(Ok(()), |repo| name::repo_name("repo_name", repo))?;
        name::map("labels", &self.labels)?;
        name::map("annotations", &self.annotations)
    }

    fn patched(&self, patch: &RepositoryRefPatch) -> Self {
        let (mut spec, patch) = (self.clone(), patch.clone());
        spec.url = patch.url.unwrap_or(spec.url);
        spec.branch = patch.branch.unwrap_or(spec.branch);
        spec.provider = patch.provider.unwrap_or(spec.provider);
        spec.owner = patch.owner.unwrap_or(spec.owner);
        spec.repo_name = patch.repo_name.unwrap_or(spec.repo_name);
        merge(&mut spec.labels, patch.labels);
        merge(&mut spec.annotations, patch.annotations);
        spec
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_in_the_url() {
        for (url, provider, owner, repo_name) in [
            ("https://github.com/acme/site.git", "github", Some("acme"), "site"),
            ("https://gitlab.com/group/sub/tool/", "gitlab", Some("group/sub"), "tool"),
            ("https://git.example.org/tool", "git", None, "tool"),
            ("file:///srv/git/tool.git", "git", None, "tool"),
            ("https://GitHub.com/acme/site", "github", Some("acme"), "site"),
            ("https://GITLAB.COM:443/acme/site", "gitlab", Some("acme"), "site"),
            ("https://github.com.example.org/acme/site", "git", Some("acme"), "site"),
            ("https://github.com//acme///site//", "github", Some("acme"), "site"),
            ("https://github.com/site", "github", None, "site"),
            ("https://github.com//site", "github", None, "site"),
            ("https://git.example.org/acme/site/.git", "git", Some("acme"), "site"),
            ("https://git.example.org/acme/site.git/", "git", Some("acme"), "site"),
            ("https://git.example.org/.git", "git", None, "repo"),
            ("https://git.example.org/my%20team/a%20%20b.git", "git", None, "a-b"),
            ("https://git.example.org/acme/%20", "git", Some("acme"), "repo"),
            ("file:///srv/tool/.git", "git", None, "tool"),
        ] {
            let spec = RepositoryRefSpec { url: url.to_owned(), ..RepositoryRefSpec::default() };
            let found = (spec.provider().as_str(), spec.owner(), spec.repo_name());
            assert_eq!(found, (provider, owner.map(str::to_owned), repo_name.to_owned()), "{url}");
            name::repo_name("repo_name", &spec.repo_name()).unwrap();
        }
    }
}
