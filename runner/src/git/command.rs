//! One git process.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{agent, app::App, confine::Rights, process::confined};

/// Most bytes of output that are taken.
pub(crate) const MAX_OUTPUT: usize = 8 * 1024 * 1024;
const MAX_ERRORS: usize = 16 * 1024;

/// Configuration that wins over the repository's own.
const SETTINGS: [(&str, &str); 12] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.pager", "cat"),
    ("core.quotePath", "false"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("push.gpgSign", "false"),
    ("push.recurseSubmodules", "no"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
];
/// Of the session's environment, what `https://` needs to get out.
const NETWORK: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];

/// Why git failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("git {what} failed: {stderr}")]
    Failed { what: String, code: i32, stderr: String },
    #[error("git {what} took longer than {seconds} s")]
    TimedOut { what: String, seconds: u64 },
    #[error("git {what} gave more than {MAX_OUTPUT} bytes")]
    TooLarge { what: String },
    #[error("git {what}: {source}")]
    Io { what: String, source: std::io::Error },
}

impl From<GitError> for crate::error::Error {
    fn from(error: GitError) -> Self {
        match error {
            GitError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            _ => Self::Git(error.to_string()),
        }
    }
}

/// A git command to be run.
pub(crate) struct Git<'a> {
    app: &'a App,
    directory: PathBuf,
    rights: Rights,
    environment: Vec<(OsString, OsString)>,
    patience: Duration,
    input: Option<Vec<u8>>,
}

impl<'a> Git<'a> {
    /// Git in a directory of the session.
    pub(crate) fn new(app: &'a App, directory: impl Into<PathBuf>) -> Self {
        let environment = vec![("GIT_CONFIG_GLOBAL".into(), "/dev/null".into())];
        let rights = Rights::of_agent(&app.spec);
        Self { app, directory: directory.into(), rights, environment, patience: Duration::from_secs(60), input: None }
    }

    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn input(mut self, input: &str) -> Self {
        self.input = Some(input.as_bytes().to_vec());
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn readable(mut self, paths: &[PathBuf]) -> Self {
        self.rights.read.extend_from_slice(paths);
        self
    }

    pub(crate) fn writable(mut self, paths: &[PathBuf]) -> Self {
        self.rights.write.extend_from_slice(paths);
        self
    }

    /// Standard output as text, without the last newline.
    ///
    /// # Errors
    /// When git fails, takes too long or says too much.
    pub(crate) async fn text(self, arguments: &[&str]) -> Result<String, GitError> {
        let output = self.run(arguments).await?;
        Ok(String::from_utf8_lossy(&output).trim_end_matches('\n').to_owned())
    }

    /// Standard output as text when it succeeds, nothing when it says no with exit code 1 or 128.
    ///
    /// # Errors
    /// When git takes too long or cannot be run.
    pub(crate) async fn maybe(self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        match self.text(arguments).await {
            Ok(text) => Ok(Some(text)),
            Err(GitError::Failed { code: 1 | 128, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Standard output.
    ///
    /// # Errors
    /// When git fails, takes too long or says too much.
    pub(crate) async fn run(self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        let what = arguments.first().copied().unwrap_or_default().to_owned();
        let io = |source| GitError::Io { what: what.clone(), source };
        let mut command = confined(&self.rights, &self.directory, OsStr::new("git")).map_err(io)?;
        command.args(arguments).envs(environment(self.app)).envs(self.environment).process_group(0);
        if self.input.is_some() {
            command.stdin(Stdio::piped());
        }
        let (mut child, awaited) = self.app.processes.spawn(&mut command).map_err(io)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = self.input.unwrap_or_default();
        let work = async {
            let feed = async move {
                if let Some(mut stdin) = stdin {
                    let _ = stdin.write_all(&input).await;
                }
            };
            let ((), output, errors) = tokio::join!(feed, take(stdout, MAX_OUTPUT), take(stderr, MAX_ERRORS));
            (output, errors, child.wait().await)
        };
        let done = timeout(self.patience, work).await;
        if done.is_err() {
            end_group(awaited.pid);
            let _ = timeout(Duration::from_secs(2), child.wait()).await;
        }
        let Ok((output, errors, status)) = done else {
            return Err(GitError::TimedOut { what, seconds: self.patience.as_secs() });
        };
        let status = status.map_err(|source| GitError::Io { what: what.clone(), source })?;
        if !status.success() {
            let stderr = String::from_utf8_lossy(&errors.0).trim().to_owned();
            return Err(GitError::Failed { what, code: status.code().unwrap_or(-1), stderr });
        }
        if output.1 { Err(GitError::TooLarge { what }) } else { Ok(output.0) }
    }
}

fn environment(app: &App) -> Vec<(OsString, OsString)> {
    let mut environment = agent::platform_environment(app);
    for (name, value) in [
        // Overrides `protocol.*` of any configuration, in child processes too.
        ("GIT_ALLOW_PROTOCOL", "https:file"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", "/bin/false"),
        ("SSH_ASKPASS", "/bin/false"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_EDITOR", ":"),
        ("LC_ALL", "C.UTF-8"),
    ] {
        environment.push((name.into(), value.into()));
    }
    environment.push(("GIT_CEILING_DIRECTORIES".into(), app.paths.workspace().into()));
    environment.push(("GIT_CONFIG_COUNT".into(), SETTINGS.len().to_string().into()));
    for (i, (key, value)) in SETTINGS.iter().enumerate() {
        environment.push((format!("GIT_CONFIG_KEY_{i}").into(), (*key).into()));
        environment.push((format!("GIT_CONFIG_VALUE_{i}").into(), (*value).into()));
    }
    let network = app.environment.iter().filter(|(name, _)| NETWORK.contains(&name.as_str()));
    environment.extend(network.map(|(name, value)| (name.into(), value.into())));
    environment
}

/// Reads to the end and keeps the first `most` bytes; true when there was more.
async fn take<R: AsyncRead + Unpin>(pipe: Option<R>, most: usize) -> (Vec<u8>, bool) {
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

fn end_group(pid: Option<u32>) {
    if let Some(group) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Quotes a value for a git configuration file.
pub(crate) fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
