//! One shell block as a tool call, its output streamed while it runs.

use std::{io::Write, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus, time::Duration};

use ambient_wire::runner::custom;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{DEFAULT_PATH, environment, event};
use crate::{
    confine::Rights,
    life,
    log::LogError,
    process::{Awaited, Mark, confined},
    turn::{INTERRUPT_PATIENCE, Turn},
};

/// Most bytes of text in one output record.
const CHUNK: usize = 16 * 1024;
/// Most bytes of a block's output in the log.
const MAX_STREAMED: usize = 1024 * 1024;
/// Most bytes of output in the result.
const RESULT: usize = 64 * 1024;
/// Output is gathered for so long before it is recorded.
const GATHER: Duration = Duration::from_millis(20);
/// A background process keeps the pipes open after the block's end: it is listened to until it is silent for so long, and
/// in any case no longer than the second time.
const SILENCE: Duration = Duration::from_millis(100);
const LISTENING: Duration = Duration::from_secs(1);

/// How a block ended.
pub(super) enum Ended {
    Success,
    Failure { code: i32, reason: String },
    Stopped,
}

/// A tool call `shell`.
pub(super) struct Call<'a> {
    pub(super) turn: &'a Turn,
    pub(super) id: String,
    pub(super) number: u32,
}

impl Call<'_> {
    pub(super) async fn run(&self, script: &str, directory: &Path) -> Result<Ended, LogError> {
        self.turn.emit(event::tool_call(&self.id, "shell", script)).await?;
        let (mut child, _awaited) = match self.spawn(script, directory) {
            Ok(started) => started,
            Err(error) => {
                life::note_want_of_space(&error);
                return self.result(&format!("cannot start: {error}"), Some(127)).await;
            }
        };
        let (status, output) = self.follow(&mut child).await?;
        match status {
            Some(status) => self.result(&output, Some(code_of(status))).await,
            None => self.result(&output, None).await,
        }
    }

    fn spawn(&self, script: &str, directory: &Path) -> std::io::Result<(Child, Awaited<'_>)> {
        let app = &self.turn.app;
        let file = app.paths.tmp().join(format!("block-{}-{}.sh", self.turn.number, self.number));
        life::create_new(&file)?.write_all(script.as_bytes())?;
        let mut command = confined(&Rights::of_agent(&app.spec), directory, shell().as_ref())?;
        command.arg("-eu").arg(&file).envs(environment(app, &self.turn.run_id));
        app.processes.spawn(&mut command)
    }

    /// Streams output until the block has ended; no status when the turn was stopped.
    async fn follow(&self, child: &mut Child) -> Result<(Option<ExitStatus>, String), LogError> {
        let mut output = Output::new(self);
        let (chunks, mut received) = mpsc::channel(16);
        listen("stdout", child.stdout.take(), chunks.clone());
        listen("stderr", child.stderr.take(), chunks);
        let (mut status, mut ending) = (None, None);
        let (mut silence, mut latest) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                chunk = received.recv() => match chunk {
                    Some((stream, bytes)) => {
                        silence = Instant::now() + SILENCE;
                        output.take(stream, &bytes).await?;
                    }
                    None => {
                        status = status.or(child.wait().await.ok());
                        break;
                    }
                },
                waited = child.wait(), if status.is_none() => {
                    silence = Instant::now() + SILENCE;
                    latest = Instant::now() + LISTENING;
                    status = waited.ok();
                    if status.is_none() { break }
                }
                () = sleep_until(silence.min(latest)), if status.is_some() => break,
                () = self.turn.stopped(), if ending.is_none() => {
                    let processes = self.turn.app.processes.clone();
                    let mark = Mark::Turn(self.turn.run_id.clone());
                    ending = Some(tokio::spawn(async move { processes.end(mark, INTERRUPT_PATIENCE).await }));
                }
            }
        }
        let text = output.finish().await?;
        let Some(ending) = ending else { return Ok((status, text)) };
        let _ = ending.await;
        Ok((None, text))
    }

    async fn result(&self, output: &str, code: Option<i32>) -> Result<Ended, LogError> {
        self.turn.emit(vec![event::tool_result(&self.id, output, code)]).await?;
        Ok(match code {
            None => Ended::Stopped,
            Some(0) => Ended::Success,
            Some(code) if code > 128 => {
                Ended::Failure { code, reason: format!("exit code {code} (signal {})", code - 128) }
            }
            Some(code) => Ended::Failure { code, reason: format!("exit code {code}") },
        })
    }
}

fn shell() -> &'static str {
    let has_bash = DEFAULT_PATH.split(':').any(|directory| Path::new(directory).join("bash").exists());
    if has_bash { "bash" } else { "sh" }
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reads a pipe to its end, also when nobody listens any more: a background process must not die of a closed pipe.
fn listen<R: AsyncRead + Unpin + Send + 'static>(
    stream: &'static str,
    pipe: Option<R>,
    chunks: mpsc::Sender<(&'static str, Vec<u8>)>,
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

/// A block's output on its way into the log.
struct Output<'a> {
    call: &'a Call<'a>,
    stdout: Decoder,
    stderr: Decoder,
    streamed: usize,
    truncated: bool,
    tail: String,
}

impl<'a> Output<'a> {
    fn new(call: &'a Call<'a>) -> Self {
        let (stdout, stderr) = (Decoder::default(), Decoder::default());
        Self { call, stdout, stderr, streamed: 0, truncated: false, tail: String::new() }
    }

    async fn take(&mut self, stream: &'static str, bytes: &[u8]) -> Result<(), LogError> {
        let decoder = if stream == "stdout" { &mut self.stdout } else { &mut self.stderr };
        let text = decoder.decode(bytes);
        self.record(stream, &text).await
    }

    async fn record(&mut self, stream: &'static str, text: &str) -> Result<(), LogError> {
        self.tail.push_str(text);
        if self.tail.len() > 2 * RESULT {
            self.tail = last(&self.tail, RESULT).to_owned();
            self.truncated = true;
        }
        if self.streamed > MAX_STREAMED {
            return Ok(());
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.floor_char_boundary(CHUNK));
            self.streamed += chunk.len();
            self.emit(stream, chunk).await?;
            rest = after;
            if self.streamed > MAX_STREAMED {
                return self.emit("stderr", "\n[more output is not recorded: the limit is 1 MiB a block]\n").await;
            }
        }
        Ok(())
    }

    async fn emit(&self, stream: &str, text: &str) -> Result<(), LogError> {
        let value = json!({ "toolCallId": self.call.id, "stream": stream, "text": text });
        self.call.turn.emit(vec![event::custom(custom::TOOL_OUTPUT, value)]).await
    }

    /// The last part of the whole output.
    async fn finish(mut self) -> Result<String, LogError> {
        for stream in ["stdout", "stderr"] {
            let decoder = if stream == "stdout" { &mut self.stdout } else { &mut self.stderr };
            let text = decoder.finish();
            self.record(stream, &text).await?;
        }
        let tail = last(&self.tail, RESULT);
        let cut = self.truncated || tail.len() < self.tail.len();
        Ok(if cut { format!("[the beginning is left out]\n{tail}") } else { tail.to_owned() })
    }
}

fn last(text: &str, most: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most))..]
}

/// Bytes into text: characters split over chunks are kept whole; what is no UTF-8, and NUL, becomes U+FFFD.
#[derive(Default)]
struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.pending);
        let mut text = String::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(length) = error.error_len() else {
                        self.pending = invalid.to_vec();
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &invalid[length..];
                }
            }
        }
        text.replace('\0', "\u{FFFD}")
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Decoder;

    #[test]
    fn characters_split_over_chunks_stay_whole_and_rubbish_is_replaced() {
        let mut decoder = Decoder::default();
        let bytes = "aé€😀".as_bytes();
        let text: String = bytes.iter().map(|byte| decoder.decode(&[*byte])).collect();
        assert_eq!(text, "aé€😀");
        assert_eq!(decoder.decode(b"\xffx\0\xe2\x82"), "\u{FFFD}x\u{FFFD}");
        assert_eq!(decoder.finish(), "\u{FFFD}");
    }
}
