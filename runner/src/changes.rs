//! The workspace as it is changed from outside: each change is a process with the agent's rights, so that what it makes is the
//! agent's, and nothing can be changed that the agent could not change itself.

use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use ambient_wire::content::{FileMove, FileStatus, MAX_FILE};
use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use rustix::process::{Pid, Signal};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::ChildStdin,
    time::timeout,
};

use crate::{
    app::SharedApp,
    attempt::Attempt,
    content, environment,
    error::{Error, Result},
    file_change::{Change, Condition, Outcome, PROGRAM, hex},
    process::confined,
    rights::Rights,
    workspace_path::parse_beneath,
};

/// Timeout for a change as a whole, and for the next piece of a file's content.
const PATIENCE: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_secs(30);
/// How long the process may take to report once it has all it needs, or cannot have it.
const END: Duration = Duration::from_secs(60);
/// How much of a refused body is read, bytes, so that its sender gets to read the answer, and for how long.
const MAX_DISCARDED: u64 = 2 * MAX_FILE;
const DISCARD: Duration = Duration::from_secs(10);
/// Most bytes that are read of what the process says.
const MAX_SAID: u64 = 64 * 1024;

/// How a file is to be written.
#[derive(Debug, Default)]
pub(crate) struct Write {
    pub(crate) parents: bool,
    pub(crate) executable: Option<bool>,
    pub(crate) condition: Condition,
}

/// `PUT /content/{*path}`: whether the file is new, and what it is now.
///
/// # Errors
/// Bad input; not found; a condition that does not hold; a conflict; too large.
pub(crate) async fn write(app: SharedApp, path: String, how: Write, body: Body) -> Result<(bool, FileStatus)> {
    let Write { parents, executable, condition } = how;
    let most = match app.attempt.spec.limits.file_size_bytes {
        0 => MAX_FILE,
        limit => MAX_FILE.min(limit),
    };
    let mut content = Content::new(body);
    let done = async {
        let path = bytes(parse_beneath("path", &path)?);
        let change = Change::Write { path, parents, executable, condition, most };
        carry_out(&app.attempt, &change, Some(&mut content)).await
    };
    let done = done.await;
    if done.is_err() {
        content.discard().await;
    }
    let created = done?;
    let status = content::status(app, path, false).await?;
    Ok((created, FileStatus { sha256: Some(hex(&content.hasher.finalize())), ..status }))
}

/// `DELETE /content/{*path}`.
///
/// # Errors
/// Bad input; not found; a conflict.
pub(crate) async fn remove(app: SharedApp, path: String, recursive: bool) -> Result<()> {
    let path = bytes(parse_beneath("path", &path)?);
    let change = Change::Remove { path: path.clone(), recursive };
    match carry_out(&app.attempt, &change, None).await {
        Err(Error::Conflict(_)) if recursive => {
            open_up(&app.attempt, &path).await;
            carry_out(&app.attempt, &change, None).await.map(drop)
        }
        done => done.map(drop),
    }
}

/// Gives folders the permissions that their removal needs. Our own process cannot: it sees the agent's `/proc`, but is not in it, and nothing else leads
/// to a folder that cannot be opened. So it is a program of the system's, with the agent's rights; if it fails, so does the removal.
async fn open_up(attempt: &Attempt, path: &[u8]) {
    let rights = Rights::of_agent(&attempt.spec);
    let Ok(mut command) = confined(&rights, &attempt.paths.workspace(), "chmod".as_ref()) else { return };
    command.args(["-R", "u+rwX", "--"]).arg(OsStr::from_bytes(path)).envs(environment::of_platform(attempt));
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok((mut child, awaited)) = attempt.processes.spawn(&mut command) else { return };
    let group = Group(awaited.pid);
    if timeout(END, child.wait()).await.is_ok() {
        group.has_ended();
    }
}

/// `POST /content-move`: what is there now.
///
/// # Errors
/// Bad input; not found; a conflict.
pub(crate) async fn relocate(app: SharedApp, request: FileMove) -> Result<FileStatus> {
    let FileMove { from, to, overwrite, parents } = request;
    let (from, there) = (bytes(parse_beneath("from", &from)?), bytes(parse_beneath("to", &to)?));
    carry_out(&app.attempt, &Change::Move { from, to: there, overwrite, parents }, None).await?;
    content::status(app, to, false).await
}

fn bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}

/// A file's content on its way in.
struct Content {
    stream: BodyDataStream,
    hasher: Sha256,
}

impl Content {
    fn new(body: Body) -> Self {
        Self { stream: body.into_data_stream(), hasher: Sha256::new() }
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let late = |_| Error::bad("body", format!("did not go on within {} s", STEP.as_secs()));
        match timeout(STEP, self.stream.next()).await.map_err(late)? {
            None => Ok(None),
            Some(Ok(piece)) => {
                self.hasher.update(&piece);
                Ok(Some(piece))
            }
            Some(Err(error)) => Err(Error::bad("body", format!("broke off: {error}"))),
        }
    }

    async fn discard(&mut self) {
        let mut left = MAX_DISCARDED;
        let reading = async {
            while let Some(Ok(piece)) = self.stream.next().await
                && left > 0
            {
                left = left.saturating_sub(piece.len() as u64);
            }
        };
        let _ = timeout(DISCARD, reading).await;
    }
}

/// Has a process do it; whether something is new.
async fn carry_out(attempt: &Attempt, change: &Change, content: Option<&mut Content>) -> Result<bool> {
    let io = |e: std::io::Error| Error::io("cannot change the workspace", &e);
    let order = serde_json::to_vec(change).map_err(|e| Error::Internal(e.to_string()))?;
    let rights = Rights::of_agent(&attempt.spec);
    let mut command = confined(&rights, &attempt.paths.workspace(), PROGRAM.as_ref()).map_err(io)?;
    command.envs(environment::of_platform(attempt)).process_group(0).stdin(Stdio::piped());
    let (mut child, awaited) = attempt.processes.spawn(&mut command).map_err(io)?;
    let group = Group(awaited.pid);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let feed = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            give(&mut stdin, &order, content).await
        };
        let said = async {
            let (mut said, mut words) = (Vec::new(), Vec::new());
            let read = async { Some(stdout?.take(MAX_SAID).read_to_end(&mut said).await) };
            let complaint = async { Some(stderr?.take(MAX_SAID).read_to_end(&mut words).await) };
            tokio::join!(read, complaint);
            (said, words)
        };
        tokio::pin!(said);
        // A process that has refused reads no further; one whose input stops says no more than that.
        let (fed, said) = tokio::select! {
            said = &mut said => (Ok(()), said),
            fed = feed => (fed, timeout(END, said).await.map_err(|_| late(END))?),
        };
        timeout(END, child.wait()).await.map_err(|_| late(END))?.map_err(io)?;
        fed.map(|()| said)
    };
    let (said, words) = timeout(PATIENCE, work).await.map_err(|_| late(PATIENCE))??;
    group.has_ended();
    match serde_json::from_slice(&said) {
        Ok(Outcome::Done { created }) => Ok(created),
        Ok(Outcome::Refused(told)) => Err(Error::of_told(told)),
        Err(_) => {
            let words = String::from_utf8_lossy(&words).trim().to_owned();
            let words = if words.is_empty() { String::new() } else { format!(": {words}") };
            Err(Error::Conflict(format!("the workspace could not be changed: its process ended early{words}")))
        }
    }
}

fn late(patience: Duration) -> Error {
    Error::Conflict(format!("the workspace could not be changed within {} s", patience.as_secs()))
}

/// The order, the content, and an end: see [`crate::file_change`]. Stops where the process does.
async fn give(stdin: &mut ChildStdin, order: &[u8], content: Option<&mut Content>) -> Result<()> {
    if frame(stdin, order).await.is_err() {
        return Ok(());
    }
    if let Some(content) = content {
        while let Some(piece) = content.next().await? {
            if !piece.is_empty() && frame(stdin, &piece).await.is_err() {
                return Ok(());
            }
        }
    }
    let _ = frame(stdin, &[]).await;
    Ok(())
}

async fn frame(stdin: &mut ChildStdin, bytes: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stdin.write_all(&length.to_be_bytes()).await?;
    stdin.write_all(bytes).await
}

/// A process with everything it has started. Killed when dropped before its end.
struct Group(Option<u32>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}
