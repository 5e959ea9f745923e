//! What the server remembers of WebSockets that wait: 10,000 of them (fewer where the limit of open files is too low for that many from
//! one address), beside a process that only holds as many.
//!
//! Each is authenticated; none, or each, follows a session's log. They are looked at after their first keep-alive, which is what makes a
//! connection's buffers. What the kernel has of them is in neither figure.

use std::time::Duration;

use ambient_tests::TestDatabase;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde_json::json;

use crate::{
    Failure,
    bare_sockets::{BareSockets, HOLD},
    limits,
    server::Server,
    subscribers::{Socket, connect_small},
    table::Table,
};

const SOCKETS: usize = 10_000;
/// Those that come first: what a server makes once is not counted to them.
const FIRST: usize = 500;
const SESSIONS: usize = 100;
const PROJECT: &str = "bench";
/// For half of its open files a server takes connections, all but a twelfth of them from its own address.
const OPEN_FILES: u64 = 24_576;
/// Of these, what is used for other things than the sockets.
const OTHER: usize = 100;
/// What one may cost, KiB.
const ALLOWED: f64 = 8.0;
/// Longer than the keep-alive.
const SETTLE: Duration = Duration::from_secs(20);

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let connections = usize::try_from(limits::most_open_files(OPEN_FILES)?)? / 2;
    let count = SOCKETS.min((connections - connections / 12).saturating_sub(OTHER)).max(2 * FIRST);
    let bare = [bare(count, 0).await?, bare(count, 1).await?];
    for (follow, name) in [(false, "that waits"), (true, "that follows a log and waits")] {
        let ours = ours(count, follow).await?;
        let figure = format!("server's memory of a WebSocket {name}, {count} of them");
        table.compare(&*figure, "KiB", ours, bare[0], "bare tokio-tungstenite, its buffers");
        table.compare(&*figure, "KiB", ours, bare[1], "bare tokio-tungstenite, buffers as small as ours");
        table.compare(figure, "KiB", ours, ALLOWED, "what it may be");
    }
    Ok(())
}

async fn ours(count: usize, follow: bool) -> Result<f64, Failure> {
    let database = TestDatabase::new().await;
    let server = Server::start(&database.url(), PROJECT).await?;
    let mut channels = Vec::new();
    for _ in 0..SESSIONS {
        let session = json!({"project_id": PROJECT, "interactive": true});
        let session = server.ask(Method::POST, "/sessions", session).await?;
        channels.push(format!("session:{}", session["id"].as_str().ok_or("a session without id")?));
    }
    let url = format!("ws://{}/api/ambient/v1/live", server.address);
    let (server, channels, url) = (&server, &channels, &*url);
    let open = |n: usize| {
        let subscribe = json!({"op": "subscribe", "id": "s", "channel": channels[n % SESSIONS], "after_seq": 0});
        let first = if follow { subscribe } else { json!({"op": "ping"}) };
        async move { connect_small(url, Some(&server.token), first.to_string()).await }
    };
    each(count, &open, || server.resident_bytes()).await
}

async fn bare(count: usize, buffers: usize) -> Result<f64, Failure> {
    let bare = BareSockets::start("").await?;
    let bare = &bare;
    let open = |_| async move { connect_small(&bare.urls[buffers], None, HOLD.to_owned()).await };
    each(count, &open, || bare.resident_bytes()).await
}

/// KiB that each of the later sockets adds.
#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
async fn each<F: Future<Output = Result<Socket, Failure>>>(
    count: usize,
    open: &impl Fn(usize) -> F,
    resident: impl Fn() -> Result<f64, Failure>,
) -> Result<f64, Failure> {
    let first = opened(0..FIRST, open).await?;
    tokio::time::sleep(SETTLE).await;
    let before = resident()?;
    let rest = opened(FIRST..count, open).await?;
    tokio::time::sleep(SETTLE).await;
    let after = resident()?;
    drop((first, rest));
    Ok((after - before) / 1024.0 / (count - FIRST) as f64)
}

async fn opened<F: Future<Output = Result<Socket, Failure>>>(
    which: std::ops::Range<usize>,
    open: &impl Fn(usize) -> F,
) -> Result<Vec<Socket>, Failure> {
    stream::iter(which.map(open)).buffer_unordered(32).try_collect().await
}
