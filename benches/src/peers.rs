//! Other durable engines, each a separate program that is asked for rounds of the same three-step workflow.
//!
//! The environment says which there are (`scripts/lib/peers`); `benches/peers` says what they are. A peer is warm when it is
//! ready, and ends with its value: at the end of its input it ends whatever it has started.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::Failure;

/// The Restate peer's program; it finds its server in `RESTATE_SERVER`.
pub(crate) const RESTATE: &str = "AMBIENT_PEER_RESTATE";
/// The program of DBOS's Rust crate.
pub(crate) const DBOS: &str = "AMBIENT_PEER_DBOS";
/// The program of DBOS's Python package.
pub(crate) const DBOS_PYTHON: &str = "AMBIENT_PEER_DBOS_PYTHON";

/// Server, service and warm-up.
const START: Duration = Duration::from_secs(90);
/// A round; the peer itself gives up a little earlier.
const ROUND: Duration = Duration::from_secs(130);
/// From the end of the input to the end of the process.
const END: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A peer that is ready.
pub(crate) struct PeerProcess {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    version: String,
}

/// Figures of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerRun {
    /// Milliseconds from start to result, of the median workflow.
    pub(crate) p50: f64,
    /// Workflows.
    pub(crate) per_second: f64,
}

impl PeerProcess {
    /// The peer whose program a variable of the environment names; none where it names none.
    pub(crate) async fn from_environment(
        variable: &str,
        arguments: &[&str],
        database_url: &str,
    ) -> Result<Option<Self>, Failure> {
        let Some(program) = std::env::var_os(variable) else { return Ok(None) };
        Ok(Some(Self::start(program.as_ref(), arguments, database_url).await?))
    }

    /// Starts a peer and waits until it is ready. Those that need a database take it for themselves, with a schema of their own
    /// making.
    pub(crate) async fn start(program: &Path, arguments: &[&str], database_url: &str) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.args(arguments).env("DATABASE_URL", database_url).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own, so that what it starts can be ended if it does not do so itself.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| format!("{}: {error}", program.display()))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take().ok_or("no standard output")?);
        let answers = BufReader::new(answers).lines();
        let mut peer = Self { child, orders, answers, version: String::new() };
        let first = peer.answer(START).await?;
        let version = first["version"].as_str().filter(|_| first["ready"] == true);
        peer.version = version.ok_or_else(|| format!("not ready: {first}"))?.to_owned();
        Ok(peer)
    }

    /// Of what is measured.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// So many workflows, so many of them at once.
    pub(crate) async fn run(&mut self, count: usize, in_flight: usize) -> Result<PeerRun, Failure> {
        let orders = self.orders.as_mut().ok_or("the peer has ended")?;
        timeout(ROUND, orders.write_all(format!("run {count} {in_flight}\n").as_bytes())).await??;
        let answer = self.answer(ROUND).await?;
        let figure = |name: &str| answer[name].as_f64().ok_or_else(|| format!("no {name}: {answer}"));
        Ok(PeerRun { p50: figure("p50_ms")?, per_second: figure("per_second")? })
    }

    /// The next line. Where there is none, the peer has said on standard error why.
    async fn answer(&mut self, patience: Duration) -> Result<Value, Failure> {
        let line = timeout(patience, self.answers.next_line()).await;
        let line = line.map_err(|_| format!("a peer does not answer within {patience:?}"))??;
        Ok(serde_json::from_str(&line.ok_or("a peer has ended early")?)?)
    }

    /// Ends it; one that does not end as it should is an error.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        self.orders.take();
        let status = timeout(END, self.child.wait()).await.map_err(|_| "a peer does not end")??;
        if status.success() { Ok(()) } else { Err(format!("a peer has ended with {status}").into()) }
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // Nothing to do after `end`.
        let Some(pid) = self.child.id() else { return };
        self.orders.take();
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() < deadline {
                std::thread::sleep(LOOK_AGAIN);
            } else if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It and what it has started; it may have ended meanwhile.
                let _ = kill_process_group(group, Signal::KILL);
                return;
            }
        }
    }
}
