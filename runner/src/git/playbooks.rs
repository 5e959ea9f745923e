//! The session's playbook: mirrored like a repository, read from its commit, and checked out where the agent can read and not write.
//!
//! A new one takes the place of the old one in one step, when all of it is there: by the record that names its folders.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ambient_runner_protocol::{PlaybookStatus, SessionPaths};
use ambient_wire::playbook::{Playbook as Wanted, ReconciledPlaybook};
use chrono::Utc;
use tokio::sync::Mutex;

use super::{
    check_branch,
    command::{Git, GitError},
    directory::Directory,
    mirror::{self, Mirror, remove_tree},
    origin,
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    life,
    playbook::{Files, Playbook, Read},
};

/// Beginning of the names of its folders among the mirrors. No repository's begins with a dot.
const FOLDERS: &str = ".playbook-";
/// Largest file that is read, and most of them in a folder, bytes.
const MAX_FILE: u64 = 64 * 1024;
const MAX_FILES: usize = 100;
/// Most that is checked out, bytes: it does not count towards the session's limit on disk.
const MAX_CHECKED_OUT: u64 = 256 << 20;
/// Longest list of all that is checked out, bytes: some 100,000 files.
const MAX_ALL: usize = 8 << 20;
/// Longest list of a folder, bytes.
const MAX_LIST: usize = 256 * 1024;
/// Of a list of all files; that of 100,000 takes less than a second.
const LIST: Duration = Duration::from_secs(10);
/// From the mirror, so the files are what takes time.
const CHECK_OUT: Duration = Duration::from_secs(60);

/// The playbook in effect.
pub(crate) struct Playbooks {
    attempt: Arc<Attempt>,
    current: RwLock<Option<Arc<Playbook>>>,
    /// One change at a time; and what was in effect before the last one. The turn that is under way may still read its files.
    change: Mutex<Option<Arc<Playbook>>>,
}

impl Playbooks {
    /// Reads what is recorded, and removes what no record names.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn open(attempt: Arc<Attempt>) -> std::io::Result<Self> {
        let current = match std::fs::read(record(&attempt.paths)) {
            Ok(text) => Some(serde_json::from_slice::<Playbook>(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let in_use = current.as_ref().and_then(|playbook| id_of(&playbook.folder));
        for entry in std::fs::read_dir(attempt.paths.mirrors())? {
            let path = entry?.path();
            let id = path.to_str().and_then(id_of);
            if id.is_some() && id != in_use {
                ambient_removal::remove_tree(&path)?;
            }
        }
        Ok(Self { attempt, current: RwLock::new(current.map(Arc::new)), change: Mutex::new(None) })
    }

    pub(crate) fn current(&self) -> Option<Arc<Playbook>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn replace(&self, before: &mut Option<Arc<Playbook>>, new: Option<Arc<Playbook>>) {
        let old = std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), new);
        if let Some(stale) = std::mem::replace(before, old) {
            self.remove(&stale).await;
        }
    }

    async fn remove(&self, playbook: &Playbook) {
        let Some(id) = id_of(&playbook.folder) else { return };
        // What cannot be removed now goes with the next launch.
        for folder in [tree(&self.attempt.paths, id), mirror::place(&self.attempt, &name(id))] {
            if let Err(error) = remove_tree(folder).await {
                tracing::info!(%error, "files of an earlier playbook are still in use");
            }
        }
    }
}

fn name(id: &str) -> String {
    format!("{FOLDERS}{id}")
}

fn tree(paths: &SessionPaths, id: &str) -> PathBuf {
    paths.mirrors().join(format!("{FOLDERS}{id}.tree"))
}

fn record(paths: &SessionPaths) -> PathBuf {
    paths.repos().join(".playbook")
}

/// The id in the path of one of its folders, or of something beneath.
fn id_of(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once(&format!("/mirrors/{FOLDERS}"))?;
    rest.split(['.', '/']).next()
}

/// Takes a playbook into effect, from the next turn on; one that is in effect stays as it is.
///
/// # Errors
/// Bad input; git's; it cannot be used. What was in effect stays so.
pub(crate) async fn put(playbooks: &Playbooks, wanted: &Wanted) -> Result<PlaybookStatus> {
    let mut before = playbooks.change.lock().await;
    let is_there = |current: &Arc<Playbook>| is(&current.reconciled, wanted) && Path::new(&current.folder).is_dir();
    if let Some(current) = playbooks.current().filter(is_there) {
        return Ok(status(&current));
    }
    let attempt = &playbooks.attempt;
    wanted.branch.as_deref().map(|branch| check_branch("branch", branch)).transpose()?;
    let origin = origin::open(attempt, &wanted.git_url).map_err(|error| match error {
        Error::BadInput { reason, .. } => Error::bad("git_url", reason),
        other => other,
    })?;
    let id = life::random_id().map_err(|e| Error::io("no random number", &e))?;
    let mirror = Mirror::create(attempt, &name(&id), &origin, wanted.branch.as_deref()).await?;
    let made = async {
        let playbook = make(&mirror, wanted, &id).await?;
        life::write_record(&record(&attempt.paths), &playbook)
            .map_err(|e| Error::io("cannot record the playbook", &e))?;
        Ok(Arc::new(playbook))
    };
    match made.await {
        Ok(playbook) => {
            let status = status(&playbook);
            playbooks.replace(&mut before, Some(playbook)).await;
            Ok(status)
        }
        Err(error) => {
            remove_tree(tree(&attempt.paths, &id)).await.ok();
            mirror::remove(attempt, &name(&id)).await.ok();
            Err(error)
        }
    }
}

/// Ends the effect of a playbook; fine if there is none.
///
/// # Errors
/// A system error.
pub(crate) async fn clear(playbooks: &Playbooks) -> Result<()> {
    let mut before = playbooks.change.lock().await;
    match std::fs::remove_file(record(&playbooks.attempt.paths)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("cannot remove the playbook", &error));
        }
        _ => {}
    }
    playbooks.replace(&mut before, None).await;
    Ok(())
}

fn is(reconciled: &ReconciledPlaybook, wanted: &Wanted) -> bool {
    let ReconciledPlaybook { git_url, branch, path, .. } = reconciled;
    (git_url, branch, path) == (&wanted.git_url, &wanted.branch, &wanted.path)
}

fn status(playbook: &Playbook) -> PlaybookStatus {
    PlaybookStatus { reconciled: playbook.reconciled.clone(), metadata: playbook.metadata.clone() }
}

async fn make(mirror: &Mirror<'_>, wanted: &Wanted, id: &str) -> Result<Playbook> {
    let commit = mirror.start().await?.ok_or_else(|| Error::Conflict("the repository is empty".to_owned()))?;
    let look = Look { mirror, commit: &commit };
    look.check_size().await?;
    let path = wanted.path.as_str();
    if !path.is_empty() && look.kind(path).await?.as_deref() != Some("tree") {
        return Err(Error::bad("path", format!("the repository has no folder '{path}'")));
    }
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    let files = Files {
        config: look.config(&within(".ambient/ambient.json")).await?,
        commands: look.texts(&within(".claude/commands")).await?,
        agents: look.texts(&within(".claude/agents")).await?,
    };
    let folder = check_out(mirror, &commit, id).await?.join(path);
    let reconciled = ReconciledPlaybook {
        git_url: wanted.git_url.clone(),
        branch: wanted.branch.clone(),
        path: wanted.path.clone(),
        commit,
        reconciled_at: Utc::now(),
    };
    Playbook::of(folder.to_string_lossy().into_owned(), reconciled, files).map_err(Error::Conflict)
}

/// The commit's files, by our own git: it executes nothing of the repository's, and follows no link of its own making.
async fn check_out(mirror: &Mirror<'_>, commit: &str, id: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let io = |e: std::io::Error| Error::io("cannot check the playbook out", &e);
    let tree = tree(&mirror.attempt.paths, id);
    std::fs::DirBuilder::new().mode(0o755).create(&tree).map_err(io)?;
    std::fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o755)).map_err(io)?;
    let place = Directory::open(&tree).map_err(io)?;
    let git = mirror.git(true, vec![place.pinned(true)]).variable("GIT_WORK_TREE", &place.path);
    let git = git.setting("core.bare", "false").patience(CHECK_OUT).bounded(MAX_CHECKED_OUT);
    git.run(&["read-tree", "-u", "--reset", commit]).await?;
    Ok(tree)
}

/// Looks at a commit in a mirror.
struct Look<'a> {
    mirror: &'a Mirror<'a>,
    commit: &'a str,
}

/// An entry of a folder.
struct Entry {
    mode: String,
    object: String,
    bytes: Option<u64>,
    path: Vec<u8>,
}

impl Look<'_> {
    fn git(&self) -> Git<'_> {
        self.mirror.git(false, Vec::new())
    }

    /// Checks that all of it can be checked out. A small repository may have folders that contain themselves many times over.
    async fn check_size(&self) -> Result<()> {
        let list = self.git().most(MAX_ALL).patience(LIST);
        let output = match list.cut(&["ls-tree", "-r", "-z", "-l", self.commit]).await {
            Ok((output, false)) => output,
            // What is not listed in time goes on for very long.
            Ok((_, true)) | Err(GitError::TimedOut { .. }) => {
                let why = format!("the repository has too many files: their list has more than {MAX_ALL} bytes");
                return Err(Error::TooLarge(why));
            }
            Err(error) => return Err(error.into()),
        };
        let bytes: u64 = output.split(|byte| *byte == 0).filter_map(|line| entry(line)?.bytes).sum();
        if bytes > MAX_CHECKED_OUT {
            return Err(Error::TooLarge(format!("the repository's files have more than {MAX_CHECKED_OUT} bytes")));
        }
        Ok(())
    }

    /// `tree`, `blob`, …; none if there is nothing.
    async fn kind(&self, path: &str) -> Result<Option<String>> {
        let entries = self.list(path).await?;
        let entry = entries.into_iter().find(|entry| entry.path == path.as_bytes());
        Ok(entry.map(|entry| if entry.mode == "040000" { "tree".to_owned() } else { "other".to_owned() }))
    }

    /// What is at a path; with a slash at its end, what is in it.
    async fn list(&self, path: &str) -> Result<Vec<Entry>> {
        let arguments = ["--literal-pathspecs", "ls-tree", "-z", "-l", self.commit, "--", path];
        let (output, cut) = self.git().most(MAX_LIST).cut(&arguments).await?;
        if cut {
            return Err(Error::TooLarge(format!("the list of files in '{path}' has more than {MAX_LIST} bytes")));
        }
        Ok(output.split(|byte| *byte == 0).filter_map(entry).collect())
    }

    async fn config(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let found = self.list(path).await?.into_iter().find(|entry| entry.path == path.as_bytes());
        let Some(entry) = found else { return Ok(None) };
        self.content(&entry).await?.map(Some).map_err(|why| Error::Conflict(format!("{path}: {why}")))
    }

    /// Markdown files directly in a folder.
    async fn texts(&self, folder: &str) -> Result<Vec<Read>> {
        let beginning = format!("{folder}/");
        let mut read = Vec::new();
        for entry in self.list(&beginning).await? {
            let Some(name) = entry.path.strip_prefix(beginning.as_bytes()).filter(|name| name.ends_with(b".md")) else {
                continue;
            };
            if read.len() == MAX_FILES {
                return Err(Error::TooLarge(format!("'{folder}' has more than {MAX_FILES} files")));
            }
            read.push(Read { name: name.to_vec(), content: self.content(&entry).await? });
        }
        Ok(read)
    }

    /// Its bytes, or why they are not read.
    async fn content(&self, entry: &Entry) -> Result<std::result::Result<Vec<u8>, String>> {
        match (entry.mode.as_str(), entry.bytes) {
            ("100644" | "100755", Some(bytes)) if bytes <= MAX_FILE => {
                Ok(Ok(self.git().run(&["cat-file", "blob", &entry.object]).await?))
            }
            ("100644" | "100755", _) => Ok(Err(format!("it has more than {MAX_FILE} bytes"))),
            _ => Ok(Err("it is no file".to_owned())),
        }
    }
}

/// Of `100644 blob 0a1b…     12\tname`.
fn entry(line: &[u8]) -> Option<Entry> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let head = std::str::from_utf8(&line[..tab]).ok()?;
    let mut words = head.split_ascii_whitespace();
    let (mode, _, object) = (words.next()?.to_owned(), words.next()?, words.next()?.to_owned());
    Some(Entry { mode, object, bytes: words.next().and_then(|size| size.parse().ok()), path: line[tab + 1..].to_vec() })
}
