//! The working tree as git sees it: everything readable that is not ignored, and what is left out.
//!
//! It is examined from a repository of our own, which has the agent's objects and working tree and nothing else of its repository:
//! no configuration (`core.worktree`, filters, `status.*`), no index (`skip-worktree`, locks, damage), no `info/` (excludes,
//! attributes, sparse checkout). Nothing that could hide a change there is read. `.gitignore` and `.gitattributes` of the
//! working tree apply, as they do for anyone who clones it. The only filter is that of Git LFS, in our own form.

mod inside;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ambient_wire::{
    file_name::escape,
    git::{InSubmodule, LeftOut, LeftOutReason},
};

use self::inside::Inspection;
use super::{
    HEAD, check_object,
    command::{Git, GitError},
    directory::Directory,
    known::Known,
    mirror::remove_tree,
    quoted_for_shell, scratch, sparse,
    submodules::Module,
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    survey::{self, Finding, Kind},
};

/// Largest changed file in a snapshot, bytes.
const MAX_FILE: u64 = 32 * 1024 * 1024;
/// How much changed large files may add to a repository through all its snapshots and, each time, to a diff, bytes.
const ROOM: u64 = 512 * 1024 * 1024;
/// Most entries that are named.
const MAX_LEFT_OUT: usize = 1_000;
/// Largest list of changed files, bytes.
pub(super) const MAX_LIST: usize = 16 * 1024 * 1024;
/// Largest index of an agent's that is read, bytes.
const MAX_INDEX: usize = 64 * 1024 * 1024;
/// Files that git opens wherever they are: it hangs forever on one that is a pipe.
const READ_BY_GIT: [&[u8]; 3] = [b".gitignore", b".gitattributes", b".gitmodules"];

/// Name of the filter of Git LFS.
const CLEAN: &str = "clean.sh";

type Names = BTreeMap<Vec<u8>, LeftOutReason>;
/// Large files in a snapshot, by path: size and last change.
pub(crate) type LargeFiles = BTreeMap<Vec<u8>, (u64, i128)>;

/// The working tree in an index of our own. Removed when dropped.
pub(super) struct WorkingTree<'a> {
    attempt: &'a Attempt,
    directory: PathBuf,
    scratch: PathBuf,
    /// Where objects of the agent's repository are.
    objects: PathBuf,
    /// Where new objects go, if not there.
    apart: Option<PathBuf>,
    patience: Duration,
    /// Commit checked out, as claimed by the agent.
    pub(super) head: Option<String>,
    /// Paths that differ from it, without ignored ones; a repository as a folder with a slash.
    changed: BTreeSet<Vec<u8>>,
    pub(super) left_out: Vec<LeftOut>,
    /// Bytes of large files that were not there before.
    pub(super) added: u64,
    /// Large files of this tree.
    pub(super) large: LargeFiles,
    /// Submodules to be named.
    pub(super) submodules: BTreeMap<Vec<u8>, InSubmodule>,
    /// Files that a sparse checkout omits.
    pub(super) not_checked_out: BTreeSet<Vec<u8>>,
    /// What exists besides what git takes; for an outline.
    pub(super) findings: Vec<Finding>,
}

/// A repository in the workspace.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) directory: &'a Path,
    /// Submodules that were fetched.
    pub(super) modules: &'a [Module],
    /// The commit that was cloned.
    pub(super) base: Option<&'a str>,
}

impl<'a> Place<'a> {
    pub(super) fn new(directory: &'a Path, known: &'a Known) -> Self {
        Self { directory, modules: &known.modules, base: known.base.as_deref() }
    }
}

/// What may be done with large files.
pub(super) struct Room<'a> {
    /// Largest one that is taken, bytes.
    largest: u64,
    /// Bytes that may be added.
    left: u64,
    /// Those that were added before.
    known: &'a LargeFiles,
}

impl<'a> Room<'a> {
    /// For a snapshot in a repository to which snapshots have already added this much.
    pub(super) fn of_snapshots(bytes: u64, known: &'a LargeFiles) -> Self {
        Self { largest: MAX_FILE, left: ROOM.saturating_sub(bytes), known }
    }
}

impl<'a> WorkingTree<'a> {
    /// For a look: the repository does not grow.
    ///
    /// # Errors
    /// Git's; a system error.
    pub(super) async fn look(attempt: &'a Attempt, place: Place<'_>, patience: Duration) -> Result<Self> {
        let mut tree = Self::new(attempt, place.directory, patience).await?;
        tree.apart = Some(tree.scratch.join("objects"));
        let findings = tree.begin(&mut Inspection::new(attempt, place, patience)).await?;
        tree.fill(&findings, &Room::of_snapshots(0, &LargeFiles::new())).await?;
        Ok(tree)
    }

    /// Only what has changed: no content is taken, the index is the commit's.
    ///
    /// # Errors
    /// Git's; a system error.
    pub(super) async fn outline(attempt: &'a Attempt, place: Place<'_>, patience: Duration) -> Result<Self> {
        let mut inspection = Inspection::new(attempt, place, patience);
        Self::outline_within(attempt, place.directory, patience, &mut inspection).await
    }

    /// The same for a submodule, whose working tree the inspection has reached.
    ///
    /// # Errors
    /// Git's; a system error.
    async fn outline_within(
        attempt: &'a Attempt,
        directory: &Path,
        patience: Duration,
        inspection: &mut Inspection<'_>,
    ) -> Result<Self> {
        let mut tree = Self::new(attempt, directory, patience).await?;
        tree.apart = Some(tree.scratch.join("objects"));
        let findings = tree.begin(inspection).await?;
        let mut names: Names = passed(&findings).collect();
        tree.name_filtered(&mut names).await?;
        tree.left_out = tree.named(names);
        tree.findings = findings;
        Ok(tree)
    }

    /// To be kept: objects are in the repository afterwards.
    ///
    /// # Errors
    /// Git's; a system error.
    pub(super) async fn keep(
        attempt: &'a Attempt,
        place: Place<'_>,
        patience: Duration,
        room: &Room<'_>,
    ) -> Result<Self> {
        let mut tree = Self::new(attempt, place.directory, patience).await?;
        let findings = tree.begin(&mut Inspection::new(attempt, place, patience)).await?;
        tree.fill(&findings, room).await?;
        Ok(tree)
    }

    /// To be committed, whatever its size.
    ///
    /// # Errors
    /// Git's; a system error.
    pub(super) async fn whole(attempt: &'a Attempt, place: Place<'_>, patience: Duration) -> Result<Self> {
        let room = Room { largest: u64::MAX, left: u64::MAX, known: &LargeFiles::new() };
        Self::keep(attempt, place, patience, &room).await
    }

    /// For commits only: nobody looks at the files, and the repository does not grow.
    ///
    /// # Errors
    /// Git's; a system error.
    pub(super) async fn commits(attempt: &'a Attempt, directory: &Path, patience: Duration) -> Result<Self> {
        let mut tree = Self::new(attempt, directory, patience).await?;
        tree.apart = Some(tree.scratch.join("objects"));
        Ok(tree)
    }

    /// How many files differ from the checked-out commit.
    pub(super) fn changes(&self) -> u64 {
        self.changed.iter().filter(|path| !path.ends_with(b"/")).count().try_into().unwrap_or(u64::MAX)
    }

    async fn new(attempt: &'a Attempt, directory: &Path, patience: Duration) -> Result<Self> {
        let agents = Git::repository(attempt, directory);
        let head = agents.clone().maybe(&HEAD).await?;
        head.as_deref().map(check_object).transpose()?;
        let objects = ["rev-parse", "--path-format=absolute", "--git-path", "objects"];
        let objects = PathBuf::from(agents.clone().text(&objects).await?);
        let is_long = match &head {
            Some(head) => head.len() == 64,
            None => agents.text(&["rev-parse", "--show-object-format"]).await? == "sha256",
        };
        let io = |e: std::io::Error| Error::io("cannot make a temporary folder", &e);
        let scratch = make_repository(attempt, head.as_deref(), is_long).map_err(io)?;
        Ok(Self {
            attempt,
            directory: directory.to_owned(),
            scratch,
            objects,
            apart: None,
            patience,
            head,
            changed: BTreeSet::new(),
            left_out: Vec::new(),
            added: 0,
            large: LargeFiles::new(),
            submodules: BTreeMap::new(),
            not_checked_out: BTreeSet::new(),
            findings: Vec::new(),
        })
    }

    /// Git in our own repository, on the agent's working tree.
    pub(super) fn git(&self) -> Git<'a> {
        // What is to be kept may be pushed, so its content is kept too.
        let store = self.objects.with_file_name("lfs").join("objects");
        let store = if self.apart.is_none() { quoted_for_shell(&store) } else { String::new() };
        let clean = format!("sh {} %f {store}", quoted_for_shell(&self.scratch.join(CLEAN)));
        let git =
            Git::repository(self.attempt, &self.directory).patience(self.patience).variable("GIT_DIR", &self.scratch);
        let git = git.setting("filter.lfs.clean", &clean).setting("filter.lfs.required", "true");
        match &self.apart {
            Some(apart) => {
                git.variable("GIT_OBJECT_DIRECTORY", apart).variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", &self.objects)
            }
            None => git.variable("GIT_OBJECT_DIRECTORY", &self.objects),
        }
    }

    /// The same with the objects of another repository.
    pub(super) fn git_with(&self, other: &Path) -> Git<'a> {
        let mut all = self.objects.clone().into_os_string();
        all.push(":");
        all.push(other.join("objects"));
        self.git().variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", all)
    }

    /// Git in the agent's repository.
    pub(super) fn agents(&self) -> Git<'a> {
        Git::repository(self.attempt, &self.directory).patience(self.patience)
    }

    /// Replaces the files of one tree by those of another, by git in the agent's repository, with an index of ours. Files that are in neither stay,
    /// and if one has changed since the first tree was made, nothing happens.
    ///
    /// # Errors
    /// Git's.
    pub(super) async fn replace(&self, from: &str, to: &str) -> std::result::Result<(), GitError> {
        let git = || self.agents().variable("GIT_INDEX_FILE", self.scratch.join("replaced"));
        git().run(&["read-tree", from]).await?;
        let refreshed = git().run(&["update-index", "-q", "--refresh"]).await;
        refreshed.map(drop).or_else(|error| if gave_up_some(&error) { Ok(()) } else { Err(error) })?;
        git().run(&["read-tree", "-m", "-u", from, to]).await.map(drop)
    }

    /// The agent's index as a tree. It is read by name, and not locked or changed.
    ///
    /// # Errors
    /// A conflict if files in it are not merged; git's.
    pub(super) async fn staged(&self) -> Result<String> {
        let entries =
            self.agents().most(MAX_INDEX).run(&["ls-files", "--stage", "-z", "--full-name", "--sparse"]).await?;
        let own = || self.git().variable("GIT_INDEX_FILE", self.scratch.join("staged"));
        own().input(entries).run(&["update-index", "-z", "--index-info"]).await?;
        let tree = own().text(&["write-tree"]).await?;
        Ok(check_object(&tree)?.to_owned())
    }

    /// The index becomes the commit's; finds what exists besides, and what has changed.
    async fn begin(&mut self, inspection: &mut Inspection<'_>) -> Result<Vec<Finding>> {
        let mut findings = self.survey().await?;
        if let Some(head) = &self.head {
            self.git().run(&["read-tree", head]).await?;
            let found = inspection.submodules(&self.git(), &self.directory, &findings).await?;
            findings.retain(|finding| !found.has(&finding.path));
            self.submodules = found.named;
            self.pass_over(&found.damaged).await?;
            // Reports changes by exit code 1; what fails here fails below again.
            let refreshed = self.git().run(&["update-index", "-q", "--refresh"]).await;
            refreshed.map(|_| ()).or_else(|error| if gave_up_some(&error) { Ok(()) } else { Err(error) })?;
            self.pass_over_sparse().await?;
        }
        self.changed = changed(&self.git()).await?;
        not_ignored(&self.git(), findings).await
    }

    /// What git cannot examine stays as it is in the commit.
    async fn pass_over<'p>(&self, paths: impl IntoIterator<Item = &'p Vec<u8>>) -> Result<()> {
        let paths = terminated(paths);
        if !paths.is_empty() {
            self.git().input(paths).run(&["update-index", "--assume-unchanged", "-z", "--stdin"]).await?;
        }
        Ok(())
    }

    /// What is absent because it was not checked out is not deleted.
    async fn pass_over_sparse(&mut self) -> Result<()> {
        let agents = Git::repository(self.attempt, &self.directory).patience(self.patience);
        let marked = sparse::marked(&agents).await;
        if marked.is_empty() {
            return Ok(());
        }
        let deleted = self.git().most(MAX_LIST).run(&["diff-files", "--name-only", "--diff-filter=D", "-z"]).await?;
        let deleted = deleted.split(|byte| *byte == 0).filter(|path| marked.contains(*path));
        self.not_checked_out = deleted.map(<[u8]>::to_vec).collect();
        self.pass_over(&self.not_checked_out).await
    }

    /// What is in the directory besides what git takes.
    async fn survey(&self) -> Result<Vec<Finding>> {
        let trap =
            |path: &str| Error::Trap(format!("'{path}' is not a file, and git could wait for it for ever: remove it"));
        let attributes = ".git/info/attributes";
        // A link could lead to a pipe, and is not followed: where it leads in the machine's root is none of the agent's business.
        if self.directory.join(attributes).symlink_metadata().is_ok_and(|about| !about.is_file()) {
            return Err(trap(attributes));
        }
        let survey = Git::repository(self.attempt, &self.directory).patience(self.patience);
        let found = survey.most(MAX_LIST).program(OsStr::new(survey::PROGRAM)).run(&[]).await?;
        let found = survey::parse(&found).ok_or_else(|| Error::Git("the survey of the files went wrong".to_owned()))?;
        let name = |finding: &Finding| finding.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        let is_trap =
            |finding: &&Finding| finding.kind == Kind::Special && READ_BY_GIT.contains(&name(finding).as_slice());
        match found.iter().find(is_trap) {
            Some(found) => Err(trap(&String::from_utf8_lossy(&found.path))),
            None => Ok(found),
        }
    }

    async fn fill(&mut self, findings: &[Finding], room: &Room<'_>) -> Result<()> {
        let mut names = self.choose(findings, room);
        names.extend(passed(findings).filter(|(_, reason)| *reason == LeftOutReason::Name));
        let added = self.add(&names).await?;
        names.extend(passed(findings));
        if !added {
            add_refused(&mut names, changed(&self.git()).await?);
        }
        self.name_filtered(&mut names).await?;
        self.left_out = self.named(names);
        Ok(())
    }

    /// For people and programs: sorted, and bounded.
    fn named(&self, mut names: Names) -> Vec<LeftOut> {
        for path in self.submodules.keys() {
            names.entry(path.clone()).or_insert(LeftOutReason::Submodule);
        }
        if let Ok(directory) = Directory::open(&self.directory) {
            for path in sparse::topmost(&directory, &self.not_checked_out) {
                names.entry(path).or_insert(LeftOutReason::NotCheckedOut);
            }
        }
        let one = |(path, reason): (&Vec<u8>, &LeftOutReason)| {
            let submodule = self.submodules.get(path).filter(|_| *reason == LeftOutReason::Submodule).copied();
            LeftOut { path: escape(path), reason: *reason, submodule }
        };
        let more = LeftOut { path: String::new(), reason: LeftOutReason::More, submodule: None };
        let more = (names.len() > MAX_LEFT_OUT).then_some(more);
        names.iter().take(MAX_LEFT_OUT).map(one).chain(more).collect()
    }

    /// Changed files with a filter of the repository's own: none is run here except that of Git LFS.
    async fn name_filtered(&self, names: &mut Names) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let paths = terminated(&self.changed);
        let told = self.git().most(MAX_LIST).input(paths).run(&["check-attr", "-z", "--stdin", "filter"]).await?;
        let fields: Vec<_> = told.split(|byte| *byte == 0).collect();
        for entry in fields.chunks_exact(3) {
            let has_filter = !matches!(entry[2], b"unspecified" | b"unset" | b"set" | b"lfs");
            if has_filter && self.directory.join(OsStr::from_bytes(entry[0])).symlink_metadata().is_ok() {
                names.entry(entry[0].to_vec()).or_insert(LeftOutReason::Filter);
            }
        }
        Ok(())
    }

    /// Large files that are not taken, among those that are new or changed.
    fn choose(&mut self, findings: &[Finding], room: &Room<'_>) -> Names {
        let mut large: Vec<_> = findings
            .iter()
            .filter_map(|finding| match finding.kind {
                Kind::Large { size, modified } => Some((size, modified, finding.path.clone())),
                _ => None,
            })
            .collect();
        large.retain(|(_, _, path)| self.changed.contains(path));
        let mut dropped = BTreeMap::new();
        // The small ones first, so that more of them fit.
        large.sort();
        for (size, modified, path) in large {
            let known = room.known.get(&path) == Some(&(size, modified));
            if size > room.largest {
                dropped.insert(path, LeftOutReason::TooLarge);
            } else if !known && self.added + size > room.left {
                dropped.insert(path, LeftOutReason::NoRoom);
            } else {
                self.added += if known { 0 } else { size };
                self.large.insert(path, (size, modified));
            }
        }
        dropped
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

/// The minimum that git accepts as a repository.
fn make_repository(attempt: &Attempt, head: Option<&str>, is_long: bool) -> std::io::Result<PathBuf> {
    let version = if is_long { "1\n[extensions]\n\tobjectFormat = sha256" } else { "0" };
    // Names that other systems' file systems would take for `.git` do no harm here; whoever takes a commit in checks it.
    let configuration = format!(
        "[core]\n\tprotectNTFS = false\n\tprotectHFS = false\n\tbare = false\n\trepositoryFormatVersion = {version}\n"
    );
    let head = format!("{}\n", head.unwrap_or("ref: refs/heads/none"));
    let clean = include_bytes!("../large_files/clean.sh");
    let files = [("config", configuration.as_bytes()), (CLEAN, clean), ("HEAD", head.as_bytes())];
    scratch::make(attempt, &["refs", "objects"], &files)
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

/// In the form git reads paths: each ended by NUL.
pub(super) fn terminated<'p>(paths: impl IntoIterator<Item = &'p Vec<u8>>) -> Vec<u8> {
    paths.into_iter().flat_map(|path| path.iter().copied().chain([0])).collect()
}

/// Findings that git does not take, with reasons.
fn passed(findings: &[Finding]) -> impl Iterator<Item = (Vec<u8>, LeftOutReason)> {
    findings.iter().filter_map(|finding| {
        let reason = match finding.kind {
            Kind::Unreadable => LeftOutReason::Unreadable,
            Kind::Special => LeftOutReason::Special,
            Kind::Repository => LeftOutReason::Repository,
            Kind::Name => LeftOutReason::Name,
            Kind::More => LeftOutReason::More,
            Kind::Large { .. } => return None,
        };
        Some((finding.path.clone(), reason))
    })
}

fn add_refused(names: &mut Names, changed: BTreeSet<Vec<u8>>) {
    for mut path in changed {
        // A repository is reported as a folder.
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

/// Exit code 1: what could be done was done.
fn gave_up_some(error: &GitError) -> bool {
    matches!(error, GitError::Failed { code: 1, .. })
}

/// Findings, without ignored ones.
async fn not_ignored(git: &Git<'_>, mut found: Vec<Finding>) -> Result<Vec<Finding>> {
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
