//! From the workspace to the origin, or a fork of it: a commit comes in as a pack, is checked where only the mirror can be read, and is pushed from
//! there. What is reported afterwards is what the origin said.

use std::{path::Path, time::Duration};

use ambient_wire::{
    git::{GitPush, GitPushed, LeftOut},
    repo::PushTo,
    runner_event::RunnerEvent,
};
use tokio::time::timeout;

use super::{
    HISTORIC, check_branch,
    command::{Git, GitError, SIGNALLED, quoted},
    directory::Directory,
    elsewhere::Repository,
    known::Known,
    large_files::Publication,
    mirror::{Mirror, remove_tree},
    origin::{self, Origin},
    patch,
    repos::{self, Repos},
    submodules,
    working_tree::{Place, WorkingTree},
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    life,
    rights::Pinned,
};

const PATIENCE: Duration = Duration::from_secs(300);
/// Timeout for each git command, so that one that hangs is named.
const STEP: Duration = Duration::from_secs(240);
/// Timeout for checking what is not committed.
const LOOK: Duration = Duration::from_secs(20);
/// Largest pack that a push may bring, bytes.
const MAX_PACK: u64 = 2 << 30;
/// Prefix of folders where packs come in.
const INCOMING: &str = "incoming-";

/// `POST /git/push`: by hand, to any branch of the repository that its output names.
///
/// # Errors
/// As [`carry`].
pub(crate) async fn push(repos: &Repos, request: &GitPush) -> Result<GitPushed> {
    let GitPush { repo, branch } = request;
    let pushed = carry(repos, repo, branch, None).await?;
    // Whoever dies here has pushed without saying so; the next push does.
    if let Err(error) = repos.tell(RunnerEvent::RepoPushed { repo: repo.clone(), pushed: pushed.clone() }).await {
        tracing::warn!(%error, repo, "a push cannot be recorded");
    }
    Ok(pushed)
}

/// A commit, or else the one that is checked out, to a branch of the repository that its output names; never forced.
///
/// # Errors
/// Bad input; not found; a conflict if it is not to be pushed or the origin refuses; git's.
pub(crate) async fn carry(repos: &Repos, repo: &str, branch: &str, commit: Option<String>) -> Result<GitPushed> {
    let branch = check_branch("branch", branch)?;
    let attempt = &*repos.attempt;
    let _one = repos.pushing.lock().await;
    let (directory, known) = repos.directory(repo)?;
    // Opened again: what it was when it was cloned does not count.
    let origin = origin::open(attempt, destination(repo, &known)?)?;
    let commit = chosen(repos, &directory, commit).await?;
    // Before the push, and no reason against it.
    let place = Place::new(&directory, &known);
    let (uncommitted, left_out) = match timeout(LOOK, WorkingTree::outline(attempt, place, LOOK)).await {
        Ok(Ok(mut tree)) => (Some(tree.changes()), std::mem::take(&mut tree.left_out)),
        // The git that supplies the commits would hang too.
        Ok(Err(trap @ Error::Trap(_))) => return Err(trap),
        Ok(Err(_)) | Err(_) => (None, Vec::new()),
    };
    let work = async {
        let mirror = mirror_of(attempt, repo, &known, &origin).await?;
        let repository = Repository { attempt, directory: &directory, commit: &commit, pushed: &known.pushed };
        let behind = repository.left_behind(&mirror).await;
        let incoming = Incoming::make(&mirror).await?;
        let push =
            Push { mirror: &mirror, origin: &origin, branch, commit: &commit, incoming: &incoming, known: &known };
        let pushed = push.carry_out(&directory).await;
        if pushed.is_ok()
            && let Err(error) = incoming.keep(&mirror)
        {
            // The origin has it. The next push sends it once more.
            tracing::warn!(%error, repo, "what was pushed cannot be kept in the mirror");
        }
        incoming.remove().await;
        pushed.map(|taken| (taken, behind))
    };
    let pushed = timeout(PATIENCE, work).await;
    let too_late = || Error::Git(format!("the push took longer than {} s", PATIENCE.as_secs()));
    let (taken, behind) = pushed.unwrap_or_else(|_| Err(too_late()))?;
    if let Err(error) = repos.note_pushed(repo, branch, &commit) {
        // Another push may report that a branch is not pushed.
        tracing::warn!(%error, repo, "what was pushed cannot be recorded");
    }
    let (commits, created) = (taken.commits, taken.created);
    let notices = taken.notices(branch, &left_out).chain(behind).collect();
    Ok(GitPushed { url: origin.text, branch: branch.to_owned(), commit, commits, created, uncommitted, notices })
}

/// What a push would bring, for whoever is asked: the commit that is checked out is taken in and looked at where only the mirror can be read, so that
/// what is shown is what goes to the origin.
///
/// # Errors
/// As [`carry`].
pub(crate) async fn propose(repos: &Repos, repo: &str, branch: &str) -> Result<Proposal> {
    let branch = check_branch("branch", branch)?;
    let attempt = &*repos.attempt;
    let _one = repos.pushing.lock().await;
    let (directory, known) = repos.directory(repo)?;
    let origin = origin::open(attempt, destination(repo, &known)?)?;
    let commit = chosen(repos, &directory, None).await?;
    let work = async {
        let mirror = mirror_of(attempt, repo, &known, &origin).await?;
        let incoming = Incoming::make(&mirror).await?;
        let push =
            Push { mirror: &mirror, origin: &origin, branch, commit: &commit, incoming: &incoming, known: &known };
        let shown = push.show(&directory).await;
        incoming.remove().await;
        shown
    };
    let late = || Error::Git(format!("looking at what is to be pushed took longer than {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(late()))
}

async fn chosen(repos: &Repos, directory: &Path, commit: Option<String>) -> Result<String> {
    let commit = match commit {
        Some(commit) => Some(commit),
        None => repos::position(&repos.attempt, directory).await?.1,
    };
    commit.ok_or_else(|| Error::Conflict("there is no commit to push".to_owned()))
}

async fn mirror_of<'a>(attempt: &'a Attempt, repo: &str, known: &Known, origin: &Origin) -> Result<Mirror<'a>> {
    match known.role.output.push_to {
        PushTo::Fork => Mirror::ensure(attempt, repo, &origin::open(attempt, &known.url)?).await,
        PushTo::Same | PushTo::None => Mirror::ensure(attempt, repo, origin).await,
    }
}

/// URL of the repository that this one is pushed to.
///
/// # Errors
/// A conflict if it is not to be pushed.
pub(super) fn destination<'k>(repo: &str, known: &'k Known) -> Result<&'k str> {
    let never = || Error::Conflict(format!("repository '{repo}' is not pushed: its output.push_to is 'none'"));
    known.destination().ok_or_else(never)
}

/// What the origin accepted.
struct Taken {
    commits: u64,
    created: bool,
    /// Whether it shares nothing with the origin's history.
    is_unrelated: bool,
    /// Submodules at commits that their origins lack, with remarks on them.
    pointers: Vec<(String, String)>,
}

impl Taken {
    /// Remarks on it, and on submodules in the working tree.
    fn notices(self, branch: &str, left_out: &[LeftOut]) -> impl Iterator<Item = String> {
        let unrelated = format!("branch {branch} has no commit in common with what the origin had when it was cloned");
        let unrelated = self.is_unrelated.then_some(unrelated);
        let others = submodules::not_in_a_push(left_out, &self.pointers);
        unrelated.into_iter().chain(self.pointers.into_iter().map(|(_, notice)| notice)).chain(others)
    }
}

struct Push<'a> {
    mirror: &'a Mirror<'a>,
    origin: &'a Origin,
    branch: &'a str,
    commit: &'a str,
    incoming: &'a Incoming,
    known: &'a Known,
}

/// What a push would bring.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) commit: String,
    /// 0: the branch has the commit already.
    pub(crate) commits: u64,
    /// Their authors and messages, the newest first.
    pub(crate) log: Vec<u8>,
    /// Files that it changes, one to a line with a letter for how, as git names them.
    pub(crate) files: Vec<u8>,
    pub(crate) patch: Vec<u8>,
    /// Log, files or patch are only the start of longer ones.
    pub(crate) is_cut: bool,
}

/// Most bytes of a patch, and of a list of files or commits, that people are shown.
const MAX_SHOWN: usize = 48 * 1024;
const MAX_LISTED: usize = 12 * 1024;
/// Most commits that they are shown, and how.
const MOST_COMMITS: u64 = 50;
const LOG: [&str; 8] = [
    "log",
    "--max-count=50",
    "--no-show-signature",
    "--no-mailmap",
    "--no-notes",
    "--no-color",
    "--encoding=UTF-8",
    "--format=tformat:%h %an <%ae>%n%w(0,4,4)%B",
];

impl Push<'_> {
    async fn show(&self, workspace: &Path) -> Result<Proposal> {
        let (expected, is_there) = self.bring(workspace).await?;
        let commit = self.commit.to_owned();
        if is_there {
            let (log, files, patch) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(Proposal { commit, commits: 0, log, files, patch, is_cut: false });
        }
        let commits = self.count(expected.as_deref()).await?;
        let before = expected.as_deref().or(self.known.base.as_deref());
        let git = || self.checking(Vec::new());
        let without = expected.as_deref().unwrap_or("--all");
        let (log, cut_log) =
            git().most(MAX_LISTED).cut(&[&LOG[..], &[&commit, "--not", without, "--"]].concat()).await?;
        let (files, cut_files) = patch::since(git(), before, (&["--name-status"], &[&commit]), MAX_LISTED).await?;
        let (patch, cut_patch) = patch::since(git(), before, (&[], &[&commit]), MAX_SHOWN).await?;
        let is_cut = cut_log || cut_files || cut_patch || commits > MOST_COMMITS;
        Ok(Proposal { commits, log, files, patch, is_cut, commit })
    }

    /// Takes the commit in; the branch's tip at the origin, and whether that is the commit already.
    async fn bring(&self, workspace: &Path) -> Result<(Option<String>, bool)> {
        let expected = self.mirror.fetch(self.origin, self.branch, STEP).await?;
        if expected.as_deref() == Some(self.commit) {
            return Ok((expected, true));
        }
        if !self.is_whole(expected.as_deref()).await? {
            self.take_in(workspace, expected.as_deref()).await?;
            if !self.is_whole(expected.as_deref()).await? {
                let reason =
                    "the commit's history is not whole: objects are missing that the origin does not have either";
                return Err(Error::Conflict(reason.to_owned()));
            }
        }
        if let Some(expected) = &expected {
            self.is_newer(expected).await?;
        }
        Ok((expected, false))
    }

    async fn carry_out(&self, workspace: &Path) -> Result<Taken> {
        let (expected, is_there) = self.bring(workspace).await?;
        if is_there {
            return Ok(Taken { commits: 0, created: false, is_unrelated: false, pointers: Vec::new() });
        }
        let commits = self.count(expected.as_deref()).await?;
        let is_unrelated = expected.is_none() && self.is_unrelated(commits).await?;
        self.publish_content(workspace, expected.as_deref()).await?;
        let before = expected.as_deref().or(self.known.base.as_deref());
        let (attempt, modules) = (self.mirror.attempt, &self.known.modules);
        let pointers =
            submodules::unpublished(attempt, &self.checking(Vec::new()), modules, self.commit, before).await?;
        self.send(expected.as_deref().unwrap_or_default()).await?;
        Ok(Taken { commits, created: expected.is_none(), is_unrelated, pointers })
    }

    /// Commits that the branch lacks; if it does not exist yet, those the origin lacked when it was cloned.
    async fn count(&self, expected: Option<&str>) -> Result<u64> {
        let without = expected.unwrap_or("--all");
        let counted = self.checking(Vec::new()).text(&["rev-list", "--count", self.commit, "--not", without]).await?;
        counted.parse().map_err(|_| Error::Git(format!("git rev-list gave '{counted}' for a number of commits")))
    }

    /// Whether a new branch with this many new commits shares none with the origin. One without commits is unrelated to nothing.
    async fn is_unrelated(&self, commits: u64) -> Result<bool> {
        let roots = ["rev-list", "--count", "--max-parents=0", self.commit, "--not", "--all"];
        if self.known.base.is_none() || self.checking(Vec::new()).text(&roots).await? == "0" {
            return Ok(false);
        }
        let all = self.checking(Vec::new()).text(&["rev-list", "--count", self.commit]).await?;
        Ok(all == commits.to_string())
    }

    fn reference(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    /// Git that sees the mirror and what has come in.
    fn checking(&self, others: Vec<Pinned>) -> Git<'_> {
        let git = self.mirror.git(false, others).patience(STEP).bounded(MAX_PACK);
        git.variable("GIT_OBJECT_DIRECTORY", &self.incoming.directory.path)
            .variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.mirror.path().join("objects"))
    }

    /// Whether everything is there that the commit needs and the origin lacks.
    async fn is_whole(&self, expected: Option<&str>) -> Result<bool> {
        let mut arguments = vec!["rev-list", "--objects", "--quiet", self.commit, "--not", "--all"];
        arguments.extend(expected);
        match self.checking(Vec::new()).run(&arguments).await {
            Ok(_) => Ok(true),
            Err(GitError::Failed { code: 1 | 128, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The agent's git writes a pack of what the origin lacks; ours reads it, where it can do no harm.
    async fn take_in(&self, workspace: &Path, expected: Option<&str>) -> Result<()> {
        let mut tips = self.mirror.git(false, Vec::new()).text(&["for-each-ref", "--format=^%(objectname)"]).await?;
        if let Some(expected) = expected {
            tips = format!("{tips}\n^{expected}");
        }
        let agents = Git::repository(self.mirror.attempt, workspace).patience(STEP);
        let agents = agents
            .variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.mirror.path().join("objects"))
            .input(format!("{}\n{}\n", self.commit, tips.trim_start()));
        // Only this git writes to it.
        let own = self.checking(vec![self.incoming.directory.pinned(true)]);
        let limit = format!("--max-input-size={MAX_PACK}");
        let packed = agents
            .pipe(
                &["pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset"],
                own,
                &["index-pack", "--stdin", "--threads=1", &limit, HISTORIC],
            )
            .await;
        match packed {
            Ok(_) => Ok(()),
            Err(GitError::Failed { what, code, stderr, .. }) => {
                let how = if code == SIGNALLED { "was killed" } else { "refused it" };
                let said = quoted(&stderr);
                Err(Error::Conflict(format!("the commit cannot be taken from the workspace: {what} {how}: '{said}'")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Content of files that the commits keep with Git LFS goes before them.
    async fn publish_content(&self, workspace: &Path, expected: Option<&str>) -> Result<()> {
        let (mirror, origin, commit) = (self.mirror, self.origin, self.commit);
        let reference = &self.reference();
        let content = Publication { mirror, origin, reference, commit, expected, workspace };
        let scratch = &self.incoming.directory;
        content.carry_out(&self.checking(vec![scratch.pinned(true)]), scratch).await
    }

    /// Nothing of the origin's is discarded.
    async fn is_newer(&self, expected: &str) -> Result<()> {
        match self.checking(Vec::new()).run(&["merge-base", "--is-ancestor", expected, self.commit]).await {
            Ok(_) => Ok(()),
            Err(GitError::Failed { code: 1, .. }) => Err(Error::Conflict(format!(
                "the origin refused the push: branch '{}' has commits that are not in the one to push, and is never forced",
                self.branch
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// The push has happened if the origin says so for exactly this branch.
    async fn send(&self, expected: &str) -> Result<()> {
        let (origin, reference) = (self.origin, self.reference());
        let refspec = format!("{}:{reference}", self.commit);
        let (lease, receive) = (format!("--force-with-lease={reference}:{expected}"), origin.receive_pack());
        let how = ["push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags", "--recurse-submodules=no"];
        let receive = receive.as_deref().into_iter().collect::<Vec<_>>();
        let arguments = [&how[..], &[&lease], &receive, &["--", &origin.url, &refspec]].concat();
        let sent = origin.allow(self.checking(origin.writable())).run(&arguments).await;
        let (said, stderr) = match sent {
            Ok(said) => (said, String::new()),
            Err(GitError::Failed { stdout, stderr, .. }) => (stdout, stderr),
            Err(error) => return Err(error.into()),
        };
        if let Some(why) = origin::denied(origin, &stderr) {
            return Err(Error::Conflict(format!("the origin {} cannot be written: {why}", origin.text)));
        }
        match status(&String::from_utf8_lossy(&said), &refspec) {
            Some((' ' | '*' | '=', _)) if stderr.is_empty() => Ok(()),
            Some((' ' | '*' | '=', _)) => Err(Error::Git(format!("the push did not end well: {}", quoted(&stderr)))),
            Some((_, summary)) => Err(Error::Conflict(refused(summary, &stderr))),
            None if stderr.is_empty() => Err(Error::Git("the push failed without a message".to_owned())),
            None => Err(Error::Git(format!("the push failed: {}", quoted(&stderr)))),
        }
    }
}

/// Why an origin did not accept a branch: what it said about the branch, then the rest.
fn refused(summary: &str, stderr: &str) -> String {
    match quoted(stderr) {
        said if said.is_empty() => format!("the origin refused the push: {summary}"),
        said => format!("the origin refused the push: {summary} ('{said}')"),
    }
}

/// What `git push --porcelain` says about a refspec: the flag and the rest.
fn status<'a>(porcelain: &'a str, refspec: &str) -> Option<(char, &'a str)> {
    porcelain.lines().find_map(|line| {
        let mut fields = line.splitn(3, '\t');
        let (flag, of, summary) = (fields.next()?, fields.next()?, fields.next()?);
        let mut flag = flag.chars();
        let one = flag.next().filter(|_| flag.next().is_none())?;
        (of == refspec).then_some((one, summary))
    })
}

/// A folder in the mirror for one pack, until it has been checked.
struct Incoming {
    directory: Directory,
}

impl Incoming {
    async fn make(mirror: &Mirror<'_>) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("cannot make a folder for the pack", &e);
        for left in std::fs::read_dir(mirror.path()).map_err(io)? {
            let left = left.map_err(io)?;
            if left.file_name().to_string_lossy().starts_with(INCOMING) {
                remove_tree(left.path()).await.map_err(io)?;
            }
        }
        let name = format!("{INCOMING}{}", life::random_id().map_err(io)?);
        std::fs::create_dir_all(mirror.path().join(&name).join("pack")).map_err(io)?;
        Ok(Self { directory: mirror.directory_in(&name).map_err(io)? })
    }

    /// Moves the pack into the mirror, its index last: without an index it does not count.
    fn keep(&self, mirror: &Mirror<'_>) -> std::io::Result<()> {
        let target = mirror.path().join("objects/pack");
        std::fs::create_dir_all(&target)?;
        let mut files: Vec<_> = std::fs::read_dir(self.directory.path.join("pack"))?.collect::<std::io::Result<_>>()?;
        files.sort_by_key(|file| file.path().extension().is_some_and(|kind| kind == "idx"));
        files.iter().try_for_each(|file| std::fs::rename(file.path(), target.join(file.file_name())))
    }

    async fn remove(self) {
        if let Err(error) = remove_tree(self.directory.path.clone()).await {
            tracing::warn!(%error, "a pack that was taken in cannot be removed; the next push removes it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn the_status_of_exactly_the_wanted_branch_counts() {
        let said = "To file:///o\n*\tc:refs/heads/x\t[new branch]\n!\tc:refs/heads/y\t[rejected] (stale info)\nDone\n";
        assert_eq!(status(said, "c:refs/heads/x"), Some(('*', "[new branch]")));
        assert_eq!(status(said, "c:refs/heads/y"), Some(('!', "[rejected] (stale info)")));
        for other in ["c:refs/heads", "c:refs/heads/xx", "d:refs/heads/x", ""] {
            assert_eq!(status(said, other), None);
        }
    }
}
