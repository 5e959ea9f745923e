//! What the peers have in common: lines that ask for rounds come in, a line of figures goes out for each.
//!
//! A peer says that it is ready once, with its version. `run COUNT IN_FLIGHT` starts so many workflows, so many of them at once,
//! and is answered when all results are there. The end of the input ends the peer, in the middle of a round too.

use std::{
    error::Error,
    io::Write,
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// What went wrong, in words.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// What a workflow begins with.
pub(crate) const INPUT: &str = "a";
/// What it ends with.
const RESULT: &str = "axxx";
/// From nothing to the first round.
const START: Duration = Duration::from_secs(60);
/// One workflow, beside all others.
const WORKFLOW: Duration = Duration::from_secs(30);
/// All of a round.
const ROUND: Duration = Duration::from_secs(120);
/// Count and in flight of what is run before it is ready: connections are opened, plans made, code paged in. A few one by one
/// first: a server that has only just started puts off much of a crowd.
const WARM_UP: [(usize, usize); 2] = [(20, 1), (400, 200)];
/// Orders that wait.
const ORDERS: usize = 16;

/// An engine that takes workflows. What it started ends with the value.
pub(crate) trait Engine {
    /// One workflow, from its start to its result.
    async fn workflow(&self) -> Result<String, Failure>;
    /// Of the engine, and of its SDK.
    fn version(&self) -> String;
    /// Takes no more, and lets go of what it holds elsewhere.
    async fn end(self) -> Result<(), Failure>;
}

/// Starts an engine and measures until there are no more orders.
pub(crate) async fn serve<E: Engine>(start: impl Future<Output = Result<E, Failure>>) -> ExitCode {
    match until_told(start).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.to_string().replace('\n', " | "));
            ExitCode::FAILURE
        }
    }
}

async fn until_told<E: Engine>(start: impl Future<Output = Result<E, Failure>>) -> Result<(), Failure> {
    let (mut orders, no_more) = orders();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut told = pin!(async {
        tokio::select! {
            _ = no_more => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let engine = tokio::select! {
        () = &mut told => return Ok(()),
        engine = timeout(START, start) => engine.map_err(|_| format!("not started after {START:?}"))??,
    };
    let result = tokio::select! {
        () = &mut told => Ok(()),
        result = rounds(&engine, &mut orders) => result,
    };
    let end = timeout(WORKFLOW, engine.end()).await.map_err(|_| format!("not ended after {WORKFLOW:?}"));
    result.and(end?)
}

/// Lines of the input, and word that there are no more of them.
fn orders() -> (mpsc::Receiver<String>, oneshot::Receiver<()>) {
    let (send, orders) = mpsc::channel(ORDERS);
    let (last, no_more) = oneshot::channel::<()>();
    // A thread apart: the runtime would wait for a read that nothing interrupts.
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lines().map_while(Result::ok);
        while lines.next().is_some_and(|line| send.blocking_send(line).is_ok()) {}
        drop(last);
    });
    (orders, no_more)
}

async fn rounds<E: Engine>(engine: &E, orders: &mut mpsc::Receiver<String>) -> Result<(), Failure> {
    for size in WARM_UP {
        round(engine, size).await?;
    }
    say(&json!({"ready": true, "version": engine.version()}))?;
    while let Some(order) = orders.recv().await {
        let size = size(&order).ok_or_else(|| format!("not `run COUNT IN_FLIGHT`: {order}"))?;
        say(&round(engine, size).await?)?;
    }
    Ok(())
}

/// Count and in flight.
fn size(order: &str) -> Option<(usize, usize)> {
    let (count, in_flight) = order.trim().strip_prefix("run ")?.split_once(' ')?;
    let (count, in_flight) = (count.parse().ok()?, in_flight.parse().ok()?);
    (count > 0 && in_flight > 0).then_some((count, in_flight))
}

fn say(line: &Value) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
async fn round<E: Engine>(engine: &E, (count, in_flight): (usize, usize)) -> Result<Value, Failure> {
    let began = Instant::now();
    let all = stream::iter(0..count).map(|_| timed(engine)).buffer_unordered(in_flight).try_collect();
    let all = timeout(ROUND, all).await.map_err(|_| format!("{count} workflows take longer than {ROUND:?}"))?;
    let (mut times, lasted): (Vec<f64>, f64) = (all?, began.elapsed().as_secs_f64());
    times.sort_by(f64::total_cmp);
    let percentile = |percent| times.get((count - 1) * percent / 100);
    Ok(json!({"p50_ms": percentile(50), "p99_ms": percentile(99), "per_second": count as f64 / lasted}))
}

/// Milliseconds of one workflow.
async fn timed<E: Engine>(engine: &E) -> Result<f64, Failure> {
    let began = Instant::now();
    let result = timeout(WORKFLOW, engine.workflow()).await;
    let result = result.map_err(|_| format!("a workflow takes longer than {WORKFLOW:?}"))??;
    if result != RESULT {
        return Err(format!("wrong result {result}").into());
    }
    Ok(began.elapsed().as_secs_f64() * 1_000.0)
}

/// The version of a dependency that is built in.
pub(crate) fn locked(name: &str) -> &'static str {
    let mut lines = include_str!("../Cargo.lock").lines();
    let heading = format!("name = \"{name}\"");
    let line = lines.find(|line| *line == heading).and_then(|_| lines.next());
    line.and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap_or("?")
}
