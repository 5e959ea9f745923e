//! Checks on what people enter, made when it arrives: names, labels, branches and URLs, by the rules of [`ambient_wire::name`] and
//! [`ambient_wire::git_url`].
//!
//! Here and not in the domain: the domain's rules are applied again when operations are replayed, and what was stored under an
//! older rule has to stay readable.

use std::{borrow::Cow, collections::BTreeMap};

use ambient_domain::{
    name::{MAX_ENTRIES, MAX_REPOS, is_key},
    permission::MAX_RULES,
    session,
};
use ambient_wire::{
    file_name, git_url,
    model::{self, ModelBudget, ModelRules, ModelSource},
    name,
    network::{self, Network},
    permission::Permissions,
    playbook::Playbook,
    redact,
    repo::Repo,
};
use unicode_normalization::UnicodeNormalization as _;

use crate::error::{ApiError, ApiResult, Number};

/// A name in its composed form (NFC): an é of one character and an é of two are the same name.
pub(crate) fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// Longest part of a path, bytes.
const MAX_PART: usize = 255;

/// A path for a file in a workspace, in its shortest form. A runner refuses what this does, but for git's own folders.
pub(crate) fn workspace_path(field: &str, text: &str) -> ApiResult<String> {
    let bad = |reason: &str| Err(ApiError::invalid(field, reason));
    let path = file_name::in_workspace(text).map_err(|reason| ApiError::invalid(field, reason))?;
    let mut parts = path.split(|byte| *byte == b'/');
    if path.is_empty() {
        bad("must name something in the workspace")
    } else if parts.clone().any(|part| part.len() > MAX_PART) {
        bad("must have names of at most 255 bytes")
    } else if parts.any(|part| part.eq_ignore_ascii_case(b".git")) {
        // Whatever the case: git takes none of these into a commit.
        bad("must not lead into git's own folder")
    } else {
        Ok(file_name::escape(&path))
    }
}

/// A name of at most `max` characters.
pub(crate) fn name(field: &str, text: &str, max: usize) -> ApiResult<()> {
    named(field, name::check(text, max))
}

/// A name that may be absent.
pub(crate) fn optional_name(field: &str, text: Option<&str>, max: usize) -> ApiResult<()> {
    text.map_or(Ok(()), |text| name(field, text, max))
}

/// Labels: they are shown, and used for selection.
pub(crate) fn labels<V: Value>(labels: &BTreeMap<String, V>) -> ApiResult<()> {
    map("labels", labels, name::check_value)
}

/// Annotations: for tools, so any text is allowed, but no credentials.
pub(crate) fn annotations<V: Value>(annotations: &BTreeMap<String, V>) -> ApiResult<()> {
    map("annotations", annotations, without_credentials)
}

/// A text for people that is kept forever.
pub(crate) fn text(field: &str, text: &str) -> ApiResult<()> {
    named(field, without_credentials(text))
}

/// Entries of a map.
pub(crate) fn entries(field: &str, count: usize) -> ApiResult<()> {
    at_most(MAX_ENTRIES, field, count)
}

/// Repositories; each fault has its position.
pub(crate) fn repos(repos: &[Repo]) -> ApiResult<()> {
    at_most(MAX_REPOS, "repos", repos.len())?;
    repos.iter().enumerate().try_for_each(|(i, repo)| in_repo(&format!("repos[{i}]."), repo))
}

/// That no two repositories are pushed to the same branch. `added`: the last one comes alone, as the body.
pub(crate) fn destinations(repos: &[session::Repo], added: bool) -> ApiResult<()> {
    let Some((earlier, later)) = session::same_destination(repos) else { return Ok(()) };
    let prefix = if added { String::new() } else { format!("repos[{later}].") };
    let field = format!("{prefix}output.target_branch");
    let other = repos.get(earlier).map(|repo| repo.name.as_str()).unwrap_or_default();
    let problem = format!("repository '{other}' is pushed to the same branch of the same repository");
    Err(ApiError::new(Number::Conflict, format!("{field}: {problem}")).at(field, problem))
}

/// A playbook, its fields named after `prefix`; the domain checks the rest.
pub(crate) fn playbook(prefix: &str, given: &Playbook) -> ApiResult<()> {
    optional_url(&format!("{prefix}git_url"), Some(&given.git_url))?;
    given.branch.as_ref().map_or(Ok(()), |name| branch(&format!("{prefix}branch"), name))?;
    let Playbook { git_url, branch, path } = given.clone();
    session::Playbook { git_url, branch, path }.validate(prefix).map_err(ApiError::from)
}

/// A repository by itself.
pub(crate) fn repo(given: &Repo) -> ApiResult<()> {
    in_repo("", given)
}

/// What an agent may reach of the network, if that is said.
pub(crate) fn network(field: &str, given: Option<&Network>) -> ApiResult<()> {
    let named = |problem: network::Problem| ApiError::invalid(format!("{field}.{}", problem.field), problem.reason);
    given.map_or(Ok(()), |given| given.check().map_err(named))
}

/// Permissions; the domain checks the rest.
pub(crate) fn permissions(field: &str, given: &Permissions) -> ApiResult<()> {
    at_most(MAX_RULES, &format!("{field}.rules"), given.rules.len())?;
    given.rules.iter().enumerate().try_for_each(|(i, rule)| {
        text(&format!("{field}.rules[{i}].command"), rule.command.as_deref().unwrap_or_default())?;
        text(&format!("{field}.rules[{i}].path"), rule.path.as_deref().unwrap_or_default())
    })
}

/// What is said about models; the domain checks the rest.
pub(crate) fn models(field: &str, given: &ModelRules) -> ApiResult<()> {
    let ModelRules { allowed, limits, endpoints } = given;
    at_most(model::MAX_ALLOWED, &format!("{field}.allowed"), allowed.len())?;
    for (i, one) in allowed.iter().enumerate() {
        let entry = format!("{field}.allowed[{i}]");
        if one.is_empty() || one.len() > model::MAX_MODEL || one.contains(char::is_control) {
            let problem = format!("must have 1 to {} bytes and no control characters", model::MAX_MODEL);
            return Err(ApiError::invalid(entry, problem));
        }
        text(&entry, one)?;
    }
    model_limits(&format!("{field}.limits"), limits.tokens, limits.cost_micros)?;
    for (provider, source) in endpoints.iter() {
        model_source(&format!("{field}.endpoints.{provider}"), source)?;
    }
    Ok(())
}

/// A project's budget, if there is one.
pub(crate) fn model_budget(field: &str, given: Option<&ModelBudget>) -> ApiResult<()> {
    given.map_or(Ok(()), |budget| model_limits(field, budget.tokens, budget.cost_micros))
}

fn model_limits(field: &str, tokens: Option<u64>, cost_micros: Option<u64>) -> ApiResult<()> {
    for (name, limit) in [("tokens", tokens), ("cost_micros", cost_micros)] {
        if limit.is_some_and(|limit| limit > model::MAX_LIMIT) {
            return Err(ApiError::invalid(format!("{field}.{name}"), format!("must be at most {}", model::MAX_LIMIT)));
        }
    }
    Ok(())
}

fn model_source(field: &str, source: &ModelSource) -> ApiResult<()> {
    if let Some(Err(problem)) = source.base_url.as_deref().map(model::check_base_url) {
        return Err(ApiError::invalid(format!("{field}.base_url"), problem));
    }
    if let Some(variable) = &source.key_variable {
        ambient_domain::name::environment(&format!("{field}.key_variable"), [variable].into_iter())?;
    }
    Ok(())
}

/// A branch.
pub(crate) fn branch(field: &str, branch: &str) -> ApiResult<()> {
    ambient_domain::name::branch(field, branch)?;
    named(field, name::check_branch(branch))
}

/// A repository's URL, which may be absent.
pub(crate) fn optional_url(field: &str, url: Option<&str>) -> ApiResult<()> {
    url.map_or(Ok(()), |url| git_url::check(url).map_err(|problem| ApiError::invalid(field, problem.to_string())))
}

fn in_repo(prefix: &str, repo: &Repo) -> ApiResult<()> {
    optional_url(&format!("{prefix}url"), Some(&repo.url))?;
    for (field, given) in [("branch", &repo.branch), ("output.target_branch", &repo.output.target_branch)] {
        if let Some(given) = given {
            branch(&format!("{prefix}{field}"), given)?;
        }
    }
    optional_url(&format!("{prefix}output.target_repo"), repo.output.target_repo.as_deref())
}

/// A label's or annotation's value; none in a patch that removes it.
pub(crate) trait Value {
    fn given(&self) -> Option<&str>;
}

impl Value for String {
    fn given(&self) -> Option<&str> {
        Some(self)
    }
}

impl Value for Option<String> {
    fn given(&self) -> Option<&str> {
        self.as_deref()
    }
}

/// A key that is only being removed may be one that is no longer allowed, but not one that never was.
fn map<V: Value>(
    field: &str,
    map: &BTreeMap<String, V>,
    check: impl Fn(&str) -> Result<(), name::Problem>,
) -> ApiResult<()> {
    entries(field, map.len())?;
    for (key, value) in map {
        let entry = format!("{field}.{}", key.escape_debug());
        match value.given() {
            Some(value) => {
                named(&entry, name::check_key(key))?;
                named(&entry, check(value))?;
            }
            None if is_key(key) => {}
            None => named(&entry, name::check_key(key))?,
        }
    }
    Ok(())
}

fn at_most(max: usize, field: &str, count: usize) -> ApiResult<()> {
    if count <= max { Ok(()) } else { Err(ApiError::invalid(field, format!("must have at most {max} entries"))) }
}

fn named(field: &str, checked: Result<(), name::Problem>) -> ApiResult<()> {
    checked.map_err(|problem| ApiError::invalid(field, problem))
}

fn without_credentials(text: &str) -> Result<(), name::Problem> {
    match redact::text(text) {
        Cow::Borrowed(_) => Ok(()),
        Cow::Owned(_) => Err("must not contain a URL with credentials: it is kept forever".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_may_have_a_key_that_was_allowed_once() {
        let patch =
            |key: &str, value: Option<&str>| labels(&BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]));
        for old in ["-a", "a/", "..", "_", &"-".repeat(253)] {
            assert!(patch(old, None).is_ok() && patch(old, Some("x")).is_err(), "{old}");
        }
        for never in ["", "a b", "a\0", "ä", &"k".repeat(254)] {
            assert!(patch(never, None).is_err(), "{never:?}");
        }
    }
}
