//! What submodules of a working tree contain: each is examined like the repository itself, from a repository of ours, so that nothing
//! a submodule says (configuration, filters, hooks, index flags) runs or counts. Bounded in number, depth and time for
//! all within one repository.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Duration,
};

use ambient_wire::git::InSubmodule;
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        HEAD, check_object,
        command::Git,
        directory::Directory,
        mirror::Mirror,
        submodules::{MAX, MAX_DEPTH, Module},
    },
    Place, WorkingTree,
};
use crate::{
    attempt::Attempt,
    error::Result,
    survey::{Finding, Kind},
};

/// Of the time for a working tree, all its submodules get half and each of them a quarter.
const SHARES: (u32, u32) = (2, 4);
/// Timeout for finding out where its `HEAD` is: a file is read.
const HEAD_PATIENCE: Duration = Duration::from_secs(4);
/// One about which nothing is known.
const UNKNOWN: InSubmodule = InSubmodule { uncommitted: None, unpublished: None };

/// A look into all submodules of a repository, at any depth.
pub(super) struct Inspection<'a> {
    attempt: &'a Attempt,
    modules: &'a [Module],
    /// The repository's commit that was cloned.
    base: Option<&'a str>,
    deadline: Instant,
    each: Duration,
    /// How many may still be examined.
    left: usize,
    /// Where it is now: the submodule's folder within the whole, with a trailing slash.
    within: Vec<u8>,
    depth: usize,
}

/// What was found in the submodules of a working tree.
#[derive(Default)]
pub(super) struct Found {
    /// Submodules that are fully described by the commit they are pinned to.
    pub(super) clean: Vec<Vec<u8>>,
    /// Those to be named, including nested ones.
    pub(super) named: BTreeMap<Vec<u8>, InSubmodule>,
    /// Those whose commit cannot be read: git gives up, or hangs, when it comes across one.
    pub(super) damaged: Vec<Vec<u8>>,
}

impl Found {
    /// Whether everything to be said about a folder is here.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.named.contains_key(path) || self.clean.iter().any(|clean| clean == path)
    }
}

impl<'a> Inspection<'a> {
    /// The submodules of a repository, as part of a look that has this much time.
    pub(super) fn new(attempt: &'a Attempt, place: Place<'a>, patience: Duration) -> Self {
        let Place { modules, base, .. } = place;
        let (deadline, each) = (Instant::now() + patience / SHARES.0, patience / SHARES.1);
        Self { attempt, modules, base, deadline, each, left: MAX, within: Vec::new(), depth: 0 }
    }

    /// Looks into the submodules of the working tree in a directory. `git` has its commit in the index.
    ///
    /// # Errors
    /// Git's, for the repository itself; what is wrong with a submodule is reported.
    pub(super) async fn submodules(&mut self, git: &Git<'_>, directory: &Path, findings: &[Finding]) -> Result<Found> {
        let repositories = findings.iter().filter(|finding| finding.kind == Kind::Repository);
        let repositories: BTreeSet<&[u8]> = repositories.map(|finding| finding.path.as_slice()).collect();
        let mut found = Found::default();
        if repositories.is_empty() && git.clone().run(&["ls-files", "--", ".gitmodules"]).await?.is_empty() {
            return Ok(found);
        }
        for path in links(git).await? {
            let place = directory.join(OsStr::from_bytes(&path));
            if repositories.contains(path.as_slice()) {
                self.one(git, &place, path, &mut found).await;
            } else if is_filled(directory, &path) {
                // Files without a repository: git does not examine them.
                found.named.insert(path, UNKNOWN);
            }
        }
        Ok(found)
    }

    async fn one(&mut self, git: &Git<'_>, place: &Path, path: Vec<u8>, found: &mut Found) {
        if self.left == 0 || self.depth == MAX_DEPTH || Instant::now() >= self.deadline {
            found.named.insert(path, UNKNOWN);
            return;
        }
        self.left -= 1;
        let head = Git::repository(self.attempt, place).patience(HEAD_PATIENCE).maybe(&HEAD).await;
        let Some(head) = head.ok().flatten().filter(|head| check_object(head).is_ok()) else {
            found.named.insert(path.clone(), UNKNOWN);
            found.damaged.push(path);
            return;
        };
        let deadline = self.deadline.min(Instant::now() + self.each);
        let outer = (self.within.len(), self.depth);
        self.within.extend(path.iter().chain(b"/"));
        self.depth += 1;
        let looked = timeout_at(deadline, Box::pin(self.held(place, &head))).await;
        self.within.truncate(outer.0);
        self.depth = outer.1;
        let (held, inner) = looked.unwrap_or((UNKNOWN, BTreeMap::new()));
        let whole = |inner: Vec<u8>| [path.as_slice(), b"/", &inner].concat();
        found.named.extend(inner.into_iter().map(|(inner, held)| (whole(inner), held)));
        match held {
            InSubmodule { uncommitted: Some(0), unpublished: Some(0) } => found.clean.push(path),
            // Fetched by the agent, and where it was when the repository was cloned.
            InSubmodule { uncommitted: Some(0), unpublished: None } if self.is_as_cloned(git, &path, &head).await => {
                found.clean.push(path);
            }
            // Not fetched by us: reported as a repository of its own, like one that the commit does not point to.
            InSubmodule { uncommitted: Some(0), unpublished: None } => {}
            _ => drop(found.named.insert(path, held)),
        }
    }

    /// Whether the commit that was cloned points to this one.
    async fn is_as_cloned(&self, git: &Git<'_>, path: &[u8], head: &str) -> bool {
        let (Some(base), Ok(path), 0) = (self.base, std::str::from_utf8(path), self.depth) else { return false };
        let name = format!("{base}:{path}");
        let link = git.clone().maybe(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).await;
        link.is_ok_and(|link| link.is_some_and(|link| link == head))
    }

    /// What one contains, and those within it.
    async fn held(&mut self, place: &Path, head: &str) -> (InSubmodule, BTreeMap<Vec<u8>, InSubmodule>) {
        let unpublished = self.unpublished(place, head).await;
        match WorkingTree::outline_within(self.attempt, place, self.each, self).await {
            Ok(mut tree) => {
                let uncommitted = Some(tree.changes());
                (InSubmodule { uncommitted, unpublished }, std::mem::take(&mut tree.submodules))
            }
            Err(_) => (InSubmodule { uncommitted: None, unpublished }, BTreeMap::new()),
        }
    }

    /// Commits that its mirror, and so its origin, does not have. Nothing if we did not fetch it.
    async fn unpublished(&self, place: &Path, head: &str) -> Option<u64> {
        let path = self.within.strip_suffix(b"/")?;
        let module = self.modules.iter().find(|module| module.path.as_bytes() == path)?;
        let mirror = Mirror::open(self.attempt, &module.mirror).ok()?;
        if mirror.has(head).await.ok()? {
            return Some(0);
        }
        let tips = mirror.git(false, Vec::new()).text(&["for-each-ref", "--format=^%(objectname)"]).await.ok()?;
        let git = Git::repository(self.attempt, place).input(format!("{head}\n{tips}\n"));
        let git = git.variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", mirror.path().join("objects"));
        git.text(&["rev-list", "--count", "--stdin"]).await.ok()?.parse().ok()
    }
}

/// Folders of the submodules in the index.
async fn links(git: &Git<'_>) -> Result<Vec<Vec<u8>>> {
    let links = git.clone().only(|entry| entry.starts_with(b"160000 "));
    let list = links.run(&["ls-files", "--stage", "-z"]).await?;
    let links = list.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let path = |entry: &[u8]| entry.splitn(2, |byte| *byte == b'\t').nth(1).map(<[u8]>::to_vec);
    Ok(links.filter_map(path).collect())
}

/// Whether a path leads to a non-empty folder.
fn is_filled(directory: &Path, path: &[u8]) -> bool {
    Directory::open(directory).is_ok_and(|directory| directory.is_filled(Path::new(OsStr::from_bytes(path))))
}
