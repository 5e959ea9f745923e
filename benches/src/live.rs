//! From a commit to 1,000 WebSocket subscribers, on real sockets, through a real server process.
//!
//! This process stores events with the function a server uses to store what a runner's agent says, and the server is
//! told by NOTIFY, as it is of everything that another server commits. Time starts when the commit is acknowledged. The
//! ceiling is [`RawBroadcast`]: another process is notified through a pipe and sends the same bytes, without database or log.

use std::time::{Duration, Instant};

use ambient_persistence::{
    Database, DatabaseOptions, Hint, Hints, RunnerBatch, RunnerLease, RunnerRecord, TurnChanges,
};
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
/// Events of a measurement of latency, at least, and for each session; and the time between two of them.
const PACED: usize = 40;
const PACED_EACH: usize = 3;
const PACE: Duration = Duration::from_millis(50);
/// Events of a measurement of throughput.
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
    for (in_commit, name) in [(1, "one commit each"), (BURST, "one commit")] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            ours.push(stage.throughput(true, in_commit).await?);
            theirs.push(stage.throughput(false, in_commit).await?);
        }
        let figure = format!("{BURST} events, {name}, to 1,000 of 1 session");
        table.add(figure, "events/s", pair(&ours, &theirs), "raw broadcast, told at the same commits");
    }
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

/// What connections cost before anything is sent: the second thousand, since the first may fit into what is free.
async fn memory(stage: &mut Stage, table: &mut Table) -> Result<(), Failure> {
    let mut each = [0.0; 2];
    for (ours, each) in [true, false].into_iter().zip(&mut each) {
        let first = stage.subscribe(ours, 1, SUBSCRIBERS).await?;
        let before = stage.resident_bytes(ours)?;
        let second = stage.subscribe(ours, 1, SUBSCRIBERS).await?;
        *each = (stage.resident_bytes(ours)? - before) / 1024.0 / 1_000.0;
        first.finish(0).await?;
        second.finish(0).await?;
    }
    let figure = "server's memory of a subscriber";
    table.add(figure, "KiB", ratio(each[0], each[1]), "raw broadcast (default buffers)");
    Ok(())
}

impl Stage {
    fn resident_bytes(&self, ours: bool) -> Result<f64, Failure> {
        if ours { self.server.resident_bytes() } else { self.raw.resident_bytes() }
    }

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

    /// Stores events; the moment at which their commit was acknowledged.
    async fn append(&mut self, group: usize, events: usize) -> Result<Instant, Failure> {
        let log = &mut self.logs[group];
        let records: Vec<_> = (log.cursor + 1..).take(events).map(record).collect();
        let cursor = records.last().ok_or("no events")?.n;
        let batch = RunnerBatch {
            session_id: log.session_id.clone(),
            run: RUN,
            epoch: log.lease.epoch,
            log_id: "bench".to_owned(),
            cursor_before: log.cursor,
            changes: TurnChanges::default(),
            records,
        };
        log.last_seq = self.db.append_runner_events(batch).await?;
        let committed = Instant::now();
        log.cursor = cursor;
        self.hints.publish(Hint::Recorded(log.session_id.clone()));
        Ok(committed)
    }

    /// The text of such an event as a subscriber gets it, for the raw broadcast.
    async fn sample(&mut self) -> Result<String, Failure> {
        let log = &self.logs[0];
        let url = format!("ws://{}/api/ambient/v1/live", self.server.address);
        let channel = format!("session:{}", log.session_id);
        let first = json!({"op": "subscribe", "id": "s", "channel": channel, "after_seq": log.last_seq});
        let mut socket = connect(&url, Some(&self.server.token), first.to_string()).await?;
        self.append(0, 1).await?;
        next_event(&mut socket).await
    }

    async fn emit(&mut self, ours: bool, group: usize, sample: &str) -> Result<Instant, Failure> {
        if ours {
            return self.append(group, 1).await;
        }
        let sent = Instant::now();
        self.raw.send(group, &[sample]).await?;
        Ok(sent)
    }

    /// Milliseconds from commit to every subscriber, of single events.
    async fn latencies(&mut self, ours: bool, groups: usize) -> Result<Vec<f64>, Failure> {
        let sample = self.sample().await?;
        let subscribers = self.subscribe(ours, groups, SUBSCRIBERS).await?;
        let events = PACED.div_ceil(groups).max(PACED_EACH);
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

    /// Events a second over all subscribers, from the first commit until the last arrival. The raw broadcast is told when the same events
    /// are committed to a log that nobody reads: it too has a busy database beside it, and has together what ours has together.
    async fn throughput(&mut self, ours: bool, in_commit: usize) -> Result<f64, Failure> {
        let sample = self.sample().await?;
        let subscribers = self.subscribe(ours, 1, SUBSCRIBERS).await?;
        let log = if ours { 0 } else { self.logs.len() - 1 };
        let mut began = None;
        for _ in 0..BURST / in_commit {
            let committed = self.append(log, in_commit).await?;
            began.get_or_insert(committed);
            if !ours {
                self.raw.send(0, &vec![sample.as_str(); in_commit]).await?;
            }
        }
        let arrivals = subscribers.finish(BURST).await?;
        let last = arrivals.iter().filter_map(|(_, times)| times.last()).max().ok_or("nothing arrived")?;
        let took = last.saturating_duration_since(began.ok_or("nothing was committed")?);
        Ok(per_second((BURST * SUBSCRIBERS) as u64, took))
    }
}

/// What an agent says, as a runner records it.
pub(crate) fn record(n: i64) -> RunnerRecord {
    let data = json!({"type": "agent.text", "message_id": "m1", "text": crate::domain::TEXT});
    RunnerRecord { n, at: chrono::Utc::now(), event_type: "agent.text".to_owned(), data }
}
