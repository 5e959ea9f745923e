//! One git process.
//!
//! There are two kinds. [`Git::agents`] works in the workspace, whose configuration, hooks, attributes and objects are the
//! agent's: it has the agent's rights, and its answers are claims. [`Git::tool`] is the runner's own: it reads nothing an
//! agent can write except checked packs, has only our configuration, and has rights only on the directories it is given.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout},
    time::{Instant, timeout_at},
};

use super::environment;
use crate::{
    attempt::Attempt,
    process::{Awaited, confined},
    rights::{Pinned, Rights},
};

/// Most bytes of output that are read.
pub(crate) const MAX_OUTPUT: usize = 8 * 1024 * 1024;
const MAX_ERRORS: usize = 16 * 1024;
/// Longest list entry, bytes: a path has at most 4 KiB.
const MAX_ENTRY: usize = 64 * 1024;
/// A query of a repository in the workspace, which may be made to hang. Callers through the server wait longer, so that
/// they get the reason.
const PATIENCE_WITH_AGENTS: Duration = Duration::from_secs(15);

/// Why git failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("{what} {}", ending(*code, stderr))]
    Failed { what: String, code: i32, stdout: Vec<u8>, stderr: String, whose: Whose },
    #[error("{what} did not end within {seconds} s")]
    TimedOut { what: String, seconds: u64, whose: Whose },
    #[error("{what} gave more than {most} bytes")]
    TooLarge { what: String, most: usize },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

/// Whose fault it is if git fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// It read something an agent has made: a failure is the workspace's state.
    Agents,
    /// Ours, or an origin's.
    Ours,
}

/// How a failed git ended: its exit code, or its own words.
fn ending(code: i32, stderr: &str) -> String {
    match quoted(stderr) {
        words if !words.is_empty() => format!("failed: {words}"),
        _ if code == SIGNALLED => "was killed".to_owned(),
        _ => format!("failed with exit code {code} and without a message"),
    }
}

/// A program's message, on one line: for reasons. Empty for none.
pub(super) fn quoted(said: &str) -> String {
    said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

impl From<GitError> for crate::error::Error {
    fn from(error: GitError) -> Self {
        match error {
            GitError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            GitError::Failed { whose: Whose::Agents, .. } | GitError::TimedOut { whose: Whose::Agents, .. } => {
                Self::Conflict(format!("the repository cannot be used as it is in the workspace: {error}"))
            }
            _ => Self::Git(error.to_string()),
        }
    }
}

/// A git command to be run.
#[derive(Clone)]
pub(crate) struct Git<'a> {
    attempt: &'a Attempt,
    program: OsString,
    directory: PathBuf,
    rights: Rights,
    environment: Vec<(OsString, OsString)>,
    patience: Duration,
    input: Option<Vec<u8>>,
    most: usize,
    wanted: Option<Wanted>,
    whose: Whose,
    paths: Vec<PathBuf>,
}

/// Which entries of a list are wanted.
type Wanted = fn(&[u8]) -> bool;

impl<'a> Git<'a> {
    /// Git in a directory of the workspace, as the agent.
    pub(crate) fn agents(attempt: &'a Attempt, directory: impl Into<PathBuf>) -> Self {
        Self::new(attempt, directory.into(), Rights::of_agent(&attempt.spec), environment::of_agents(attempt))
    }

    /// Git in a repository of the workspace, as the agent. It is not for the repository to say which folder is meant.
    pub(crate) fn repository(attempt: &'a Attempt, directory: &Path) -> Self {
        let git = Self { whose: Whose::Agents, ..Self::agents(attempt, directory).patience(PATIENCE_WITH_AGENTS) };
        git.variable("GIT_DIR", directory.join(".git")).variable("GIT_WORK_TREE", directory)
    }

    /// The runner's own git in the first of the directories, with rights on all of them and on nothing else.
    pub(crate) fn tool(attempt: &'a Attempt, pinned: Vec<Pinned>) -> Self {
        let directory = pinned.first().map_or_else(|| "/".into(), |pin| pin.path.clone());
        let mut rights = Rights::of_tool(&attempt.spec, pinned);
        rights.read.push(environment::configuration(attempt));
        Self::new(attempt, directory.clone(), rights, environment::of_tool(attempt, &directory))
    }

    fn new(attempt: &'a Attempt, directory: PathBuf, rights: Rights, environment: Vec<(OsString, OsString)>) -> Self {
        let (program, patience) = ("git".into(), Duration::from_secs(60));
        let (input, most, wanted, whose) = (None, MAX_OUTPUT, None, Whose::Ours);
        let paths = Vec::new();
        Self { attempt, program, directory, rights, environment, patience, input, most, wanted, whose, paths }
    }

    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Arguments after the others, which need not be UTF-8.
    pub(crate) fn paths(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.paths.extend(paths);
        self
    }

    /// For a name given several times, the last one counts.
    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// A setting that overrides any file's.
    pub(super) fn setting(mut self, key: &str, value: &str) -> Self {
        environment::set(&mut self.environment, key, value);
        self
    }

    /// Most bytes of output that are read.
    pub(crate) fn most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// For a list with entries ended by NUL, only wanted ones count and are held: lists of all files are long.
    pub(crate) fn only(mut self, wanted: Wanted) -> Self {
        self.wanted = Some(wanted);
        self
    }

    /// Another program in place of git.
    pub(crate) fn program(mut self, program: &OsStr) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// See [`Rights::bounded`].
    pub(crate) fn bounded(mut self, file_size_bytes: u64) -> Self {
        self.rights = self.rights.bounded(file_size_bytes);
        self
    }

    /// Standard output as text, without the last newline.
    ///
    /// # Errors
    /// When git fails, takes too long or prints too much.
    pub(crate) async fn text(self, arguments: &[&str]) -> Result<String, GitError> {
        let output = self.run(arguments).await?;
        Ok(String::from_utf8_lossy(&output).trim_end_matches('\n').to_owned())
    }

    /// Standard output as text if it succeeds, nothing if it says no: with exit code 1 and without a message, as git does under
    /// `--quiet`.
    ///
    /// # Errors
    /// When git fails otherwise, takes too long or cannot be run.
    pub(crate) async fn maybe(self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        match self.text(arguments).await {
            Ok(text) => Ok(Some(text)),
            Err(GitError::Failed { code: 1, stderr, .. }) if stderr.is_empty() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Standard output.
    ///
    /// # Errors
    /// When git fails, takes too long or prints too much.
    pub(crate) async fn run(self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        let (what, most) = (self.what(arguments), self.most);
        let (output, cut) = self.cut(arguments).await?;
        if cut { Err(GitError::TooLarge { what, most }) } else { Ok(output) }
    }

    /// The start of standard output, and whether there was more.
    ///
    /// # Errors
    /// When git fails or takes too long.
    pub(crate) async fn cut(self, arguments: &[&str]) -> Result<(Vec<u8>, bool), GitError> {
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.start(arguments, stdin)?.output().await
    }

    fn what(&self, arguments: &[&str]) -> String {
        let named = || self.program.to_string_lossy().into_owned();
        arguments.first().map_or_else(named, |what| format!("git {what}"))
    }

    /// Pipes standard output into another git; returns what that one prints.
    ///
    /// # Errors
    /// When one of them fails or takes too long.
    pub(crate) async fn pipe(self, arguments: &[&str], other: Git<'_>, others: &[&str]) -> Result<(), GitError> {
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut first = self.start(arguments, stdin)?;
        let io = |source| GitError::Io { what: format!("git {}", arguments.first().unwrap_or(&"")), source };
        let stdout = first.stdout.take().ok_or_else(|| io(std::io::Error::other("no standard output")))?;
        let second = other.start(others, stdout.try_into().map_err(io)?)?;
        match tokio::join!(first.output(), second.output()) {
            (Ok(_), second) => second.map(drop),
            // The second one gave up, so the first one wrote in vain.
            (Err(GitError::Failed { code, stderr, .. }), Err(second))
                if code == SIGNALLED || stderr.contains("Broken pipe") =>
            {
                Err(second)
            }
            (Err(first), _) => Err(first),
        }
    }

    fn start(self, arguments: &[&str], stdin: Stdio) -> Result<Running<'a>, GitError> {
        let what = self.what(arguments);
        let io = |source| GitError::Io { what: what.clone(), source };
        let mut command = confined(&self.rights, &self.directory, &self.program).map_err(io)?;
        command.args(arguments).args(self.paths).envs(self.environment).process_group(0).stdin(stdin);
        let (mut child, awaited) = self.attempt.processes.spawn(&mut command).map_err(io)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (deadline, patience) = (Instant::now() + self.patience, self.patience);
        let (input, most, wanted, whose) = (self.input, self.most, self.wanted, self.whose);
        let ended = false;
        Ok(Running { what, child, awaited, stdin, stdout, input, most, wanted, whose, deadline, patience, ended })
    }
}

/// Exit code of a process killed by a signal.
pub(super) const SIGNALLED: i32 = -1;

/// A git process. If dropped before its end, it is killed with everything it has started.
struct Running<'a> {
    what: String,
    child: Child,
    awaited: Awaited<'a>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    input: Option<Vec<u8>>,
    most: usize,
    wanted: Option<Wanted>,
    whose: Whose,
    deadline: Instant,
    patience: Duration,
    ended: bool,
}

impl Running<'_> {
    async fn output(mut self) -> Result<(Vec<u8>, bool), GitError> {
        let (stdin, stdout, stderr) = (self.stdin.take(), self.stdout.take(), self.child.stderr.take());
        let (input, most, wanted) = (self.input.take().unwrap_or_default(), self.most, self.wanted);
        let work = async {
            let feed = async move {
                if let Some(mut stdin) = stdin {
                    // One that ends early does not want the rest; its exit code says whether that is fine.
                    let _ = stdin.write_all(&input).await;
                }
            };
            let output = async {
                match wanted {
                    Some(wanted) => sift(stdout, most, wanted).await,
                    None => take(stdout, most).await,
                }
            };
            let ((), output, errors) = tokio::join!(feed, output, take(stderr, MAX_ERRORS));
            (output, errors, self.child.wait().await)
        };
        let Ok((output, errors, status)) = timeout_at(self.deadline, work).await else {
            self.kill();
            let _ = tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await;
            let (what, seconds) = (std::mem::take(&mut self.what), self.patience.as_secs());
            return Err(GitError::TimedOut { what, seconds, whose: self.whose });
        };
        self.ended = true;
        self.judge(output, &errors.0, status)
    }

    fn judge(
        &mut self,
        output: (Vec<u8>, bool),
        errors: &[u8],
        status: std::io::Result<ExitStatus>,
    ) -> Result<(Vec<u8>, bool), GitError> {
        let what = std::mem::take(&mut self.what);
        let status = match status {
            Ok(status) => status,
            Err(source) => return Err(GitError::Io { what, source }),
        };
        if !status.success() {
            let (code, stderr) =
                (status.code().unwrap_or(SIGNALLED), String::from_utf8_lossy(errors).trim().to_owned());
            return Err(GitError::Failed { what, code, stdout: output.0, stderr, whose: self.whose });
        }
        Ok(output)
    }

    fn kill(&mut self) {
        self.ended = true;
        if let Some(group) = self.awaited.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// Reads to the end and keeps the first `most` bytes; true if there was more.
pub(super) async fn take<R: AsyncRead + Unpin>(pipe: Option<R>, most: usize) -> (Vec<u8>, bool) {
    let (mut kept, mut more) = (Vec::new(), false);
    let Some(mut pipe) = pipe else { return (kept, more) };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = pipe.read(&mut buffer).await
        && read > 0
    {
        let room = most - kept.len();
        more |= read > room;
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    (kept, more)
}

/// Reads to the end and keeps at most `most` bytes of the wanted entries; true if there were more, or one was too long to report.
async fn sift<R: AsyncRead + Unpin>(pipe: Option<R>, most: usize, wanted: Wanted) -> (Vec<u8>, bool) {
    let (mut kept, mut more, mut entry) = (Vec::new(), false, Vec::new());
    let Some(mut pipe) = pipe else { return (kept, more) };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = pipe.read(&mut buffer).await
        && read > 0
    {
        for part in buffer[..read].split_inclusive(|byte| *byte == 0) {
            entry.extend_from_slice(part);
            if part.last() == Some(&0) {
                let fits = entry.len() <= most - kept.len();
                match wanted(&entry) {
                    true if fits => kept.append(&mut entry),
                    is_wanted => more |= is_wanted,
                }
                entry.clear();
            } else if entry.len() > MAX_ENTRY {
                more = true;
                entry.clear();
            }
        }
    }
    (kept, more)
}

#[cfg(test)]
mod tests {
    use super::{GitError, MAX_ENTRY, SIGNALLED, Whose, sift};

    #[tokio::test]
    async fn of_a_list_only_what_is_wanted_is_held() {
        let wanted = |entry: &[u8]| entry.starts_with(b"S ");
        let list = b"H a\0S b\0H c\0S d\0";
        assert_eq!(sift(Some(&list[..]), 8, wanted).await, (b"S b\0S d\0".to_vec(), false));
        assert_eq!(sift(Some(&list[..]), 7, wanted).await, (b"S b\0".to_vec(), true));
        let long = [b"S ".to_vec(), vec![b'x'; 2 * MAX_ENTRY], b"\0S e\0".to_vec()].concat();
        let (kept, more) = sift(Some(&long[..]), 100, wanted).await;
        assert!(kept.ends_with(b"S e\0") && more);
        assert_eq!(sift::<&[u8]>(None, 8, wanted).await, (Vec::new(), false));
    }

    #[test]
    fn a_failure_always_has_a_reason_and_it_is_one_line() {
        let failed = |code, stderr: &str| {
            let (what, stdout, stderr) = ("git fetch".to_owned(), Vec::new(), stderr.to_owned());
            GitError::Failed { what, code, stdout, stderr, whose: Whose::Ours }.to_string()
        };
        assert_eq!(failed(SIGNALLED, ""), "git fetch was killed");
        assert_eq!(failed(3, " \n"), "git fetch failed with exit code 3 and without a message");
        assert_eq!(failed(1, "error: a\n\n  fatal: b\n"), "git fetch failed: error: a; fatal: b");
    }
}
