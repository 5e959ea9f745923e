//! What a commit says about its submodules: read by our git from the mirror, never from the working tree, and checked like what a
//! session asks for. Whoever can write to the origin has written it.

use std::collections::BTreeMap;

use ambient_wire::git_url;

use super::super::{check_object, command::Git};
use crate::error::{Error, Result};

/// Largest `.gitmodules`, bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Longest name or path, bytes.
const MAX_PATH: usize = 500;

/// A submodule of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declared {
    /// Folder in the repository.
    pub(super) path: String,
    /// Commit that belongs there.
    pub(super) commit: String,
    /// Its name and URL, or why it has none that can be accepted.
    pub(super) source: std::result::Result<Source, String>,
}

/// Where a submodule comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Name in `.gitmodules`, and folder below `.git/modules`.
    pub(super) name: String,
    /// Checked; absolute.
    pub(super) url: String,
}

/// The submodules of a commit whose repository is at `parent`.
///
/// # Errors
/// Git's; a `.gitmodules` that cannot be read.
pub(super) async fn read(git: &Git<'_>, commit: &str, parent: &str) -> Result<Vec<Declared>> {
    let links = links(git, commit).await?;
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let entries = entries(git, commit).await?;
    let declared = |(path, commit): (String, String)| {
        let source = source(&entries, &path, parent);
        Declared { path, commit, source }
    };
    Ok(links.into_iter().map(declared).collect())
}

/// Commits of submodules by path.
///
/// # Errors
/// Git's.
pub(super) async fn links(git: &Git<'_>, commit: &str) -> Result<BTreeMap<String, String>> {
    let list = git.clone().only(|entry| entry.starts_with(b"160000 "));
    let list = list.run(&["ls-tree", "-r", "-z", "--full-tree", commit]).await?;
    let mut links = BTreeMap::new();
    for entry in list.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let entry = String::from_utf8_lossy(entry);
        let wrong = || Error::Git("git ls-tree gave unexpected output".to_owned());
        let (about, path) = entry.split_once('\t').ok_or_else(wrong)?;
        let commit = about.rsplit(' ').next().ok_or_else(wrong)?;
        links.insert(path.to_owned(), check_object(commit)?.to_owned());
    }
    Ok(links)
}

/// Sections of `.gitmodules`.
#[derive(Default)]
struct Entry {
    path: Option<String>,
    url: Option<String>,
}

async fn entries(git: &Git<'_>, commit: &str) -> Result<BTreeMap<String, Entry>> {
    let listed = git.clone().text(&["ls-tree", "-l", "--full-tree", commit, "--", ".gitmodules"]).await?;
    let mut fields = listed.split_ascii_whitespace();
    let (mode, size) = (fields.next().unwrap_or_default(), fields.nth(2).and_then(|size| size.parse().ok()));
    if mode.is_empty() {
        return Ok(BTreeMap::new());
    }
    if !mode.starts_with("100") || size.is_none_or(|size: u64| size > MAX_FILE) {
        return Err(Error::Git(format!(".gitmodules is not a file of at most {MAX_FILE} bytes")));
    }
    let blob = format!("--blob={commit}:.gitmodules");
    let text = git.clone().run(&["config", &blob, "--no-includes", "--null", "--list"]).await?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// `key\nvalue`, each ended by NUL. The last one counts, as in git.
fn parse(text: &str) -> BTreeMap<String, Entry> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for record in text.split('\0') {
        let Some((key, value)) = record.split_once('\n') else { continue };
        let Some((name, what)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else { continue };
        let entry = entries.entry(name.to_owned()).or_default();
        match what {
            "path" => entry.path = Some(value.to_owned()),
            "url" => entry.url = Some(value.to_owned()),
            _ => {}
        }
    }
    entries
}

fn source(entries: &BTreeMap<String, Entry>, path: &str, parent: &str) -> std::result::Result<Source, String> {
    check_place(path).map_err(|why| format!("its path {why}"))?;
    let mut named = entries.iter().filter(|(_, entry)| entry.path.as_deref() == Some(path));
    let (name, entry) = named.next().ok_or(".gitmodules does not name it")?;
    if named.next().is_some() {
        return Err(".gitmodules names it twice".to_owned());
    }
    check_place(name).map_err(|why| format!("its name {why}"))?;
    // One repository's folder within another's would write into that one.
    if entries.keys().any(|other| name.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/'))) {
        return Err("its name lies within another's".to_owned());
    }
    let url = entry.url.as_deref().ok_or(".gitmodules has no URL for it")?;
    Ok(Source { name: name.clone(), url: resolve(url, parent)? })
}

/// A path within a repository, or a name that becomes a path within `.git/modules`.
fn check_place(path: &str) -> std::result::Result<(), &'static str> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err("has 0 or more than 500 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\' || c == '\u{fffd}') {
        return Err("has characters that a path should not have");
    }
    let is_way_out = |step: &str| {
        let step = step.trim_end_matches([' ', '.']);
        step.is_empty()
            || step.starts_with('-')
            || step.eq_ignore_ascii_case(".git")
            || step.eq_ignore_ascii_case("git~1")
    };
    if path.split('/').any(is_way_out) {
        return Err("leads out of the repository or into git's own files");
    }
    Ok(())
}

/// A URL as given in `.gitmodules` of the repository at `parent`. One that starts with `./` or `../` is relative to that, as
/// in git.
fn resolve(url: &str, parent: &str) -> std::result::Result<String, String> {
    let refused = |why: &dyn std::fmt::Display| format!("its address {why}");
    if !url.starts_with("./") && !url.starts_with("../") {
        git_url::check(url).map_err(|why| refused(&why))?;
        if url.starts_with("file:") && !parent.starts_with("file:") {
            return Err("its address is a file:// one, in a repository that comes from elsewhere".to_owned());
        }
        return Ok(url.to_owned());
    }
    let scheme = parent.find("://").map_or(0, |at| at + 3);
    let root = parent[scheme..].find('/').map_or(parent.len(), |at| scheme + at);
    let (mut base, mut rest) = (parent.trim_end_matches('/'), url);
    loop {
        if let Some(further) = rest.strip_prefix("../") {
            let at = base.rfind('/').filter(|at| *at > root || (*at == root && base.len() > root + 1));
            base = &base[..at.ok_or("its address leads out of the host of the repository")?];
            rest = further;
        } else if let Some(further) = rest.strip_prefix("./") {
            rest = further;
        } else {
            break;
        }
    }
    let url = format!("{base}/{}", rest.trim_end_matches('/'));
    git_url::check(&url).map_err(|why| refused(&why))?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::{check_place, parse, resolve, source};

    #[test]
    fn relative_addresses_are_what_they_are_for_git_and_stay_on_their_host() {
        for (url, parent, whole) in [
            ("../b.git", "https://h/x/a.git", "https://h/x/b.git"),
            ("../b.git", "https://h/x/a.git/", "https://h/x/b.git"),
            ("./b", "https://h/x/a", "https://h/x/a/b"),
            ("../../y/b", "https://h/x/a", "https://h/y/b"),
            ("../b/", "https://h/a", "https://h/b"),
            ("../b", "file:///srv/a", "file:///srv/b"),
            ("../b", "file:///a", "file:///b"),
            ("https://other/b", "https://h/a", "https://other/b"),
            ("file:///b", "file:///a", "file:///b"),
        ] {
            assert_eq!(resolve(url, parent).as_deref(), Ok(whole), "{url} {parent}");
        }
        for (url, parent) in [
            ("../../b", "https://h/a"),
            ("../../../evil/b", "https://h/a"),
            ("../../../b", "file:///srv/a"),
            ("file:///b", "https://h/a"),
            ("../x/../../b", "https://h/y/a"),
            ("../@b:c", "https://h/y/a"),
            ("--upload-pack=touch x", "https://h/a"),
            ("-u", "file:///a"),
            ("ext::sh -c id", "https://h/a"),
            ("ssh://h/a", "https://h/a"),
            ("git@h:a", "https://h/a"),
            ("http://h/a", "https://h/a"),
            ("https://u:p@h/a", "https://h/a"),
            ("/etc", "file:///a"),
            ("", "https://h/a"),
        ] {
            assert!(resolve(url, parent).is_err(), "{url} {parent}");
        }
    }

    #[test]
    fn no_path_or_name_leads_out() {
        for good in ["a", "third_party/lib x", "a.b/c", "..a", ".github"] {
            assert!(check_place(good).is_ok(), "{good}");
        }
        let long = "x".repeat(501);
        for bad in [
            "",
            "/a",
            "a//b",
            "../x",
            "a/..",
            "a/./b",
            ".git",
            ".git/hooks",
            "a/.GIT/x",
            ".git ",
            "-a",
            "a/-b",
            "a\\b",
            "a\nb",
            &long,
        ] {
            assert!(check_place(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_section_counts_when_it_is_whole_and_alone() {
        let entry = |name: &str, path: &str, url: &str| {
            format!("submodule.{name}.path\n{path}\0submodule.{name}.url\n{url}\0submodule.{name}.update\n!touch x\0")
        };
        let all = [
            entry("a.b", "one", "../one"),
            entry("in/objects", "inner", "../inner"),
            entry("in", "outer", "../outer"),
            entry("x", "twice", "../x"),
            entry("y", "twice", "../y"),
            entry("../z", "z", "../z"),
            "submodule.bare.path\nbare\0submodule.noval\0core.x\ny\0".to_owned(),
        ];
        let entries = parse(&all.concat());
        let found = |path: &str| source(&entries, path, "https://h/p/r");
        let one = found("one").unwrap();
        assert_eq!((one.name.as_str(), one.url.as_str()), ("a.b", "https://h/p/one"));
        assert!(found("outer").is_ok());
        for bad in ["inner", "twice", "z", "bare", "other"] {
            assert!(found(bad).is_err(), "{bad}");
        }
    }
}
