//! Rules for names, texts, labels and git URLs; every failure names the field.

use std::collections::BTreeMap;

use crate::entity::{Refusal, RefusalCode};

const RESERVED_PROJECTS: [&str; 1] = ["default"];
const RESERVED_PREFIXES: [&str; 2] = ["kube-", "openshift"];

/// Largest prompt or message, bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Most repositories of a session.
pub const MAX_REPOS: usize = 32;
/// Longest value of a label or annotation, bytes.
pub const MAX_VALUE_BYTES: usize = 4096;
/// Most labels, annotations or variables.
pub const MAX_ENTRIES: usize = 64;

/// A project's name: DNS-1123 label, 2-63, starting with a letter, not reserved.
///
/// # Errors
/// A refusal that names the field `name`.
pub fn project_name(name: &str) -> Result<(), Refusal> {
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let well_formed = (2..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(inner)
        && bytes[bytes.len() - 1] != b'-';
    if !well_formed {
        return Err(Refusal::invalid("name", "must be 2-63 characters matching ^[a-z][a-z0-9-]*[a-z0-9]$"));
    }
    if RESERVED_PROJECTS.contains(&name) || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p)) {
        return Err(Refusal::invalid("name", format!("'{name}' is reserved")));
    }
    Ok(())
}

/// A name for people: 1-`max` characters, no control characters.
///
/// # Errors
/// A refusal that names `field`.
pub fn display(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    let count = text.chars().count();
    if count == 0 || count > max {
        return Err(Refusal::invalid(field, format!("must have 1 to {max} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::invalid(field, "must not contain control characters"));
    }
    Ok(())
}

/// A long text: at most [`MAX_TEXT_BYTES`], no NUL (Postgres cannot store it).
///
/// # Errors
/// A refusal that names `field`.
pub fn text(field: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Refusal::invalid(field, format!("must have at most {MAX_TEXT_BYTES} bytes")));
    }
    if text.contains('\0') {
        return Err(Refusal::invalid(field, "must not contain NUL"));
    }
    Ok(())
}

/// One line: at most `max` bytes, no NUL.
///
/// # Errors
/// A refusal that names `field`.
pub fn line(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.contains(['\0', '\n', '\r']) {
        return Err(Refusal::invalid(field, "must be one line, without NUL"));
    }
    if text.len() > max { Err(Refusal::invalid(field, format!("at most {max} bytes"))) } else { Ok(()) }
}

/// Whether an address names a user or password.
#[must_use]
pub fn has_credentials(address: &str) -> bool {
    let authority = address.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    authority.is_some_and(|authority| authority.contains('@'))
}

/// Whether a key is allowed for labels or annotations: 1-253 characters of the Kubernetes alphabet. Stricter rules apply to new input.
#[must_use]
pub fn is_key(key: &str) -> bool {
    (1..=253).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

/// Whether this many are too many. A request is checked by itself when it arrives, so what is too many here became so together with
/// existing ones: the state does not allow it.
///
/// # Errors
/// A refusal that names `field`.
pub fn at_most(max: usize, field: &str, count: usize) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    let reason = format!("{field}: there can be at most {max}, including existing ones");
    Err(Refusal { code: RefusalCode::Conflict, field: Some(field.to_owned()), reason })
}

/// Labels or annotations: at most [`MAX_ENTRIES`], keys by [`is_key`], values at most [`MAX_VALUE_BYTES`].
///
/// # Errors
/// A refusal that names the key.
pub fn map(field: &str, map: &BTreeMap<String, String>) -> Result<(), Refusal> {
    at_most(MAX_ENTRIES, field, map.len())?;
    for (key, value) in map {
        if !is_key(key) {
            return Err(Refusal::invalid(format!("{field}.{}", key.escape_debug()), "is not a valid key"));
        }
        if value.len() > MAX_VALUE_BYTES || value.contains('\0') {
            let reason = format!("must have at most {MAX_VALUE_BYTES} bytes and no NUL");
            return Err(Refusal::invalid(format!("{field}.{key}"), reason));
        }
    }
    Ok(())
}

/// Names of environment variables: at most 64, each 1-128 of letters, digits and `_`, not starting with a digit.
///
/// # Errors
/// A refusal that names the variable.
pub fn environment<'a>(field: &str, names: impl ExactSizeIterator<Item = &'a String>) -> Result<(), Refusal> {
    at_most(MAX_ENTRIES, field, names.len())?;
    for name in names {
        let refuse = |why: &str| Err(Refusal::invalid(format!("{field}.{}", name.escape_debug()), why));
        let well_formed = (1..=128).contains(&name.len())
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !well_formed {
            return refuse("must be 1-128 letters, digits and '_', not starting with a digit");
        }
    }
    Ok(())
}

/// A repository's directory name: 1-100 of `[A-Za-z0-9._-]`, not starting with `.` or `-`.
///
/// # Errors
/// A refusal that names `field`.
pub fn repo_name(field: &str, name: &str) -> Result<(), Refusal> {
    let well_formed = (1..=100).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if well_formed {
        Ok(())
    } else {
        Err(Refusal::invalid(field, "must be 1-100 of letters, digits, '.', '_' and '-', not starting with '.' or '-'"))
    }
}

/// A git URL: `https://host/path` or `file:///path`; no credentials, options, query or control characters.
///
/// # Errors
/// A refusal that names `field`.
pub fn git_url(field: &str, url: &str) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::invalid(field, why));
    if url.len() > 2048 || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("must have at most 2048 characters, without spaces and control characters");
    }
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("file", rest)) if rest.starts_with('/') => return no_parent_steps(field, rest),
        _ => return refuse("must start with https:// or file:///"),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return refuse("must not contain credentials");
    }
    if host.is_empty() || host.starts_with('-') || path.is_empty() {
        return refuse("must name a host and a path");
    }
    if url.contains(['?', '#', '\\']) {
        return refuse("must not contain a query, a fragment or a backslash");
    }
    no_parent_steps(field, path)
}

fn no_parent_steps(field: &str, path: &str) -> Result<(), Refusal> {
    if path.split('/').any(|step| step == "..") {
        return Err(Refusal::invalid(field, "must not contain '..'"));
    }
    Ok(())
}

/// A branch: git's own rules for a ref name, as far as they matter for safety.
///
/// # Errors
/// A refusal that names `field`.
pub fn branch(field: &str, name: &str) -> Result<(), Refusal> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let well_formed = (1..=244).contains(&name.len())
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
        && !name.contains("..")
        && !name.contains("//")
        && !name.contains("/.")
        && !name.contains("@{")
        && !name.chars().any(bad);
    if well_formed { Ok(()) } else { Err(Refusal::invalid(field, "is not a valid branch name")) }
}

/// The path of a repository without what only says where its files are: slashes and `/.git` at the end.
pub(crate) fn repo_path(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.strip_suffix("/.git").unwrap_or(path).trim_end_matches('/')
}

/// Directory name of a repository that was given only a URL: the last part of the URL without `.git`, with a dash for whatever is
/// percent-encoded or not allowed in a name.
#[must_use]
pub fn repo_name_of_url(url: &str) -> String {
    let steps = url.split_once("://").map_or(url, |(_, steps)| steps);
    let path = steps.split_once('/').map_or("", |(_, path)| path);
    let last = repo_path(path).rsplit('/').next().unwrap_or_default();
    let mut name = String::new();
    let mut in_gap = false;
    let mut chars = last.trim_end_matches(".git").chars();
    while let Some(c) = chars.next() {
        let allowed = c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if allowed {
            name.push(c);
        } else if !in_gap {
            name.push('-');
        }
        in_gap = !allowed;
        if c == '%' {
            chars.nth(1);
        }
    }
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "repo".to_owned() } else { name.chars().take(100).collect() }
}

#[cfg(test)]
mod tests {
    use super::repo_name_of_url;

    #[test]
    fn a_repository_has_the_name_of_its_urls_last_step_or_a_plain_one() {
        for (url, name) in [
            ("https://example.org/team/docs.git", "docs"),
            ("file:///srv/a%20b/", "a-b"),
            ("file:///srv/c%C3%BC/", "c-"),
            ("file:///srv/site/.git/", "site"),
            ("file:////", "repo"),
            ("file:///", "repo"),
            ("https://example.org/.git", "repo"),
        ] {
            assert_eq!(repo_name_of_url(url), name, "{url}");
        }
    }
}
