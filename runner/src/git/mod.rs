//! Git, confined, with limits on time and output.
//!
//! A repository in the workspace belongs to the agent: its configuration, hooks, attributes, links, alternates and objects. Git executes
//! much of what they say, so every git that reads them has exactly the agent's rights, and its answers are claims.
//! A bare repository of the runner's own, the [`mirror`], talks to the origin, using a git that sees only that and the origin.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `environment`, `scratch`, `special`, `status`: what git is told and reports; folders of our own
//! * `command`, `directory`: one git process; directories that are opened before anything is said about them
//! * `patch`, `platform`, `sparse`: diffs, what belongs to the platform, files that are not checked out
//! * `stored`: snapshots read where no session is
//! * `origin`: what a repository is cloned from
//! * `mirror`: the runner's own repositories
//! * `vault`: what is known to be whole, out of the agent's reach
//! * `elsewhere`, `large_files`: what a push does not contain; Git LFS
//! * `submodules`: fetched and cloned
//! * `known`: what is recorded about a repository
//! * `working_tree`: as git sees it
//! * `changes`: what a turn has changed
//! * `renames`, `repos`, `playbooks`: renames; the session's repositories, and its playbook
//! * `look`, `packs`: what bounds a look at a repository; checked packs of snapshots
//! * `push`, `snapshot`: commits to an origin; a working tree kept as a commit
//! * `merge`: commits of the origin and the workspace brought together
//! * `abandon`, `branches`, `history`, `operations`, `pull`: what the routes ask for

pub(crate) mod abandon;
pub(crate) mod branches;
mod changes;
pub(crate) mod command;
mod directory;
mod elsewhere;
mod environment;
pub(crate) mod history;
mod known;
mod large_files;
mod look;
mod merge;
mod mirror;
pub(crate) mod operations;
mod origin;
pub(crate) mod packs;
mod patch;
mod platform;
pub(crate) mod playbooks;
pub(crate) mod pull;
pub(crate) mod push;
mod renames;
pub(crate) mod repos;
mod scratch;
pub(crate) mod snapshot;
mod sparse;
mod special;
mod status;
pub(crate) mod stored;
mod submodules;
mod vault;
mod working_tree;

use crate::error::{Error, Result};

/// Fetches objects and nothing else: no tags, no record of the fetch.
const FETCH: [&str; 5] = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow"];

/// Reports the commit that is checked out, even if its object is missing: that is not the same as none.
const HEAD: [&str; 4] = ["rev-parse", "--verify", "--quiet", "HEAD"];

/// Faults of objects found in real histories. Agents add such histories to others', so they are no reason to refuse; what could
/// harm whoever checks the commit out is.
const HISTORIC: &str = "--strict=badDate=warn,badDateOverflow=warn,badEmail=warn,badFilemode=warn,badName=warn,badTimezone=warn,\
    emptyName=warn,missingEmail=warn,missingNameBeforeEmail=warn,missingSpaceBeforeDate=warn,missingSpaceBeforeEmail=warn,\
    missingTaggerEntry=warn,multipleAuthors=warn,nulInCommit=warn,zeroPaddedDate=warn,zeroPaddedFilemode=warn";

/// An empty bare repository, whose history ends at `base`; its object format is that of the id `like`.
///
/// # Errors
/// A system error.
fn make_bare(place: &std::path::Path, base: Option<&str>, like: &str) -> std::io::Result<()> {
    for folder in ["objects/pack", "refs"] {
        std::fs::create_dir_all(place.join(folder))?;
    }
    let format = match like.len() {
        64 => "\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n",
        _ => "\trepositoryformatversion = 0\n\tbare = true\n",
    };
    std::fs::write(place.join("config"), format!("[core]\n{format}"))?;
    if let Some(base) = base {
        std::fs::write(place.join("shallow"), format!("{base}\n"))?;
    }
    std::fs::write(place.join("HEAD"), "ref: refs/heads/none\n")
}

/// As a single shell word, for commands in git's configuration.
fn quoted_for_shell(path: &std::path::Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// Longest repository name, bytes.
const MAX_NAME: usize = 100;

/// Checks the name of a repository's directory.
///
/// # Errors
/// Bad input that names `field`.
pub(crate) fn check_name<'a>(field: &str, name: &'a str) -> Result<&'a str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with(['.', '-']) || !name.chars().all(legal) {
        let rule = format!("1 to {MAX_NAME} letters, digits, '.', '_', '-'; not beginning with '.' or '-'");
        return Err(Error::bad(field, rule));
    }
    Ok(name)
}

/// Checks a branch name by git's own rule (`git check-ref-format`), which only concerns text.
///
/// # Errors
/// Bad input that names `field`.
pub(crate) fn check_branch<'a>(field: &str, name: &'a str) -> Result<&'a str> {
    let bad = |reason: &str| Err(Error::bad(field, reason));
    let forbidden = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    if name.is_empty() || name.len() > 255 {
        return bad("1 to 255 bytes");
    }
    if name.starts_with(['-', '+']) || name == "@" || name == "HEAD" {
        return bad("is not a branch name");
    }
    if name.contains(forbidden) || name.contains("..") || name.contains("@{") || name.ends_with('.') {
        return bad("contains what git forbids in a branch name");
    }
    if name.split('/').any(|part| part.is_empty() || part.starts_with('.') || part.ends_with(".lock")) {
        return bad("has a part that is empty, begins with '.' or ends with '.lock'");
    }
    Ok(name)
}

/// Checks an object's full name: what git prints in the workspace is the agent's claim.
///
/// # Errors
/// Git's.
pub(crate) fn check_object(name: &str) -> Result<&str> {
    if matches!(name.len(), 40 | 64) && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(name);
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::Git(format!("git gave '{shown}' for the name of an object")))
}

#[cfg(test)]
mod tests {
    use super::{check_branch, check_name};

    #[test]
    fn branch_names_agree_with_git() {
        let names = [
            "main",
            "a/b",
            "a//b",
            "/a",
            "a/",
            ".a",
            "a/.b",
            "a.",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[b",
            "a\\b",
            "a@{b",
            "a.lock",
            "a/b.lock/c",
            "-a",
            "ä",
            "a\u{7f}",
            "a\nb",
            "x@y",
            "",
        ];
        for name in names {
            let git = std::process::Command::new("git").args(["check-ref-format", "--branch", name]).output().unwrap();
            assert_eq!(check_branch("branch", name).is_ok(), git.status.success(), "{name:?}");
        }
        for name in ["+main", "@", "HEAD"] {
            assert!(check_branch("branch", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_with_a_path_in_them_are_refused() {
        for name in ["", ".", "..", ".git", "-x", "a/b", "a\0", "a b", "ä"] {
            assert!(check_name("name", name).is_err(), "{name:?}");
        }
        assert!(check_name("name", "my-repo_1.x").is_ok());
    }
}
