//! An agent's process.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use ambient_runner_protocol::LaunchSpec;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{oneshot, watch},
    time::timeout,
};

use super::placeholders::Values;
use crate::{
    attempt::Attempt,
    environment,
    process::{Mark, confined},
    rights::Rights,
};

/// How much of what it writes to standard error is kept, bytes: the end of it.
const KEPT: usize = 4 * 1024;
/// After its end, how long its standard error is still read.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A process, and what of it is known.
pub(super) struct Process {
    attempt: Arc<Attempt>,
    mark: String,
    ended: watch::Receiver<Option<Ended>>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) exit_code: Option<i32>,
    /// In words.
    pub(super) reason: String,
    /// The last that it wrote to standard error.
    pub(super) words: String,
}

/// Its standard input and output.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
}

impl Process {
    /// Starts the agent's command, with its rights and in its environment.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn start(
        attempt: &Arc<Attempt>,
        incarnation: u32,
        directory: &Path,
    ) -> Result<(Self, Pipes), String> {
        let command = attempt.spec.agent_command.as_ref().ok_or("the agent has no command")?;
        let mark = mark(attempt, incarnation);
        let cannot = |error: std::io::Error| format!("the agent cannot be started: {error}");
        let mut child =
            confined(&Rights::of_agent(&attempt.spec), directory, command.program.as_ref()).map_err(cannot)?;
        let values = Values::of(attempt, command);
        let own = command.environment.iter().filter_map(|(name, value)| Some((name.clone(), values.put(value)?)));
        let environment = environment::of_acp_agent(attempt, own, &mark);
        child.args(command.args.iter().filter_map(|arg| values.put(arg))).envs(environment).stdin(Stdio::piped());
        let (sender, ended) = watch::channel(None);
        let (pipes, started) = oneshot::channel();
        tokio::spawn(watch_over(attempt.clone(), child, pipes, sender));
        let pipes = started.await.map_err(|_| "the agent cannot be started".to_owned())?.map_err(cannot)?;
        Ok((Self { attempt: attempt.clone(), mark, ended }, pipes))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_else(Ended::unseen),
            Err(_) => Ended::unseen(),
        }
    }

    /// Ends it with everything that it has started.
    pub(super) async fn end(&self, patience: Duration) {
        self.attempt.processes.end(Mark::Turn(self.mark.clone()), patience).await;
    }

    /// Ends what it has started since then, and not itself.
    pub(super) async fn end_since(&self, ticks: u64, patience: Duration) {
        self.attempt.processes.end(Mark::Since { of: self.mark.clone(), ticks }, patience).await;
    }
}

impl Ended {
    /// With its last words.
    pub(super) fn in_full(self) -> String {
        if self.words.is_empty() { self.reason } else { format!("{}: {}", self.reason, self.words) }
    }

    fn unseen() -> Self {
        Self { exit_code: None, reason: "the agent's end was not seen".to_owned(), words: String::new() }
    }
}

/// What marks the processes of an agent, and names what it makes.
pub(super) fn mark(attempt: &Attempt, incarnation: u32) -> String {
    let LaunchSpec { session_id, run, attempt: number, .. } = &attempt.spec;
    format!("{session_id}/{run}/agent-{number}-{incarnation}")
}

/// Starts the command, and tells how it ends.
async fn watch_over(
    attempt: Arc<Attempt>,
    mut command: Command,
    pipes: oneshot::Sender<std::io::Result<Pipes>>,
    ended: watch::Sender<Option<Ended>>,
) {
    let (mut child, _awaited) = match attempt.processes.spawn(&mut command) {
        Ok(started) => started,
        Err(error) => return drop(pipes.send(Err(error))),
    };
    let words = tokio::spawn(last_words(child.stderr.take()));
    let Some((stdin, stdout)) = child.stdin.take().zip(child.stdout.take()) else {
        return drop(pipes.send(Err(std::io::Error::other("it has no pipes"))));
    };
    let _ = pipes.send(Ok(Pipes { stdin, stdout }));
    let status = child.wait().await;
    let words = timeout(LAST_WORDS, words).await.ok().and_then(Result::ok).unwrap_or_default();
    let reason = match &status {
        Ok(status) => format!("the agent ended with {status}"),
        Err(error) => format!("the agent's end was not seen: {error}"),
    };
    ended.send_replace(Some(Ended { exit_code: status.ok().and_then(|status| status.code()), reason, words }));
}

/// Reads standard error to its end; returns the last of it.
async fn last_words(stderr: Option<ChildStderr>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut reader = BufReader::new(stderr);
    let mut kept: Vec<u8> = Vec::new();
    loop {
        // By parts of bounded size, whatever it takes for a line.
        let mut part = Vec::new();
        let read = (&mut reader).take(KEPT as u64).read_until(b'\n', &mut part).await;
        match read {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                kept.extend_from_slice(&part);
                let excess = kept.len().saturating_sub(KEPT);
                kept.drain(..excess);
            }
        }
    }
    String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}").trim().to_owned()
}
