//! Repositories of a session: where they come from, and where their commits go.

use serde::{Deserialize, Serialize};

use crate::{
    entity::{Refusal, RefusalCode},
    name,
};

/// A repository in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredRepo")]
pub struct Repo {
    /// Directory in the workspace; unique in the session.
    pub name: String,
    /// `https://…` or `file:///…`.
    pub url: String,
    /// Branch; the remote's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Where its commits go.
    #[serde(skip_serializing_if = "RepoOutput::is_default")]
    pub output: RepoOutput,
    /// Whether they are pushed there at the end of every successful turn.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_push: bool,
    /// Which submodules are fetched when it is cloned.
    #[serde(skip_serializing_if = "Submodules::is_none")]
    pub submodules: Submodules,
}

/// A repository as this and earlier releases have stored it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRepo {
    name: String,
    url: String,
    #[serde(default)]
    branch: Option<String>,
    /// Branch of the origin that was pushed to automatically: all that schema versions 1 and 2 knew of an output.
    #[serde(default)]
    push_to: Option<String>,
    #[serde(default)]
    output: RepoOutput,
    #[serde(default)]
    auto_push: bool,
    #[serde(default)]
    submodules: Submodules,
}

impl TryFrom<StoredRepo> for Repo {
    type Error = &'static str;

    fn try_from(stored: StoredRepo) -> Result<Self, Self::Error> {
        let StoredRepo { name, url, branch, push_to, output, auto_push, submodules } = stored;
        let (output, auto_push) = match push_to {
            None => (output, auto_push),
            Some(branch) if output.is_default() && !auto_push => (RepoOutput::same(branch), true),
            Some(_) => return Err("push_to and output exclude each other"),
        };
        Ok(Self { name, url, branch, output, auto_push, submodules })
    }
}

/// Which submodules of a repository are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Submodules {
    /// None.
    #[default]
    None,
    /// The recorded commit of each, and none of theirs.
    Shallow,
    /// All of them, with history, and theirs in turn.
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

/// Where a repository's commits go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoOutput {
    /// Which repository they are pushed to.
    #[serde(default)]
    pub push_to: PushTo,
    /// That repository, if it is another: an existing fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_repo: Option<String>,
    /// Branch there; [`default_branch`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_branch: Option<String>,
}

/// Which repository commits are pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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

impl RepoOutput {
    /// To a branch of the repository that was cloned.
    #[must_use]
    pub fn same(branch: String) -> Self {
        Self { target_branch: Some(branch), ..Self::default() }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Branch that a session's commits are pushed to if none is named. By the id, not the name: names change and repeat, and two sessions of
/// the same name would refuse each other's pushes.
#[must_use]
pub fn default_branch(session_id: &str) -> String {
    format!("ambient/{session_id}")
}

/// The first two repositories that are pushed automatically to the same branch of the same repository, by their places. The second push
/// could only be refused.
#[must_use]
pub fn same_destination(repos: &[Repo]) -> Option<(usize, usize)> {
    let destinations: Vec<_> = repos.iter().map(|repo| repo.auto_push.then(|| destination(repo))).collect();
    destinations.iter().enumerate().find_map(|(later, destination)| {
        let destination = destination.as_ref()?;
        let earlier = destinations[..later].iter().position(|other| other.as_ref() == Some(destination))?;
        Some((earlier, later))
    })
}

fn destination(repo: &Repo) -> (String, Option<&str>) {
    let url = repo.output.target_repo.as_deref().unwrap_or(&repo.url);
    (comparable(url), repo.output.target_branch.as_deref())
}

/// A URL without what makes no difference: the case of its host, the usual port, slashes and `.git` at its end.
fn comparable(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.to_ascii_lowercase();
    let path = name::repo_path(path);
    let path = path.strip_suffix(".git").unwrap_or(path);
    format!("{scheme}://{}/{path}", host.strip_suffix(":443").unwrap_or(&host))
}

pub(super) fn validate(repos: &[Repo]) -> Result<(), Refusal> {
    name::at_most(name::MAX_REPOS, "repos", repos.len())?;
    for (i, repo) in repos.iter().enumerate() {
        name::repo_name(&format!("repos[{i}].name"), &repo.name)?;
        name::git_url(&format!("repos[{i}].url"), &repo.url)?;
        if let Some(branch) = &repo.branch {
            name::branch(&format!("repos[{i}].branch"), branch)?;
        }
        validate_output(&format!("repos[{i}]."), repo)?;
        if repos[..i].iter().any(|other| other.name == repo.name) {
            let reason = format!("repos[{i}].name: '{}' is used twice", repo.name);
            return Err(Refusal { code: RefusalCode::Conflict, field: Some(format!("repos[{i}].name")), reason });
        }
    }
    Ok(())
}

/// Checks where a repository's commits go.
///
/// # Errors
/// A refusal that names the field, after `prefix`.
pub fn validate_output(prefix: &str, repo: &Repo) -> Result<(), Refusal> {
    let RepoOutput { push_to, target_repo, target_branch } = &repo.output;
    let refuse = |field: &str, why: &str| Err(Refusal::invalid(format!("{prefix}{field}"), why));
    if let Some(url) = target_repo {
        name::git_url(&format!("{prefix}output.target_repo"), url)?;
    }
    if let Some(branch) = target_branch {
        name::branch(&format!("{prefix}output.target_branch"), branch)?;
    }
    match (push_to, target_repo) {
        (PushTo::Fork, None) => {
            refuse("output.target_repo", "must name an existing fork when push_to is 'fork': forks are not created")
        }
        (PushTo::Same | PushTo::None, Some(_)) => refuse("output.target_repo", "is only for push_to 'fork'"),
        (PushTo::None, None) if target_branch.is_some() => {
            refuse("output.target_branch", "must be absent when push_to is 'none'")
        }
        (PushTo::None, None) if repo.auto_push => {
            refuse("auto_push", "must be false when output.push_to is 'none': nothing is pushed")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn repo(fields: &Value) -> Repo {
        let mut repo = json!({"name": "r", "url": "https://h/o/r.git"});
        for (name, value) in fields.as_object().into_iter().flatten() {
            repo[name] = value.clone();
        }
        serde_json::from_value(repo).unwrap()
    }

    #[test]
    fn a_branch_that_earlier_releases_pushed_to_is_an_output() {
        let earlier = repo(&json!({"push_to": "out"}));
        assert_eq!(earlier, repo(&json!({"output": {"target_branch": "out"}, "auto_push": true})));
        let stored = serde_json::to_value(&earlier).unwrap();
        let now = json!({"name": "r", "url": "https://h/o/r.git", "auto_push": true,
                         "output": {"push_to": "same", "target_branch": "out"}});
        assert_eq!(stored, now);
        assert_eq!(repo(&stored), earlier);
        assert_eq!(serde_json::to_value(repo(&json!({}))).unwrap(), json!({"name": "r", "url": "https://h/o/r.git"}));
        for odd in [json!({"push_to": "a", "auto_push": true}), json!({"pushto": "a"})] {
            let mut stored = json!({"name": "r", "url": "https://h/o/r.git"});
            stored.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
            assert!(serde_json::from_value::<Repo>(stored).is_err(), "{odd}");
        }
    }

    #[test]
    fn an_output_that_leads_nowhere_is_refused_by_its_field() {
        let refused = |fields: Value| {
            let refusal = validate(&[repo(&json!({})), Repo { name: "s".to_owned(), ..repo(&fields) }]).unwrap_err();
            refusal.field.unwrap()
        };
        let credentials = "https://bot:s3cret@h/o/r.git";
        for (fields, field) in [
            (json!({"output": {"push_to": "fork"}}), "repos[1].output.target_repo"),
            (json!({"output": {"push_to": "fork", "target_repo": credentials}}), "repos[1].output.target_repo"),
            (json!({"output": {"push_to": "fork", "target_repo": "ssh://h/r"}}), "repos[1].output.target_repo"),
            (json!({"output": {"target_repo": "https://h/f/r"}}), "repos[1].output.target_repo"),
            (json!({"output": {"target_branch": "-f"}}), "repos[1].output.target_branch"),
            (json!({"output": {"push_to": "none", "target_branch": "x"}}), "repos[1].output.target_branch"),
            (json!({"output": {"push_to": "none"}, "auto_push": true}), "repos[1].auto_push"),
        ] {
            assert_eq!(refused(fields.clone()), field, "{fields}");
        }
        let fork = json!({"output": {"push_to": "fork", "target_repo": "https://h/f/r"}, "auto_push": true});
        assert_eq!(validate(&[repo(&fork)]), Ok(()));
    }

    #[test]
    fn two_repositories_that_are_pushed_to_the_same_place_are_found_however_it_is_written() {
        let pushed = |url: &str, branch: Option<&str>| {
            repo(&json!({"url": url, "output": {"target_branch": branch}, "auto_push": true}))
        };
        let fork = repo(&json!({"auto_push": true,
            "output": {"push_to": "fork", "target_repo": "https://H:443/o/x/", "target_branch": "out"}}));
        let same = [pushed("https://h/o/x.git", Some("out")), repo(&json!({})), fork.clone()];
        assert_eq!(same_destination(&same), Some((0, 2)));
        assert_eq!(same_destination(&[pushed("file:///a.git", None), pushed("file:///a/.git", None)]), Some((0, 1)));
        let others =
            [fork, pushed("https://h/o/x", Some("b")), pushed("https://h/o/x", None), pushed("https://h/O/x", None)];
        assert_eq!(same_destination(&others), None);
        let by_hand = |url: &str| Repo { auto_push: false, ..pushed(url, Some("out")) };
        assert_eq!(same_destination(&[by_hand("file:///a"), by_hand("file:///a")]), None);
    }
}
