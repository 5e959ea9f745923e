//! Files that the agent reads and writes through us, with its own rights.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    attempt::Attempt,
    environment,
    file_access::{EXIT_ABSENT, MAX_FILE, PROGRAM},
    process::confined,
    rights::Rights,
};

/// Timeout for reading or writing a file.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest error text.
const MAX_ERROR: u64 = 4096;

/// The file's text; none if there is no such file.
///
/// # Errors
/// In words.
pub(super) async fn read(attempt: &Attempt, path: &Path) -> Result<Option<String>, String> {
    let bytes = match content(attempt, path).await? {
        Content::Whole(bytes) => bytes,
        Content::TooLarge => return Err(format!("{}: larger than {MAX_FILE} bytes", path.display())),
        Content::Absent => return Ok(None),
    };
    String::from_utf8(bytes).map(Some).map_err(|_| format!("{}: it is not text", path.display()))
}

/// What reading a file came to.
pub(super) enum Content {
    Whole(Vec<u8>),
    /// It is larger than what is read.
    TooLarge,
    Absent,
}

/// A file's content.
///
/// # Errors
/// In words.
pub(super) async fn content(attempt: &Attempt, path: &Path) -> Result<Content, String> {
    let (code, bytes, errors) = run(attempt, "read", path, None).await?;
    match code {
        Some(0) if bytes.len() as u64 > MAX_FILE => Ok(Content::TooLarge),
        Some(0) => Ok(Content::Whole(bytes)),
        Some(EXIT_ABSENT) => Ok(Content::Absent),
        _ => Err(format!("{}: {}", path.display(), errors.trim())),
    }
}

/// Writes the file, and the folders that it is in.
///
/// # Errors
/// In words.
pub(super) async fn write(attempt: &Attempt, path: &Path, text: &str) -> Result<(), String> {
    if text.len() as u64 > MAX_FILE {
        return Err(format!("{}: larger than {MAX_FILE} bytes", path.display()));
    }
    match run(attempt, "write", path, Some(text)).await? {
        (Some(0), _, _) => Ok(()),
        (_, _, errors) => Err(format!("{}: {}", path.display(), errors.trim())),
    }
}

async fn run(
    attempt: &Attempt,
    word: &str,
    path: &Path,
    input: Option<&str>,
) -> Result<(Option<i32>, Vec<u8>, String), String> {
    let exchange = async {
        let mut command = confined(&Rights::of_agent(&attempt.spec), &attempt.paths.workspace(), PROGRAM.as_ref())?;
        command.arg(word).arg(path).envs(environment::of_platform(attempt)).kill_on_drop(true);
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let (mut child, _awaited) = attempt.processes.spawn(&mut command)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut bytes, mut errors) = (Vec::new(), Vec::new());
        let write = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                stdin.write_all(input.as_bytes()).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let read = async {
            let Some(stdout) = stdout else { return Ok(0) };
            stdout.take(MAX_FILE + 1).read_to_end(&mut bytes).await
        };
        let complaints = async {
            let Some(stderr) = stderr else { return Ok(0) };
            stderr.take(MAX_ERROR).read_to_end(&mut errors).await
        };
        // Its complaint says more than that it did not read to the end.
        let (_, read, _) = tokio::join!(write, read, complaints);
        read?;
        let status = child.wait().await?;
        Ok::<_, std::io::Error>((status.code(), bytes, String::from_utf8_lossy(&errors).into_owned()))
    };
    match timeout(PATIENCE, exchange).await {
        Ok(done) => done.map_err(|e| format!("{}: {e}", path.display())),
        Err(_) => Err(format!("{}: it took longer than {} s", path.display(), PATIENCE.as_secs())),
    }
}
