//! Files that a repository keeps with Git LFS: pointers in the repository, content next to it.
//!
//! What talks to an origin is a re-execution of this program ([`crate::lfs::program`]) with the rights that git has for it: on the mirror, and on
//! a `file://` origin's folder. Where it goes follows from the origin's URL alone; `.lfsconfig` and the agent's configuration
//! have no influence. Content is stored in the mirror, matches its hash, and is borrowed from there by git-lfs in the workspace,
//! which runs as the agent and finds it through the clone's alternates. At a push, content comes from the agent's repository as
//! commits do: written with the agent's rights, checked and taken in by ours.

mod pointers;

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use self::pointers::Pointers;
use super::{
    command::{Git, GitError},
    directory::Directory,
    mirror::Mirror,
    origin::Origin,
    quoted_for_shell,
};
use crate::{
    attempt::Attempt,
    environment::DEFAULT_PATH,
    error::{Error, Result},
    lfs::{
        pointer::Object,
        program::{self, FETCH, GIVE, LACKS, Order, PROGRAM, Place, Report, SEND, TAKE},
        store::Store,
    },
};

/// Less than the server waits for a clone.
const PATIENCE: Duration = Duration::from_secs(240);
/// Most objects per clone or push.
const MAX_OBJECTS: usize = 10_000;
/// Most content per clone or push, bytes.
const MAX_CONTENT: u64 = 4 << 30;
/// How many copies of content a session keeps: mirror, the agent's repository, working tree.
const COPIES: u64 = 3;
/// Most files that are named.
const MAX_NAMED: usize = 3;

/// What a clone should do.
pub(super) struct Prepared {
    /// git-lfs for the agent, if it is installed and the repository needs it.
    git_lfs: Option<PathBuf>,
    /// Remarks, in words.
    pub(super) notices: Vec<String>,
}

/// Fetches the content of a commit's files into the mirror. What cannot be fetched is reported, and fails nothing.
///
/// # Errors
/// Git's; a system error.
pub(super) async fn prepare(
    attempt: &Attempt,
    mirror: &Mirror<'_>,
    origin: &Origin,
    commit: Option<&str>,
) -> Result<Prepared> {
    let mut prepared = Prepared { git_lfs: None, notices: Vec::new() };
    let Some(commit) = commit else { return Ok(prepared) };
    // Exit code 1: no such line. What an attributes file says about a filter is a line.
    let uses =
        ["grep", "--quiet", "-I", "--fixed-strings", "-e", "filter=lfs", commit, "--", ":(glob)**/.gitattributes"];
    if mirror.git(false, Vec::new()).patience(PATIENCE).maybe(&uses).await?.is_none() {
        return Ok(prepared);
    }
    prepared.git_lfs = git_lfs(attempt).await;
    let scratch = mirror.directory_in(".").map_err(|e| Error::io("cannot open the mirror", &e))?;
    let git = mirror.git(true, Vec::new()).patience(PATIENCE);
    let pointers = match pointers::of_commit(&git, &scratch, commit).await {
        Ok(pointers) => pointers,
        Err(error) => {
            prepared.notices.push(format!("files kept with Git LFS are here as pointers: {error}"));
            return Ok(prepared);
        }
    };
    if pointers.is_empty() {
        return Ok(prepared);
    }
    if prepared.git_lfs.is_none() {
        prepared.notices.push(format!(
            "files kept with Git LFS ({}) are here as pointers: git-lfs is not installed on the machine of this session. Install it, \
             then remove the repository and add it again",
            pointers.len()
        ));
        return Ok(prepared);
    }
    let failed = fetch(mirror, origin, &pointers).await;
    prepared.notices.extend(lacking(&pointers, &failed));
    Ok(prepared)
}

/// Fetches; returns the objects that are then missing, with reasons.
async fn fetch(mirror: &Mirror<'_>, origin: &Origin, pointers: &Pointers) -> Vec<(Object, String)> {
    let disk = match mirror.attempt.spec.limits.disk_bytes {
        0 => MAX_CONTENT,
        limit => MAX_CONTENT.min(limit / COPIES),
    };
    let largest = match mirror.attempt.spec.limits.file_size_bytes {
        0 => disk,
        limit => disk.min(limit),
    };
    let (mut wanted, mut left, mut failed) = (Vec::new(), disk, Vec::new());
    for object in pointers.keys() {
        if wanted.len() == MAX_OBJECTS {
            failed.push((object.clone(), format!("more than {MAX_OBJECTS} are not fetched")));
        } else if object.size > left.min(largest) {
            failed.push((object.clone(), format!("more than {} bytes are not fetched", left.min(largest))));
        } else {
            left -= object.size;
            wanted.push(object.clone());
        }
    }
    let (others, stopped) = match ask(mirror, origin, FETCH, None, wanted.clone()).await {
        Ok(Report { failed, stopped, .. }) => (failed, stopped),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    // What has arrived is there, whatever became of the rest.
    let missing = absent(mirror, &wanted).unwrap_or(wanted);
    let why = |object: &Object| others.iter().find(|(known, _)| known == object).map(|(_, why)| why.clone());
    let stopped = stopped.unwrap_or_else(|| "it did not come".to_owned());
    failed.extend(missing.into_iter().map(|object| {
        let why = why(&object).unwrap_or_else(|| stopped.clone());
        (object, why)
    }));
    failed
}

fn lacking(pointers: &Pointers, failed: &[(Object, String)]) -> Option<String> {
    if failed.is_empty() {
        return None;
    }
    let (all, some) = (pointers.len(), failed.len());
    Some(format!("of {all} files kept with Git LFS {some} are here as pointers: {}", named(pointers, failed)))
}

/// Some of them, with reasons.
fn named(pointers: &Pointers, failed: &[(Object, String)]) -> String {
    let name = |(object, why): &(Object, String)| {
        let path = pointers.get(object).map(|path| String::from_utf8_lossy(path).into_owned()).unwrap_or_default();
        format!("{path}: {why}")
    };
    let shown: Vec<_> = failed.iter().take(MAX_NAMED).map(name).collect();
    let more = failed.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

/// Has the program do something between the origin and the mirror.
async fn ask(
    mirror: &Mirror<'_>,
    origin: &Origin,
    task: &str,
    reference: Option<&str>,
    objects: Vec<Object>,
) -> Result<Report> {
    let pinned = if task == SEND { origin.writable() } else { origin.readable() };
    let place =
        origin.folder().map_or_else(|| Place::Https(origin.url.clone()), |folder| Place::Folder(folder.to_owned()));
    let order = Order { origin: place, reference: reference.map(str::to_owned), objects };
    let order = serde_json::to_vec(&order).map_err(|e| Error::Internal(e.to_string()))?;
    let git = mirror.git(true, pinned).patience(PATIENCE).program(OsStr::new(PROGRAM)).input(order);
    let report = git.run(&[task]).await?;
    serde_json::from_slice(&report).map_err(|e| Error::Git(format!("{task} gave a malformed report: {e}")))
}

/// git-lfs on the search path from the session's variables, else on the system's, if the agent can run it.
async fn git_lfs(attempt: &Attempt) -> Option<PathBuf> {
    let path = attempt.environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    for place in path.split(':').filter(|place| place.starts_with('/')) {
        let program = Path::new(place).join("git-lfs");
        if program.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0) {
            let git = Git::agents(attempt, attempt.paths.workspace()).program(program.as_os_str());
            match git.text(&["version"]).await {
                Ok(_) => return Some(program),
                Err(error) => tracing::info!(%error, program = %program.display(), "git-lfs cannot be used"),
            }
        }
    }
    None
}

/// Replaces pointers with content in a clone of the agent's, by git-lfs as the agent, and registers git-lfs with git
/// there; returns what went wrong, in words.
pub(super) async fn check_out(attempt: &Attempt, clone: &Path, prepared: &Prepared) -> Option<String> {
    let program = prepared.git_lfs.as_ref()?;
    let done = async {
        let quoted = quoted_for_shell(program);
        for (key, value) in [
            ("filter.lfs.clean", format!("{quoted} clean -- %f")),
            ("filter.lfs.smudge", format!("{quoted} smudge -- %f")),
            ("filter.lfs.process", format!("{quoted} filter-process")),
            ("filter.lfs.required", "true".to_owned()),
            // What is not there stays a pointer when other commits are checked out.
            ("lfs.skipdownloaderrors", "true".to_owned()),
        ] {
            Git::agents(attempt, clone).run(&["config", key, &value]).await?;
        }
        Git::agents(attempt, clone).patience(PATIENCE).program(program.as_os_str()).run(&["checkout"]).await
    };
    done.await.err().map(|error| format!("files kept with Git LFS are not all in place: {error}"))
}

/// What a push brings besides commits.
pub(super) struct Publication<'a> {
    pub(super) mirror: &'a Mirror<'a>,
    pub(super) origin: &'a Origin,
    /// Full name of the branch.
    pub(super) reference: &'a str,
    pub(super) commit: &'a str,
    /// Where the branch is.
    pub(super) expected: Option<&'a str>,
    /// The agent's repository.
    pub(super) workspace: &'a Path,
}

impl Publication<'_> {
    /// Uploads the content that the new commits refer to and the origin lacks: before the commits, so that none there refers to
    /// content that nobody has. `git` sees the commits, and may write in `scratch`.
    ///
    /// # Errors
    /// A conflict that names the files whose content is unavailable; git's.
    pub(super) async fn carry_out(&self, git: &Git<'_>, scratch: &Directory) -> Result<()> {
        let pointers = pointers::of_push(git, scratch, self.commit, self.expected).await?;
        if pointers.is_empty() {
            return Ok(());
        }
        let content: u64 = pointers.keys().fold(0, |sum, object| sum.saturating_add(object.size));
        if pointers.len() > MAX_OBJECTS || content > MAX_CONTENT {
            return Err(Error::Conflict(format!(
                "the commits bring {} files kept with Git LFS of {content} bytes: at most {MAX_OBJECTS} of {MAX_CONTENT} bytes \
                 go with a push",
                pointers.len()
            )));
        }
        let lacking = self.ask(LACKS, pointers.keys().cloned().collect(), &pointers).await?;
        if lacking.is_empty() {
            return Ok(());
        }
        self.take_in(&lacking, &pointers).await?;
        self.ask(SEND, lacking, &pointers).await.map(drop)
    }

    /// Nothing may fail here.
    async fn ask(&self, task: &str, objects: Vec<Object>, pointers: &Pointers) -> Result<Vec<Object>> {
        let refuse = |why: String| {
            Error::Conflict(format!("files kept with Git LFS cannot be uploaded, so nothing is pushed: {why}"))
        };
        let report = ask(self.mirror, self.origin, task, Some(self.reference), objects).await?;
        match report {
            Report { stopped: Some(why), .. } => Err(refuse(why)),
            Report { failed, .. } if !failed.is_empty() => Err(refuse(named(pointers, &failed))),
            Report { done, .. } => Ok(done),
        }
    }

    /// From the agent's repository into the mirror, what the mirror lacks.
    async fn take_in(&self, objects: &[Object], pointers: &Pointers) -> Result<()> {
        let missing = absent(self.mirror, objects)?;
        if missing.is_empty() {
            return Ok(());
        }
        let attempt = self.mirror.attempt;
        let asked: String = missing.iter().map(program::line).collect();
        let give = Git::agents(attempt, self.workspace).patience(PATIENCE).program(OsStr::new(PROGRAM)).input(asked);
        let take =
            self.mirror.git(true, Vec::new()).patience(PATIENCE).bounded(MAX_CONTENT).program(OsStr::new(PROGRAM));
        match give.pipe(&[GIVE], take, &[TAKE]).await {
            Ok(()) => {}
            Err(GitError::Failed { stderr, .. }) => {
                let why =
                    format!("content of Git LFS cannot be taken from the workspace, so nothing is pushed: {stderr}");
                return Err(Error::Conflict(why));
            }
            Err(error) => return Err(error.into()),
        }
        let missing = absent(self.mirror, objects)?;
        if missing.is_empty() {
            return Ok(());
        }
        let why = |object: Object| (object, "neither the workspace nor the origin has it".to_owned());
        let missing: Vec<_> = missing.into_iter().map(why).collect();
        let named = named(pointers, &missing);
        Err(Error::Conflict(format!(
            "the content of files kept with Git LFS is missing, so nothing is pushed: {named}"
        )))
    }
}

/// Those that the mirror does not have.
fn absent(mirror: &Mirror<'_>, objects: &[Object]) -> Result<Vec<Object>> {
    let io = |e: std::io::Error| Error::io("cannot look into the mirror", &e);
    let Some(store) = Store::open(mirror.path()).map_err(io)? else { return Ok(objects.to_vec()) };
    let mut missing = Vec::new();
    for object in objects {
        if store.find(object).map_err(io)?.is_none() {
            missing.push(object.clone());
        }
    }
    Ok(missing)
}
