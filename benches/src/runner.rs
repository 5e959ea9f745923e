//! A runner as a process: how soon it answers after its launch, and what it remembers once it waits for a message. Beside it a process that
//! only answers on a socket.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use tokio::{
    net::UnixListener,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    Failure,
    interleave::{millis, pair, percentile},
    server::{anonymous_bytes, resident_bytes, short_dir},
    start,
    table::Table,
};

/// Makes this program a process with a socket, whose path is named next. It answers until it is killed.
pub(crate) const ARGUMENT: &str = "bare-runner";

const LAUNCHES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// For what it does once, after it has begun to answer.
const SETTLE: Duration = Duration::from_millis(300);
const MIB: f64 = 1024.0 * 1024.0;
/// What it may take and remember.
const READY: f64 = 60.0;
const RESIDENT: f64 = 12.0;

pub(crate) async fn serve(socket: &str) -> Result<(), Failure> {
    let router = Router::new().route("/health", get(async || "well"));
    Ok(axum::serve(UnixListener::bind(socket)?, router).await?)
}

/// What is looked at of a process.
#[derive(Default)]
struct Looks {
    ready: Vec<f64>,
    resident: Vec<f64>,
    anonymous: Vec<f64>,
}

impl Looks {
    async fn note(&mut self, ready: Duration, pid: u32) -> Result<(), Failure> {
        tokio::time::sleep(SETTLE).await;
        self.ready.push(millis(ready));
        self.resident.push(resident_bytes(pid)? / MIB);
        self.anonymous.push(anonymous_bytes(pid)? / MIB);
        Ok(())
    }
}

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let compute = start::Bare::new()?;
    let (mut ours, mut theirs) = (Looks::default(), Looks::default());
    for _ in 0..LAUNCHES {
        let (session, ready) = compute.launch().await?;
        ours.note(ready, compute.process(&session)?).await?;
        compute.end(&session).await?;
        let (ready, child, _dir) = bare().await?;
        theirs.note(ready, child.id().ok_or("the bare process has ended")?).await?;
    }
    let beside = "a bare process with a socket (axum)";
    let figure = format!("runner: launch until it answers, p50 of {LAUNCHES}");
    table.add(&*figure, "ms", pair(&ours.ready, &theirs.ready), beside);
    table.compare(figure, "ms", percentile(&ours.ready, 50), READY, "what it may take");
    let figure = "runner's resident memory, waiting for a message";
    table.add(figure, "MiB", pair(&ours.resident, &theirs.resident), beside);
    table.compare(figure, "MiB", percentile(&ours.resident, 50), RESIDENT, "what it may be");
    table.add("of it, not shared with other runners", "MiB", pair(&ours.anonymous, &theirs.anonymous), beside);
    Ok(())
}

/// Such a process, and how long it took to answer.
async fn bare() -> Result<(Duration, Child, tempfile::TempDir), Failure> {
    let dir = short_dir()?;
    let socket = dir.path().join("s");
    let began = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ARGUMENT).arg(&socket).stdin(Stdio::null()).kill_on_drop(true);
    let child = command.spawn()?;
    timeout(PATIENCE, answers(&socket)).await?;
    Ok((began.elapsed(), child, dir))
}

async fn answers(socket: &Path) {
    loop {
        let client = reqwest::Client::builder().unix_socket(socket.to_owned()).no_proxy().build();
        if let Ok(client) = client
            && client.get("http://bare/health").send().await.is_ok_and(|answer| answer.status().is_success())
        {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
