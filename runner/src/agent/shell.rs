//! One shell block as a tool call, with its output streamed while it runs.

use std::{
    fs::Permissions,
    io::Write,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use ambient_wire::runner_event::OutputStream;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::output::{CHUNK, Output};
use crate::{
    environment::{self, DEFAULT_PATH},
    event, life,
    log::LogError,
    process::{Awaited, Mark, confined},
    rights::Rights,
    turn::{INTERRUPT_PATIENCE, Turn},
};

/// How long output is gathered before it is recorded.
const GATHER: Duration = Duration::from_millis(20);
/// After a block's end its output is read until it has been silent for this long, but no longer than the second
/// time.
const SILENCE: Duration = Duration::from_millis(100);
const LISTENING: Duration = Duration::from_secs(1);

/// How a block ended.
pub(super) enum Ended {
    Success,
    Failure { code: Option<i32>, reason: String },
    Stopped,
}

/// A tool call that runs a shell script.
pub(super) struct Call<'a> {
    pub(super) turn: &'a Turn,
    pub(super) id: String,
    pub(super) title: &'a str,
    /// Name of the file that the script is written to; one that the session has not had.
    pub(super) file: String,
}

impl Call<'_> {
    pub(super) async fn run(&self, script: &str, directory: &Path) -> Result<Ended, LogError> {
        self.turn.emit(vec![event::shell_call(&self.id, self.title, script)]).await?;
        let (mut child, _awaited) = match self.spawn(script, directory) {
            Ok(started) => started,
            Err(error) => {
                life::note_want_of_space(&error);
                return self.result(&format!("cannot start: {error}"), Some(127)).await;
            }
        };
        let (status, output) = self.follow(&mut child).await?;
        self.result(&output, status.map(code_of)).await
    }

    fn spawn(&self, script: &str, directory: &Path) -> std::io::Result<(Child, Awaited<'_>)> {
        let attempt = &self.turn.app.attempt;
        let path = attempt.paths.blocks().join(&self.file);
        let mut file = life::create_new(&path)?;
        file.write_all(script.as_bytes())?;
        // For the agent's user. Others do not get past the session's folder.
        file.set_permissions(Permissions::from_mode(0o644))?;
        let mut command = confined(&Rights::of_agent(&attempt.spec), directory, shell().as_ref())?;
        command.arg("-eu").arg(&path).envs(environment::of_agent(attempt, &self.turn.run_id));
        attempt.processes.spawn(&mut command)
    }

    /// Streams output until the block has ended; no status if it was ended because the turn was stopped. A block that has
    /// closed or redirected its output is as much alive as one that prints.
    async fn follow(&self, child: &mut Child) -> Result<(Option<ExitStatus>, String), LogError> {
        let mut output = Output::new(self.turn, &self.id);
        let (chunks, mut received) = mpsc::channel(16);
        listen(OutputStream::Stdout, child.stdout.take(), chunks.clone());
        listen(OutputStream::Stderr, child.stderr.take(), chunks);
        let (mut status, mut ending, mut last_words) = (None, Ending::NotAsked, None::<LastWords>);
        let mut is_open = true;
        while last_words.is_none() || is_open {
            tokio::select! {
                chunk = received.recv(), if is_open => match chunk {
                    Some((stream, bytes)) => {
                        last_words.as_mut().map(LastWords::heard);
                        output.take(stream, &bytes).await?;
                    }
                    None => is_open = false,
                },
                waited = child.wait(), if last_words.is_none() => {
                    // What cannot be waited for no longer exists.
                    status = waited.ok().filter(|_| matches!(ending, Ending::NotAsked));
                    last_words = Some(LastWords::from_now());
                }
                () = LastWords::over(last_words.as_ref()) => break,
                () = self.turn.stopped(), if matches!(ending, Ending::NotAsked) => ending = self.end(),
                () = ending.done() => {
                    // Out of reach of the marks, or in an uninterruptible sleep.
                    let _ = child.start_kill();
                    last_words.get_or_insert_with(LastWords::from_now);
                }
            }
        }
        let text = output.finish().await?;
        if self.turn.is_stopped() {
            if matches!(ending, Ending::NotAsked) {
                ending = self.end();
            }
            ending.finish().await;
        }
        Ok((status, text))
    }

    /// Asks everything in the turn to end, and kills what does not.
    fn end(&self) -> Ending {
        let (processes, mark) = (self.turn.app.attempt.processes.clone(), Mark::Turn(self.turn.run_id.clone()));
        Ending::Asked(tokio::spawn(async move { processes.end(mark, INTERRUPT_PATIENCE).await }))
    }

    /// Records the result. If a stop came first, that is why the turn ends, however the block did.
    async fn result(&self, output: &str, code: Option<i32>) -> Result<Ended, LogError> {
        self.turn.emit(vec![event::shell_result(&self.id, output, code)]).await?;
        Ok(match code {
            _ if self.turn.is_stopped() => Ended::Stopped,
            None => Ended::Failure { code: None, reason: "its end was not seen".to_owned() },
            Some(0) => Ended::Success,
            // This is how shells report a program killed by a signal; other codes are the program's own.
            Some(code @ 129..=192) => {
                Ended::Failure { code: Some(code), reason: format!("exit code {code} (signal {})", code - 128) }
            }
            Some(code) => Ended::Failure { code: Some(code), reason: format!("exit code {code}") },
        })
    }
}

/// The end of a turn's processes.
enum Ending {
    NotAsked,
    Asked(JoinHandle<()>),
    Done,
}

impl Ending {
    /// Waits until what was requested is done, once.
    async fn done(&mut self) {
        match self {
            Self::Asked(_) => self.finish().await,
            Self::NotAsked | Self::Done => std::future::pending().await,
        }
    }

    async fn finish(&mut self) {
        if let Self::Asked(task) = self {
            let _ = task.await;
            *self = Self::Done;
        }
    }
}

/// How long to keep reading after a block has ended: a background process keeps the pipes open.
struct LastWords {
    silence: Instant,
    latest: Instant,
}

impl LastWords {
    fn from_now() -> Self {
        Self { silence: Instant::now() + SILENCE, latest: Instant::now() + LISTENING }
    }

    fn heard(&mut self) {
        self.silence = Instant::now() + SILENCE;
    }

    async fn over(this: Option<&Self>) {
        match this {
            Some(this) => sleep_until(this.silence.min(this.latest)).await,
            None => std::future::pending().await,
        }
    }
}

fn shell() -> &'static str {
    let has_bash = DEFAULT_PATH.split(':').any(|directory| Path::new(directory).join("bash").exists());
    if has_bash { "bash" } else { "sh" }
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reads a pipe to its end, even if nobody listens any more: a background process must not die of a closed pipe.
fn listen<R: AsyncRead + Unpin + Send + 'static>(
    stream: OutputStream,
    pipe: Option<R>,
    chunks: mpsc::Sender<(OutputStream, Vec<u8>)>,
) {
    let Some(mut pipe) = pipe else { return };
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut filled = match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let until = Instant::now() + GATHER;
            let mut ended = false;
            while filled < CHUNK && !ended && !chunks.is_closed() {
                match timeout(until - Instant::now(), pipe.read(&mut buffer[filled..])).await {
                    Ok(Ok(0) | Err(_)) => ended = true,
                    Ok(Ok(read)) => filled += read,
                    Err(_) => break,
                }
            }
            let _ = chunks.send((stream, buffer[..filled].to_vec())).await;
            if ended {
                return;
            }
        }
    });
}
