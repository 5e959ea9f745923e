//! The session's repositories: mirrored and recorded out of the agent's reach, cloned next to their place, then moved in.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{self, Arc, PoisonError, RwLock},
    time::Duration,
};

use ambient_runner_protocol::{RepoSpec, RepoStatus};
use ambient_wire::{
    repo::{PushTo, RepoOutput},
    runner_event::RunnerEvent,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{
    HEAD, check_branch, check_name, check_object,
    command::Git,
    environment,
    known::{Known, Role},
    large_files,
    mirror::{self, Mirror, remove_tree},
    origin, submodules,
    vault::{self, Packing},
    working_tree::LargeFiles,
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    life,
    log::EventLog,
};

/// From the mirror, so the working tree is what takes time.
const CLONE_PATIENCE: Duration = Duration::from_secs(80);
/// The list of all: the server waits for 15 s.
const LIST_PATIENCE: Duration = Duration::from_secs(10);
const MAX_REPOS: usize = 50;
/// Most branches of an origin that are remembered.
const MAX_PUSHED: usize = 100;
/// Attempts to remove a removed repository's files.
const REMOVALS: usize = 20;

/// Repositories by name.
pub(crate) struct Repos {
    pub(super) attempt: Arc<Attempt>,
    log: EventLog,
    known: RwLock<BTreeMap<String, Known>>,
    /// Large files of the newest snapshots.
    large: RwLock<BTreeMap<String, LargeFiles>>,
    /// One change of a record at a time.
    recording: sync::Mutex<()>,
    /// One clone or removal at a time.
    change: Mutex<()>,
    /// One push at a time, and no removal meanwhile.
    pub(super) pushing: Mutex<()>,
    /// Packs of snapshots.
    pub(super) packing: Packing,
}

impl Repos {
    /// Reads what is recorded.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn open(attempt: Arc<Attempt>, log: EventLog) -> std::io::Result<Self> {
        let paths = &attempt.paths;
        std::fs::create_dir_all(paths.repos())?;
        environment::write_configuration(&paths.mirrors().join(environment::CONFIGURATION))?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(paths.repos())? {
            let path = entry?.path();
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == "json") && check_name("name", &name).is_ok() {
                known.insert(name, Known::read(&std::fs::read(&path)?)?);
            }
        }
        let (known, large, packing) = (RwLock::new(known), RwLock::default(), Packing::default());
        let (recording, change, pushing) = (sync::Mutex::new(()), Mutex::new(()), Mutex::new(()));
        Ok(Self { attempt, log, known, large, recording, change, pushing, packing })
    }

    /// Names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.known.read().map(|known| known.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn get(&self, name: &str) -> Option<Known> {
        self.known.read().ok()?.get(name).cloned()
    }

    /// A repository's directory.
    ///
    /// # Errors
    /// Bad input; not found; a conflict if it no longer exists.
    pub(crate) fn directory(&self, name: &str) -> Result<(PathBuf, Known)> {
        let known = self.get(check_name("repo", name)?);
        let known = known.ok_or_else(|| Error::NotFound(format!("no repository '{name}'")))?;
        let directory = self.attempt.paths.workspace().join(name);
        match missing(&directory) {
            None => Ok((directory, known)),
            Some(how) => Err(Error::Conflict(format!("the folder of repository '{name}' {how}"))),
        }
    }

    /// Repositories that are pushed at the end of a turn.
    pub(crate) fn to_push(&self) -> Vec<Destination> {
        let Ok(known) = self.known.read() else { return Vec::new() };
        let destination = |(name, known): (&String, &Known)| {
            let (url, branch) = (known.destination()?.to_owned(), known.role.output.target_branch.clone()?);
            Some(Destination { repo: name.clone(), url, branch })
        };
        known.iter().filter(|(_, known)| known.role.auto_push).filter_map(destination).collect()
    }

    /// Records an event.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(super) async fn tell(&self, event: RunnerEvent) -> Result<()> {
        self.log.append(vec![event]).await.map(drop).map_err(|e| Error::Internal(e.to_string()))
    }

    /// Large files of a repository's newest snapshot.
    pub(super) fn large_files(&self, name: &str) -> LargeFiles {
        self.large.read().ok().and_then(|all| all.get(name).cloned()).unwrap_or_default()
    }

    /// Records how much a snapshot has added to the repository with large files.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn note_added(&self, name: &str, added: u64, large: LargeFiles) -> Result<()> {
        if let Ok(mut all) = self.large.write() {
            all.insert(name.to_owned(), large);
        }
        if added == 0 {
            return Ok(());
        }
        self.amend(name, |known| known.snapshot_bytes = known.snapshot_bytes.saturating_add(added))
    }

    /// Changes what is recorded of a repository, unless it was removed.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn amend(&self, name: &str, change: impl FnOnce(&mut Known)) -> Result<()> {
        let _one = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut known) = self.get(name) else { return Ok(()) };
        change(&mut known);
        record(self, name, known)
    }

    /// Records what has been pushed.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn note_pushed(&self, name: &str, branch: &str, commit: &str) -> Result<()> {
        self.amend(name, |known| {
            if known.pushed.len() >= MAX_PUSHED && !known.pushed.contains_key(branch) {
                known.pushed.pop_first();
            }
            known.pushed.insert(branch.to_owned(), commit.to_owned());
        })
    }

    /// Where an agent works: in the main repository, without one in the only one, else in the workspace.
    pub(crate) fn working_directory(&self) -> PathBuf {
        let workspace = self.attempt.paths.workspace();
        let Ok(known) = self.known.read() else { return workspace };
        let main = known.iter().find(|(_, known)| known.role.main).map(|(name, _)| name);
        let only = || known.keys().next().filter(|_| known.len() == 1);
        let chosen = main.or_else(only).map(|name| workspace.join(name));
        chosen.filter(|place| missing(place).is_none()).unwrap_or(workspace)
    }
}

/// Where a repository is pushed to at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) repo: String,
    /// The repository that takes it.
    pub(crate) url: String,
    pub(crate) branch: String,
}

/// All repositories. Those still being examined when the time is up are reported with a notice instead of their branch.
pub(crate) async fn list(repos: &Repos) -> Vec<RepoStatus> {
    let deadline = Instant::now() + LIST_PATIENCE;
    let mut list = Vec::new();
    for name in repos.names() {
        let Some(known) = repos.get(&name) else { continue };
        list.push(standing(repos, &name, known, deadline).await);
    }
    list
}

/// Clones a repository, unless it exists.
///
/// # Errors
/// Bad input; a conflict with another repository or file of that name; git's.
pub(crate) async fn put(repos: &Repos, name: &str, spec: &RepoSpec) -> Result<RepoStatus> {
    check_name("name", name)?;
    spec.branch.as_deref().map(|branch| check_branch("branch", branch)).transpose()?;
    check_output(&repos.attempt, spec)?;
    let origin = origin::open(&repos.attempt, &spec.url)?;
    let _one = repos.change.lock().await;
    let place = repos.attempt.paths.workspace().join(name);
    let there = place.symlink_metadata().is_ok();
    match repos.get(name) {
        Some(known) if there && known.url == spec.url => {
            repos.directory(name)?;
            let as_asked = known.submodules == spec.submodules;
            let role = Role::of(spec);
            if known.role != role {
                repos.amend(name, |known| known.role = role)?;
            }
            let mut status = status(repos, name).await?;
            if !as_asked {
                let notice = "its submodules are as they were asked for when it was cloned: remove it and add it again";
                status.notices.push(notice.to_owned());
            }
            return Ok(status);
        }
        Some(known) if there => {
            return Err(Error::Conflict(format!("repository '{name}' is a clone of {}", known.url)));
        }
        None if there => return Err(Error::Conflict(format!("the workspace has something else named '{name}'"))),
        _ if repos.names().len() >= MAX_REPOS => {
            return Err(Error::Conflict(format!("a session has at most {MAX_REPOS} repositories")));
        }
        _ => {}
    }
    let (clone, known) = clone(repos, name, spec, &origin).await?;
    let notices = known.notices.clone();
    // The record first: a directory without one would belong to nobody.
    record(repos, name, known)?;
    if let Err(error) = std::fs::rename(&clone, &place) {
        // Otherwise whatever has appeared there meanwhile would pass for the clone.
        forget(repos, name).await?;
        remove_tree(clone).await.ok();
        return Err(Error::Conflict(format!("the clone cannot be moved into the workspace as '{name}': {error}")));
    }
    if !notices.is_empty() {
        let told = RunnerEvent::RepoNotices { repo: name.to_owned(), notices };
        repos.tell(told).await?;
    }
    status(repos, name).await
}

/// A fork that cannot be opened is told now, not when the work is done.
fn check_output(attempt: &Attempt, spec: &RepoSpec) -> Result<()> {
    const TARGET: &str = "output.target_repo";
    let RepoOutput { push_to, target_repo, target_branch } = &spec.output;
    target_branch.as_deref().map(|branch| check_branch("output.target_branch", branch)).transpose()?;
    match (push_to, target_repo) {
        (PushTo::None, _) if spec.auto_push => Err(Error::bad("auto_push", "is for repositories that are pushed")),
        _ if spec.auto_push && target_branch.is_none() => {
            Err(Error::bad("output.target_branch", "is missing: it is pushed automatically"))
        }
        (PushTo::Fork, None) => Err(Error::bad(TARGET, "is missing: it is pushed to a fork")),
        (PushTo::Fork, Some(url)) => origin::open(attempt, url).map(drop).map_err(|error| match error {
            Error::BadInput { reason, .. } => Error::bad(TARGET, format!("output.target_repo: {reason}")),
            other => other,
        }),
        _ => Ok(()),
    }
}

async fn clone(repos: &Repos, name: &str, spec: &RepoSpec, origin: &origin::Origin) -> Result<(PathBuf, Known)> {
    let mirror = Mirror::create(&repos.attempt, name, origin, spec.branch.as_deref()).await?;
    let made = async {
        let base = mirror.start().await?;
        let lfs = large_files::prepare(&repos.attempt, &mirror, origin, base.as_deref()).await?;
        let clone = clone_of(&repos.attempt, &mirror, &origin.text).await?;
        let mut notices = Vec::new();
        let mut modules = Vec::new();
        let how = spec.submodules;
        match base.as_deref() {
            None => notices.push("the origin is empty: it has no branch and no commit yet".to_owned()),
            Some(base) if how.is_none() => {
                if mirror.has_submodules(base).await? {
                    let notice = "submodules were not fetched, so their folders are empty; ask for them with submodules \
                                  (--submodules)";
                    notices.push(notice.to_owned());
                }
            }
            Some(base) => {
                let repository = submodules::Repository { attempt: &repos.attempt, name, how, clone: &clone };
                let added = submodules::add(repository, &mirror, &origin.text, base).await;
                (modules, notices) = (added.modules, added.notices);
            }
        }
        notices.extend(large_files::check_out(&repos.attempt, &clone, &lfs).await);
        notices.extend(lfs.notices);
        let known = Known { notices, modules, ..Known::cloned(origin.text.clone(), spec, base) };
        Ok((clone, known))
    };
    let made = made.await;
    if made.is_err() {
        mirror::remove(&repos.attempt, name).await.ok();
    }
    made
}

/// The workspace's repository, created by the agent's git from the mirror, whose objects it borrows.
async fn clone_of(attempt: &Attempt, mirror: &Mirror<'_>, url: &str) -> Result<PathBuf> {
    let id = life::random_id().map_err(|e| Error::io("no random number", &e))?;
    let clone = attempt.paths.tmp().join(format!("clone-{id}"));
    let (source, target) = (mirror.path().to_string_lossy(), clone.to_string_lossy());
    let how = ["clone", "--quiet", "--shared", "--template=", "--no-recurse-submodules", "--origin=origin", "--"];
    let git = Git::agents(attempt, attempt.paths.tmp()).patience(CLONE_PATIENCE).variable("GIT_ALLOW_PROTOCOL", "file");
    let made = async {
        git.run(&[&how[..], &[&source, &target]].concat()).await?;
        // For people to read. None of our code does.
        Git::agents(attempt, &clone).run(&["config", "remote.origin.url", url]).await
    };
    if let Err(error) = made.await {
        remove_tree(clone.clone()).await.ok();
        return Err(error.into());
    }
    Ok(clone)
}

/// Removes a repository; one that is gone is fine.
///
/// # Errors
/// Bad input; a system error.
pub(crate) async fn delete(repos: &Repos, name: &str) -> Result<()> {
    check_name("name", name)?;
    let _one = repos.change.lock().await;
    let _none = repos.pushing.lock().await;
    if repos.get(name).is_none() {
        return Ok(());
    }
    let io = |e: std::io::Error| Error::io("cannot remove the repository", &e);
    let id = life::random_id().map_err(io)?;
    let (place, aside) =
        (repos.attempt.paths.workspace().join(name), repos.attempt.paths.tmp().join(format!("removed-{id}")));
    match std::fs::rename(&place, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    forget(repos, name).await?;
    // A snapshot or the agent may still be writing there. What stays goes with the next launch, which empties this folder.
    for _ in 0..REMOVALS {
        match remove_tree(aside.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::info!(%error, repo = name, "files of a removed repository are still in use"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Removes the record of a repository, and its mirrors.
async fn forget(repos: &Repos, name: &str) -> Result<()> {
    let io = |e: std::io::Error| Error::io("cannot remove the repository", &e);
    let file = repos.attempt.paths.repos().join(format!("{name}.json"));
    {
        let _one = repos.recording.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::remove_file(file).map_err(io)?;
        if let Ok(mut known) = repos.known.write() {
            known.remove(name);
        }
    }
    remove_tree(vault::place(&repos.attempt, name)).await.map_err(io)?;
    mirror::remove(&repos.attempt, name).await.map_err(io)
}

/// State of one repository.
///
/// # Errors
/// Not found; git's.
pub(crate) async fn status(repos: &Repos, name: &str) -> Result<RepoStatus> {
    let (_, known) = repos.directory(name)?;
    Ok(standing(repos, name, known, Instant::now() + LIST_PATIENCE).await)
}

/// What the agent has done to one repository does not affect the others.
async fn standing(repos: &Repos, name: &str, known: Known, deadline: Instant) -> RepoStatus {
    let mut notices = known.notices;
    let directory = repos.attempt.paths.workspace().join(name);
    let missing = missing(&directory);
    let (branch, head) = match missing {
        Some(how) => {
            notices.push(format!("its folder {how}"));
            (None, None)
        }
        None => {
            let late = || Error::Conflict(format!("there was no answer within {} s", LIST_PATIENCE.as_secs()));
            let position = timeout_at(deadline, position(&repos.attempt, &directory)).await;
            position.unwrap_or_else(|_| Err(late())).unwrap_or_else(|error| {
                notices.push(format!("it cannot be read as a repository: {error}"));
                (None, None)
            })
        }
    };
    let (url, base, cloned_at) = (known.url, known.base, known.cloned_at);
    RepoStatus { name: name.to_owned(), url, branch, head, base, cloned_at, missing: missing.is_some(), notices }
}

/// Checked-out branch and commit.
///
/// # Errors
/// Git's.
pub(crate) async fn position(attempt: &Attempt, directory: &Path) -> Result<(Option<String>, Option<String>)> {
    let branch = Git::repository(attempt, directory).maybe(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
    let head = Git::repository(attempt, directory).maybe(&HEAD).await?;
    head.as_deref().map(check_object).transpose()?;
    Ok((branch, head))
}

fn record(repos: &Repos, name: &str, known: Known) -> Result<()> {
    let file = repos.attempt.paths.repos().join(format!("{name}.json"));
    life::write_record(&file, &known).map_err(|e| Error::io("cannot record the repository", &e))?;
    if let Ok(mut all) = repos.known.write() {
        all.insert(name.to_owned(), known);
    }
    Ok(())
}

/// How a repository's directory is missing. A link to one does not count.
fn missing(path: &Path) -> Option<&'static str> {
    match path.symlink_metadata() {
        Ok(about) if about.is_dir() => None,
        Ok(_) => Some("is not there any more: something else has its name"),
        Err(_) => Some("is not there any more: it was removed or renamed"),
    }
}
