//! Where a repository comes from: `https://…` or `file:///…` and nothing else.

use std::path::Path;

use ambient_wire::git_url;
use rustix::fs::FileType;
use url::Url;

use super::{command::Git, directory::Directory, environment, platform::Platform};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    rights::Pinned,
};

/// Most repositories that an origin may borrow objects from, directly or indirectly.
const MAX_BORROWED: usize = 32;
/// What git would follow out of the repository.
const NO_LINKS: [&str; 11] = [
    "objects",
    "objects/info",
    "objects/pack",
    "refs",
    "refs/heads",
    "refs/tags",
    "packed-refs",
    "config",
    "info",
    "logs",
    "shallow",
];

/// A checked URL. For a `file://` origin the directories are held open as long as this lives.
#[derive(Debug)]
pub(crate) struct Origin {
    /// As given.
    pub(crate) text: String,
    /// As passed to git.
    pub(crate) url: String,
    local: Option<Local>,
}

/// Directories of a `file://` origin.
#[derive(Debug)]
struct Local {
    /// Where its `HEAD` is: a linked worktree has its own.
    git_dir: Directory,
    /// Where its objects and branches are, if elsewhere.
    common: Option<Directory>,
    /// Objects it borrows.
    borrowed: Vec<Directory>,
}

/// Checks a URL, and opens what it names.
///
/// # Errors
/// Bad input that names `url`.
pub(crate) fn open(attempt: &Attempt, text: &str) -> Result<Origin> {
    git_url::check(text).map_err(|problem| bad(&problem.to_string()))?;
    let url = Url::parse(text).map_err(|e| bad(&format!("is not a URL: {e}")))?;
    if url.scheme() != "file" {
        return Ok(Origin { text: text.to_owned(), url: url.to_string(), local: None });
    }
    let path = url.to_file_path().map_err(|()| bad("is not a path on this host"))?;
    let local = open_local(&Platform::of(attempt)?, &path)?;
    let url = Url::from_file_path(&local.git_dir.path).map_err(|()| bad("is not a path on this host"))?;
    Ok(Origin { text: text.to_owned(), url: url.to_string(), local: Some(local) })
}

/// What a git says about a file or folder of a `file://` origin that the session's user has no right to, as a reason in our own words.
/// Nothing if it says something else.
pub(super) fn denied(origin: &Origin, stderr: &str) -> Option<String> {
    const WORDS: [&str; 4] = [
        "Permission denied",
        "insufficient permission",
        "Read-only file system",
        "unable to create temporary object directory",
    ];
    let folder = origin.folder()?;
    if !WORDS.iter().any(|words| stderr.contains(words)) {
        return None;
    }
    // In git's wording for files that it cannot create.
    let named = stderr.split_once("Unable to create '").and_then(|(_, rest)| rest.split_once('\''));
    let place =
        named.map_or_else(|| folder.join("objects").display().to_string(), |(place, _)| place.replace("/./", "/"));
    let user = rustix::process::geteuid().as_raw();
    Some(format!("the session's user (uid {user}) may not write there: {place}"))
}

/// What is wrong with a folder that cannot be opened.
fn unopened(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        let user = rustix::process::geteuid().as_raw();
        let who = format!("cannot be read: the session's user (uid {user})");
        return bad(&match first_closed(path) {
            Some(closed) => {
                let closed = closed.display();
                format!("{who} may not enter {closed}, which is above it; `chmod o+x {closed}` would let it")
            }
            None => format!("{who} has no right to it: {}", path.display()),
        });
    }
    bad(&format!("{}: {error}", path.display()))
}

/// The first folder above it that cannot be entered.
fn first_closed(path: &Path) -> Option<&Path> {
    let is_closed =
        |folder: &&Path| folder.join(".").metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied);
    // From the innermost outwards: below a closed folder everything seems closed.
    path.ancestors().skip(1).filter(is_closed).last()
}

fn bad(reason: &str) -> Error {
    Error::bad("url", reason)
}

fn open_local(platform: &Platform, path: &Path) -> Result<Local> {
    let failed = |e: std::io::Error| unopened(path, &e);
    let named = Directory::open(path).map_err(failed)?;
    platform.refuse(&named)?;
    let git_dir = git_dir(named).map_err(failed)?;
    platform.refuse(&git_dir)?;
    let common = match git_dir.read("commondir").map_err(failed)? {
        Some(line) => Some(git_dir.open_in(Path::new(line.trim_end_matches('\n'))).map_err(failed)?),
        None => None,
    };
    let holder = common.as_ref().unwrap_or(&git_dir);
    platform.refuse(holder)?;
    if holder.kind("objects").map_err(failed)?.is_none() || git_dir.kind("HEAD").map_err(failed)?.is_none() {
        return Err(bad(&format!("is not a git repository: {}", path.display())));
    }
    for (directory, part) in [(&git_dir, "HEAD"), (holder, "objects"), (holder, "refs")] {
        directory.check_readable(part).map_err(failed)?;
    }
    for part in NO_LINKS {
        if holder.kind(part).map_err(failed)? == Some(FileType::Symlink) {
            return Err(bad(&format!("has a symbolic link in the place of {part}")));
        }
    }
    for directory in [Some(&git_dir), common.as_ref()].into_iter().flatten() {
        if let Some(part) = directory.special().map_err(failed)? {
            return Err(bad(&format!("has neither a file nor a folder in the place of {part}")));
        }
    }
    let borrowed = borrowed(platform, holder.open_in(Path::new("objects")).map_err(failed)?)?;
    Ok(Local { git_dir, common, borrowed })
}

/// Where git looks: in `.git` if it exists, which may be a file that names the place.
fn git_dir(named: Directory) -> std::io::Result<Directory> {
    match named.kind(".git")? {
        None => Ok(named),
        Some(FileType::RegularFile) => {
            let text = named.read(".git")?.unwrap_or_default();
            let place = text.strip_prefix("gitdir: ").map(|place| place.trim_end_matches(['\n', '\r']));
            named.open_in(Path::new(place.ok_or_else(|| std::io::Error::other(".git names no repository"))?))
        }
        Some(_) => named.open_in(Path::new(".git")),
    }
}

/// Directories that objects are borrowed from, directly or indirectly.
fn borrowed(platform: &Platform, objects: Directory) -> Result<Vec<Directory>> {
    let mut all = vec![objects];
    let mut next = 0;
    while let Some(objects) = all.get(next) {
        let place = objects.path.display().to_string();
        let failed =
            |e: std::io::Error| bad(&format!("borrows objects from a place that cannot be opened: {place}: {e}"));
        let lines = objects.read("info/alternates").map_err(failed)?.unwrap_or_default();
        let mut found = Vec::new();
        for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let other = objects.open_in(Path::new(line)).map_err(failed)?;
            platform.refuse(&other)?;
            found.push(other);
        }
        let seen = |other: &Directory| all.iter().any(|known| known.identity == other.identity);
        found.retain(|other| !seen(other));
        all.extend(found);
        if all.len() > MAX_BORROWED {
            return Err(bad(&format!("borrows objects from more than {MAX_BORROWED} repositories")));
        }
        next += 1;
    }
    all.remove(0);
    Ok(all)
}

impl Origin {
    /// Rights to read the origin.
    pub(crate) fn readable(&self) -> Vec<Pinned> {
        self.pinned(false)
    }

    /// Rights to write the origin itself, and to read what it borrows.
    pub(crate) fn writable(&self) -> Vec<Pinned> {
        self.pinned(true)
    }

    fn pinned(&self, write: bool) -> Vec<Pinned> {
        let Some(Local { git_dir, common, borrowed }) = &self.local else { return Vec::new() };
        let own = match common {
            Some(common) => vec![common.pinned(write), git_dir.pinned(false)],
            None => vec![git_dir.pinned(write)],
        };
        own.into_iter().chain(borrowed.iter().map(|directory| directory.pinned(false))).collect()
    }

    /// Where a `file://` origin's objects and branches are.
    pub(crate) fn folder(&self) -> Option<&Path> {
        let Local { git_dir, common, .. } = self.local.as_ref()?;
        Some(&common.as_ref().unwrap_or(git_dir).path)
    }

    /// Lets git talk to this origin and to no other.
    pub(crate) fn allow<'a>(&self, git: Git<'a>) -> Git<'a> {
        git.variable("GIT_ALLOW_PROTOCOL", if self.local.is_some() { "file" } else { "https" })
    }

    /// The option by which git reads from it. None for https, where the other side is another machine's.
    pub(crate) fn upload_pack(&self) -> Option<String> {
        Some(format!("--upload-pack={}", self.other_side("upload-pack --strict")?))
    }

    /// The option by which git writes to it.
    pub(crate) fn receive_pack(&self) -> Option<String> {
        Some(format!("--receive-pack={}", self.other_side("receive-pack")?))
    }

    fn other_side(&self, program: &str) -> Option<String> {
        self.local.as_ref().map(|_| environment::other_side(program))
    }
}
