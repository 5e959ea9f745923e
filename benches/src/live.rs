//! From a commit to 1,000 WebSocket subscribers, on real sockets, through a real server process.
//!
//! This process stores events with the function a server uses to store what a runner's agent says, and the server is
//! told by NOTIFY, as it is of everything that another server commits. Time starts when the commit is acknowledged. The
//! ceiling is [`RawBroadcast`]: another process is notified through a pipe and sends the same bytes, without database or log.

use std::time::{Duration, Instant};

use ambient_persistence::{Database, DatabaseOptions, Hint, Hints, RunnerBatch, RunnerLease, RunnerRecord};
use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::json;

use crate::{
    Failure,
    interleave::{millis, pair, per_second, percentile},
    raw_broadcast::RawBroadcast,
    server::Server,
    subscribers::{Socket, Subscribers, connect, next_event},
    table::{Pair, Table},
};

const SUBSCRIBERS: usize = 1_000;
const PROJECT: &str = "bench";
const RUN: i64 = 1;
const LEASE: Duration = Duration::from_secs(300);
/// Events of a measurement of latency, and the time between two of them.
const PACED: usize = 40;
const PACE: Duration = Duration::from_millis(100);
/// Events of a measurement of throughput, one commit each.
const BURST: usize = 200;

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let server = Server::start(&database.url(), PROJECT).await?;
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await?;
    let hints = Hints::start(&db);
    let mut stage = Stage { server, db, hints, raw: RawBroadcast::start().await?, logs: Vec::new() };
    for _ in 0..100 {
        let log = stage.new_log().await?;
        stage.logs.push(log);
    }
    memory(&mut stage, table).await?;
    for (groups, name) in [(1, "1 session with 1,000"), (100, "100 sessions with 10 each")] {
        let ours = stage.latencies(true, groups).await?;
        let theirs = stage.latencies(false, groups).await?;
        for percent in [50, 99] {
            let pair = ratio(percentile(&ours, percent), percentile(&theirs, percent));
            let figure = format!("commit -> WebSocket, {name}, p{percent}");
            table.add(figure, "ms", pair, format!("raw broadcast, p{percent}"));
        }
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        ours.push(stage.throughput(true).await?);
        theirs.push(stage.throughput(false).await?);
    }
    table.add("events delivered, 1 session with 1,000", "events/s", pair(&ours, &theirs), "raw broadcast");
    stage.hints.stop();
    stage.db.close().await;
    Ok(())
}

fn ratio(ours: f64, theirs: f64) -> Pair {
    Pair { ours, theirs, ratio: ours / theirs }
}

/// A session's log that is written here.
struct Log {
    session_id: String,
    lease: RunnerLease,
    cursor: i64,
    last_seq: i64,
}

struct Stage {
    server: Server,
    db: Database,
    hints: Hints,
    raw: RawBroadcast,
    logs: Vec<Log>,
}

/// Connections cost memory before anything is sent.
async fn memory(stage: &mut Stage, table: &mut Table) -> Result<(), Failure> {
    // The first ones pay for what is made once.
    let warm = [stage.subscribe(true, 1, 50).await?, stage.subscribe(false, 1, 50).await?];
    let before = (stage.server.resident_bytes()?, stage.raw.resident_bytes()?);
    let ours = stage.subscribe(true, 1, SUBSCRIBERS).await?;
    let theirs = stage.subscribe(false, 1, SUBSCRIBERS).await?;
    let each = |before: f64, after: f64| (after - before) / 1024.0 / 1_000.0;
    let (after_ours, after_theirs) = (stage.server.resident_bytes()?, stage.raw.resident_bytes()?);
    let pair = ratio(each(before.0, after_ours), each(before.1, after_theirs));
    table.add("server's memory of a subscriber", "KiB", pair, "raw broadcast (default buffers)");
    for subscribers in warm.into_iter().chain([ours, theirs]) {
        subscribers.finish(0).await?;
    }
    Ok(())
}

impl Stage {
    async fn new_log(&self) -> Result<Log, Failure> {
        let session = json!({"project_id": PROJECT, "interactive": true});
        let session = self.server.ask(Method::POST, "/sessions", session).await?;
        let session_id = session["id"].as_str().ok_or("a session without id")?.to_owned();
        let lease = self.db.acquire_runner_lease(&session_id, RUN, "bench", LEASE).await?.ok_or("no lease")?;
        let last_seq = self.db.last_seq(&session_id).await?;
        Ok(Log { session_id, lease, cursor: 0, last_seq })
    }

    /// Subscribers of the first `groups` sessions, or of as many groups of the raw broadcast.
    async fn subscribe(&self, ours: bool, groups: usize, all: usize) -> Result<Subscribers, Failure> {
        let live = format!("ws://{}/api/ambient/v1/live", self.server.address);
        let open = async |group: usize| -> Result<Socket, Failure> {
            if !ours {
                return connect(&self.raw.url, None, group.to_string()).await;
            }
            let log = &self.logs[group];
            let channel = format!("session:{}", log.session_id);
            let first = json!({"op": "subscribe", "id": "s", "channel": channel, "after_seq": log.last_seq});
            connect(&live, Some(&self.server.token), first.to_string()).await
        };
        Subscribers::open(groups, all / groups, open).await
    }

    /// Stores an event; the moment at which its commit was acknowledged.
    async fn append(&mut self, group: usize) -> Result<Instant, Failure> {
        let log = &mut self.logs[group];
        let batch = RunnerBatch {
            session_id: log.session_id.clone(),
            run: RUN,
            epoch: log.lease.epoch,
            log_id: "bench".to_owned(),
            cursor_before: log.cursor,
            records: vec![record(log.cursor + 1)],
        };
        log.last_seq = self.db.append_runner_events(batch).await?;
        let committed = Instant::now();
        log.cursor += 1;
        self.hints.publish(Hint::Live(log.session_id.clone()));
        Ok(committed)
    }

    /// The text of such an event as a subscriber gets it, for the raw broadcast.
    async fn sample(&mut self) -> Result<String, Failure> {
        let log = &self.logs[0];
        let url = format!("ws://{}/api/ambient/v1/live", self.server.address);
        let channel = format!("session:{}", log.session_id);
        let first = json!({"op": "subscribe", "id": "s", "channel": channel, "after_seq": log.last_seq});
        let mut socket = connect(&url, Some(&self.server.token), first.to_string()).await?;
        self.append(0).await?;
        next_event(&mut socket).await
    }

    async fn emit(&mut self, ours: bool, group: usize, sample: &str) -> Result<Instant, Failure> {
        if ours {
            return self.append(group).await;
        }
        let sent = Instant::now();
        self.raw.send(group, sample).await?;
        Ok(sent)
    }

    /// Milliseconds from commit to every subscriber, of single events.
    async fn latencies(&mut self, ours: bool, groups: usize) -> Result<Vec<f64>, Failure> {
        let sample = self.sample().await?;
        let subscribers = self.subscribe(ours, groups, SUBSCRIBERS).await?;
        let events = PACED.div_ceil(groups);
        let mut sent = vec![Vec::new(); groups];
        for n in 0..events * groups {
            sent[n % groups].push(self.emit(ours, n % groups, &sample).await?);
            tokio::time::sleep(PACE).await;
        }
        let arrivals = subscribers.finish(events).await?;
        let latencies = arrivals.iter().flat_map(|(group, times)| {
            times.iter().zip(&sent[*group]).map(|(arrived, sent)| millis(arrived.saturating_duration_since(*sent)))
        });
        Ok(latencies.collect())
    }

    /// Events a second over all subscribers, from the first commit to the last arrival.
    async fn throughput(&mut self, ours: bool) -> Result<f64, Failure> {
        let sample = self.sample().await?;
        let subscribers = self.subscribe(ours, 1, SUBSCRIBERS).await?;
        let began = Instant::now();
        for _ in 0..BURST {
            self.emit(ours, 0, &sample).await?;
        }
        let arrivals = subscribers.finish(BURST).await?;
        let last = arrivals.iter().filter_map(|(_, times)| times.last()).max().ok_or("nothing arrived")?;
        Ok(per_second((BURST * SUBSCRIBERS) as u64, last.saturating_duration_since(began)))
    }
}

fn record(n: i64) -> RunnerRecord {
    let data = json!({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m1", "delta": crate::domain::TEXT});
    RunnerRecord { n, at: chrono::Utc::now(), event_type: "TEXT_MESSAGE_CONTENT".to_owned(), data }
}
