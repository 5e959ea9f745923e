//! The runner's own bare repository of an origin. It talks to the origin: the workspace's repository borrows its objects
//! and hands in commits as packs, and nothing in it is ever read by a git with more rights than the agent.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    FETCH, check_object,
    command::{Git, GitError},
    directory::Directory,
    origin::Origin,
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    rights::Pinned,
};

/// Together with the clone into the workspace it is less than the server waits for.
const CLONE_PATIENCE: Duration = Duration::from_secs(500);
/// Timeout for asking the origin where a branch is.
const LIST: Duration = Duration::from_secs(60);
/// Most branch names in a refusal.
const MAX_NAMED: usize = 20;

/// A mirror.
pub(crate) struct Mirror<'a> {
    pub(super) attempt: &'a Attempt,
    name: String,
    directory: Directory,
}

/// Where a mirror is.
pub(super) fn place(attempt: &Attempt, name: &str) -> PathBuf {
    attempt.paths.mirrors().join(format!("{name}.git"))
}

/// Mirrors of the submodules of a repository.
pub(super) fn of_submodules(attempt: &Attempt, repo: &str) -> PathBuf {
    attempt.paths.mirrors().join(format!("{repo}.modules"))
}

impl<'a> Mirror<'a> {
    /// Opens an existing one.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn open(attempt: &'a Attempt, name: &str) -> Result<Self> {
        let directory = Directory::open(&place(attempt, name)).map_err(|e| Error::io("cannot open the mirror", &e))?;
        Ok(Self { attempt, name: name.to_owned(), directory })
    }

    /// Opens an existing one, or creates it: sessions of earlier versions have none.
    ///
    /// # Errors
    /// Git's; a system error.
    pub(crate) async fn ensure(attempt: &'a Attempt, name: &str, origin: &Origin) -> Result<Self> {
        let there = place(attempt, name).join("HEAD").symlink_metadata().is_ok();
        if there { Self::open(attempt, name) } else { Self::create(attempt, name, origin, None).await }
    }

    /// Creates a new one from the origin, with its `HEAD` at `branch` or where the origin's is.
    ///
    /// # Errors
    /// Bad input; git's; a system error.
    pub(crate) async fn create(
        attempt: &'a Attempt,
        name: &str,
        origin: &Origin,
        branch: Option<&str>,
    ) -> Result<Self> {
        let mirror = Self::make(attempt, name).await?;
        let filled = mirror.fill(origin, branch).await;
        if filled.is_err() {
            remove_tree(place(attempt, name)).await.ok();
        }
        filled.map(|()| mirror)
    }

    /// Creates an empty folder for one.
    ///
    /// # Errors
    /// A system error.
    pub(super) async fn make(attempt: &'a Attempt, name: &str) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let place = place(attempt, name);
        remove_tree(place.clone()).await.map_err(|e| Error::io("cannot remove an earlier mirror", &e))?;
        let made = std::fs::DirBuilder::new().mode(0o755).create(&place);
        let open = || std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755));
        made.and_then(|()| open()).map_err(|e| Error::io("cannot make the mirror", &e))?;
        Self::open(attempt, name)
    }

    async fn fill(&self, origin: &Origin, branch: Option<&str>) -> Result<()> {
        let (upload, named) = (origin.upload_pack(), branch.map(|branch| format!("--branch={branch}")));
        let mut arguments = vec!["clone", "--quiet", "--bare", "--template=", "--origin=origin"];
        arguments.extend(upload.as_deref());
        arguments.extend(named.as_deref());
        arguments.extend(["--", &origin.url, "."]);
        let git = origin.allow(self.git(true, origin.readable())).patience(CLONE_PATIENCE);
        match git.run(&arguments).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal(error, branch)),
        }
    }

    /// The name by which it is opened again.
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory.path
    }

    /// Git in the mirror, with additional directories.
    pub(super) fn git(&self, write: bool, others: Vec<Pinned>) -> Git<'a> {
        let pinned = [self.directory.pinned(write)].into_iter().chain(others).collect();
        Git::tool(self.attempt, pinned)
    }

    /// Whether it has a commit.
    ///
    /// # Errors
    /// Git's.
    pub(super) async fn has(&self, commit: &str) -> Result<bool> {
        match self.git(false, Vec::new()).run(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).await {
            Ok(_) => Ok(true),
            Err(GitError::Failed { code: 1 | 128, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a branch of the origin is now; its history is in the mirror afterwards. None: the origin does not have it.
    ///
    /// # Errors
    /// Git's.
    pub(super) async fn fetch(&self, origin: &Origin, branch: &str, patience: Duration) -> Result<Option<String>> {
        let (reference, upload) = (format!("refs/heads/{branch}"), origin.upload_pack());
        let look = origin.allow(self.git(false, origin.readable())).patience(patience.min(LIST));
        let upload = upload.as_deref().into_iter().collect::<Vec<_>>();
        let arguments = [&["ls-remote", "--quiet"], &upload[..], &["--", &origin.url, &reference]].concat();
        let listed = look.text(&arguments).await?;
        let named = listed.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == reference);
        let Some((commit, _)) = named else { return Ok(None) };
        check_object(commit)?;
        if !self.has(commit).await? {
            // Only its objects: branches come and go at the origin, and old and new names may exclude each other.
            let fetch = origin.allow(self.git(true, origin.readable())).patience(patience);
            let arguments = [&FETCH[..], &upload, &["--", &origin.url, &reference]].concat();
            fetch.run(&arguments).await?;
        }
        Ok(Some(commit.to_owned()))
    }

    /// A directory in the mirror.
    pub(super) fn directory_in(&self, name: &str) -> std::io::Result<Directory> {
        self.directory.open_in(Path::new(name))
    }

    /// Whether a commit has submodules.
    ///
    /// # Errors
    /// Git's.
    pub(super) async fn has_submodules(&self, commit: &str) -> Result<bool> {
        let modules = ["ls-tree", "--name-only", commit, "--", ".gitmodules"];
        Ok(!self.git(false, Vec::new()).text(&modules).await?.is_empty())
    }

    /// The commit to start with: where the origin's `HEAD` (or the requested branch) is. None: it is empty.
    ///
    /// # Errors
    /// Bad input if the origin has branches but not the one that its `HEAD` names; git's.
    pub(crate) async fn start(&self) -> Result<Option<String>> {
        let head = ["rev-parse", "--verify", "--quiet", "--end-of-options", "HEAD^{commit}"];
        if let Some(commit) = self.git(false, Vec::new()).maybe(&head).await? {
            return Ok(Some(commit));
        }
        let branches = ["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"];
        let branches = self.git(false, Vec::new()).text(&branches).await?;
        if branches.is_empty() {
            return Ok(None);
        }
        let missing = self.git(false, Vec::new()).maybe(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
        let missing = missing.unwrap_or_else(|| "none".to_owned());
        let all: Vec<_> = branches.lines().collect();
        let more = if all.len() > MAX_NAMED { format!(" and {} more", all.len() - MAX_NAMED) } else { String::new() };
        let shown = all.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
        let reason = format!(
            "must be named: the repository's HEAD is at branch '{missing}', which it does not have; it has {shown}{more}"
        );
        Err(Error::bad("branch", reason))
    }
}

fn refusal(error: GitError, branch: Option<&str>) -> Error {
    let GitError::Failed { stderr, .. } = &error else { return error.into() };
    let about_branch = stderr.contains("Remote branch") && stderr.contains("not found");
    match branch {
        Some(branch) if about_branch => Error::bad("branch", format!("the repository has no branch '{branch}'")),
        _ if stderr.contains("does not exist") || stderr.contains("does not appear to be a git repository") => {
            Error::bad("url", format!("is not a git repository: {stderr}"))
        }
        _ => error.into(),
    }
}

/// Removes a mirror, and those of its submodules; one that is gone is fine.
///
/// # Errors
/// A system error.
pub(crate) async fn remove(attempt: &Attempt, name: &str) -> std::io::Result<()> {
    remove_tree(of_submodules(attempt, name)).await?;
    remove_tree(place(attempt, name)).await
}

/// Removes a tree or file; one that is gone is fine.
///
/// # Errors
/// A system error.
pub(super) async fn remove_tree(path: PathBuf) -> std::io::Result<()> {
    let removed = tokio::task::spawn_blocking(move || ambient_removal::remove_tree(&path));
    removed.await.map_err(std::io::Error::other)?
}
