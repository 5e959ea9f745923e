//! The working tree as git sees it: everything that can be read and is not ignored, in an index of our own, and what is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use ambient_wire::runner::{LeftOut, LeftOutReason};

use super::{
    command::{Git, GitError},
    mirror::remove_tree,
};
use crate::{
    app::App,
    error::{Error, Result},
    life,
    survey::{self, Finding, Kind},
};

/// Largest changed file of a snapshot, bytes.
const MAX_FILE: u64 = 32 * 1024 * 1024;
/// What changed large files may add to a repository by all its snapshots and, each time, to a diff, bytes.
pub(super) const ROOM: u64 = 512 * 1024 * 1024;
/// Most that is named.
const MAX_LEFT_OUT: usize = 1_000;
/// Largest list of changed files, bytes.
const MAX_LIST: usize = 64 * 1024 * 1024;

type Names = BTreeMap<Vec<u8>, LeftOutReason>;
/// Large files that a snapshot has, by path: size and last change.
pub(crate) type LargeFiles = BTreeMap<Vec<u8>, (u64, i128)>;

/// An index of the working tree, so that the agent's is left alone. Removed when dropped.
pub(super) struct WorkingTree<'a> {
    app: &'a App,
    directory: PathBuf,
    scratch: PathBuf,
    /// Where new objects go, and what they refer to; in the repository when there is none.
    apart: Option<(PathBuf, String)>,
    patience: Duration,
    pub(super) left_out: Vec<LeftOut>,
    /// Bytes of large files that were not there before.
    pub(super) added: u64,
    /// Large files of this tree.
    pub(super) large: LargeFiles,
}

/// What may become of large files.
pub(super) struct Room<'a> {
    /// Bytes that may be added.
    pub(super) left: u64,
    /// Those that were added before.
    pub(super) known: &'a LargeFiles,
}

impl<'a> WorkingTree<'a> {
    /// For a look: the repository does not grow.
    ///
    /// # Errors
    /// Git's; the system's.
    pub(super) async fn look(app: &'a App, directory: &Path, patience: Duration) -> Result<Self> {
        let mut tree = Self::new(app, directory, patience)?;
        let objects =
            Git::agents(app, directory).text(&["rev-parse", "--path-format=absolute", "--git-path", "objects"]).await?;
        let apart = tree.scratch.join("objects");
        std::fs::create_dir(&apart).map_err(|e| Error::io("cannot make a temporary folder", &e))?;
        tree.apart = Some((apart, objects));
        tree.fill(&Room { left: ROOM, known: &LargeFiles::new() }).await?;
        Ok(tree)
    }

    /// To be kept: objects are in the repository afterwards.
    ///
    /// # Errors
    /// Git's; the system's.
    pub(super) async fn keep(app: &'a App, directory: &Path, patience: Duration, room: &Room<'_>) -> Result<Self> {
        let mut tree = Self::new(app, directory, patience)?;
        tree.fill(room).await?;
        Ok(tree)
    }

    fn new(app: &'a App, directory: &Path, patience: Duration) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("cannot make a temporary folder", &e);
        let scratch = app.paths.tmp().join(format!("tree-{}", life::random_id().map_err(io)?));
        std::fs::create_dir(&scratch).map_err(io)?;
        let (directory, left_out, large) = (directory.to_owned(), Vec::new(), LargeFiles::new());
        Ok(Self { app, directory, scratch, apart: None, patience, left_out, added: 0, large })
    }

    /// Git with this index.
    pub(super) fn git(&self) -> Git<'a> {
        let git = Git::agents(self.app, &self.directory).patience(self.patience);
        let git = git.variable("GIT_INDEX_FILE", self.scratch.join("index"));
        match &self.apart {
            Some((objects, others)) => {
                git.variable("GIT_OBJECT_DIRECTORY", objects).variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", others)
            }
            None => git,
        }
    }

    async fn fill(&mut self, room: &Room<'_>) -> Result<()> {
        let head = ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"];
        if let Some(head) = Git::agents(self.app, &self.directory).maybe(&head).await? {
            self.git().run(&["read-tree", &head]).await?;
            // Tells what has changed by exit code 1; what fails here fails below again.
            let refreshed = self.git().run(&["update-index", "-q", "--refresh"]).await;
            refreshed.map(|_| ()).or_else(|error| if gave_up_some(&error) { Ok(()) } else { Err(error) })?;
        }
        let findings = survey_of(&self.git(), self.app, &self.directory).await?;
        let dropped = self.choose(&findings, room).await?;
        let added = self.add(&dropped).await?;
        let mut names = dropped;
        names.extend(passed(&findings));
        if !added {
            add_refused(&mut names, changed(&self.git()).await?);
        }
        self.left_out = named(&names);
        Ok(())
    }

    /// Large files that are not taken, of those that are new or changed.
    async fn choose(&mut self, findings: &[Finding], room: &Room<'_>) -> Result<Names> {
        let mut large: Vec<_> = findings
            .iter()
            .filter_map(|finding| match finding.kind {
                Kind::Large { size, modified } => Some((size, modified, finding.path.clone())),
                _ => None,
            })
            .collect();
        let mut dropped = BTreeMap::new();
        if large.is_empty() {
            return Ok(dropped);
        }
        let changed = changed(&self.git()).await?;
        large.retain(|(_, _, path)| changed.contains(path));
        // The small ones first: more of them find room.
        large.sort();
        for (size, modified, path) in large {
            let known = room.known.get(&path) == Some(&(size, modified));
            if size > MAX_FILE {
                dropped.insert(path, LeftOutReason::TooLarge);
            } else if !known && self.added + size > room.left {
                dropped.insert(path, LeftOutReason::NoRoom);
            } else {
                self.added += if known { 0 } else { size };
                self.large.insert(path, (size, modified));
            }
        }
        Ok(dropped)
    }

    /// Whether everything could be added.
    async fn add(&self, dropped: &Names) -> Result<bool> {
        let mut paths = b".\0".to_vec();
        for path in dropped.keys() {
            paths.extend_from_slice(b":(exclude,literal)");
            paths.extend_from_slice(path);
            paths.push(0);
        }
        let arguments = ["add", "--all", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul"];
        match self.git().input(paths).run(&arguments).await {
            Ok(_) => Ok(true),
            Err(error) if gave_up_some(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for WorkingTree<'_> {
    fn drop(&mut self) {
        let scratch = self.scratch.clone();
        tokio::spawn(async move {
            if let Err(error) = remove_tree(scratch).await {
                tracing::warn!(%error, "a temporary folder cannot be removed; the next launch removes it");
            }
        });
    }
}

/// What git passes over without a word.
///
/// # Errors
/// Git's.
pub(super) async fn passed_over(git: &Git<'_>, app: &App, directory: &Path) -> Result<Vec<LeftOut>> {
    Ok(named(&passed(&survey_of(git, app, directory).await?).collect()))
}

/// What git passes over, and what it could not add.
///
/// # Errors
/// Git's.
pub(super) async fn refused(git: &Git<'_>, app: &App, directory: &Path) -> Result<Vec<LeftOut>> {
    let mut names = passed(&survey_of(git, app, directory).await?).collect();
    add_refused(&mut names, changed(git).await?);
    Ok(named(&names))
}

/// Findings that git does not take, with why.
fn passed(findings: &[Finding]) -> impl Iterator<Item = (Vec<u8>, LeftOutReason)> {
    findings.iter().filter_map(|finding| {
        let reason = match finding.kind {
            Kind::Unreadable => LeftOutReason::Unreadable,
            Kind::Special => LeftOutReason::Special,
            Kind::Repository => LeftOutReason::Repository,
            Kind::More => LeftOutReason::More,
            Kind::Large { .. } => return None,
        };
        Some((finding.path.clone(), reason))
    })
}

fn add_refused(names: &mut Names, changed: BTreeSet<Vec<u8>>) {
    for mut path in changed {
        // A repository is told as a folder.
        path.pop_if(|last| *last == b'/');
        names.entry(path).or_insert(LeftOutReason::Unreadable);
    }
}

/// Paths that differ from the index and are not ignored.
async fn changed(git: &Git<'_>) -> Result<BTreeSet<Vec<u8>>> {
    let list = |arguments: &'static [&'static str]| git.clone().most(MAX_LIST).run(arguments);
    let tracked = list(&["diff-files", "--name-only", "-z", "--ignore-submodules=dirty"]).await?;
    let others = list(&["ls-files", "--others", "--exclude-standard", "-z"]).await?;
    let paths = [tracked, others].concat();
    Ok(paths.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Exit code 1: what could be done is done.
fn gave_up_some(error: &GitError) -> bool {
    matches!(error, GitError::Failed { code: 1, .. })
}

/// What there is in a repository's directory besides what git takes, ignored things left away.
///
/// # Errors
/// Git's.
async fn survey_of(git: &Git<'_>, app: &App, directory: &Path) -> Result<Vec<Finding>> {
    let found = Git::agents(app, directory).most(MAX_LIST).program(OsStr::new(survey::PROGRAM)).run(&[]).await?;
    let mut found = survey::parse(&found).ok_or_else(|| Error::Git("the survey of the files went wrong".to_owned()))?;
    let mut paths = Vec::new();
    for finding in found.iter().filter(|finding| finding.kind != Kind::More) {
        paths.extend_from_slice(&finding.path);
        paths.push(0);
    }
    if paths.is_empty() {
        return Ok(found);
    }
    let ignored = match git.clone().most(MAX_LIST).input(paths).run(&["check-ignore", "-z", "--stdin"]).await {
        Ok(ignored) => ignored,
        Err(GitError::Failed { code: 1, .. }) => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    let ignored: BTreeSet<&[u8]> = ignored.split(|byte| *byte == 0).collect();
    found.retain(|finding| finding.path.is_empty() || !ignored.contains(finding.path.as_slice()));
    Ok(found)
}

/// For people and programs: sorted, and not without end.
fn named(names: &Names) -> Vec<LeftOut> {
    let more = names.len() > MAX_LEFT_OUT;
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let named = names.iter().take(MAX_LEFT_OUT).map(|(path, reason)| LeftOut { path: text(path), reason: *reason });
    let more = more.then(|| LeftOut { path: String::new(), reason: LeftOutReason::More });
    named.chain(more).collect()
}
