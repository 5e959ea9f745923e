//! Coming back to a log: how long it takes a client that was away for 10,000 events to have them all, and how soon one that wants a log of a
//! million events from its beginning has the first.
//!
//! The 10,000 are stored as a server stores what runners write; the million are filled in by SQL, since storing them so would take
//! minutes. Time begins before the connection is made: connecting and authenticating count. Beside it the same rows by one hand-written
//! query, whose connection is open already, and the same bytes through a WebSocket of a process that has them in memory.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use ambient_persistence::{Database, DatabaseOptions, RunnerBatch, TurnChanges};
use ambient_tests::TestDatabase;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::timeout;

use crate::{
    Failure,
    bare_sockets::{BareSockets, SEND},
    interleave::{millis, pair, percentile},
    live::record,
    server::Server,
    subscribers::{connect, next_event},
    table::Table,
};

const PROJECT: &str = "bench";
const MISSED: i64 = 10_000;
const LONG: i64 = 1_000_000;
/// Records of a batch, as a reader stores them.
const BATCH: i64 = 256;
const ROUNDS: usize = 20;
/// What they may take, milliseconds.
const RESUME: f64 = 100.0;
const FIRST: f64 = 50.0;
const PATIENCE: Duration = Duration::from_secs(30);
/// Events of a page of the server's.
const PAGE: i64 = 256;
const ROWS: &str = "select seq, at, type, data::text from ambient.session_events where session_id = $1 and seq > $2
                    order by seq limit $3";

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let server = Server::start(&database.url(), PROJECT).await?;
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await?;
    let pool = db.pool().clone();
    let stage = Stage { server, pool, http: Client::builder().no_proxy().build()? };
    resume(&stage, &db, table).await?;
    first_events(&stage, table).await?;
    stage.pool.close().await;
    Ok(())
}

struct Stage {
    server: Server,
    pool: PgPool,
    http: Client,
}

async fn resume(stage: &Stage, db: &Database, table: &mut Table) -> Result<(), Failure> {
    let id = stage.session().await?;
    let seen = db.last_seq(&id).await?;
    miss(db, &id).await?;
    let texts = stage.events(&id, seen, MISSED).await?;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all((texts.join("\n") + "\n").as_bytes())?;
    let bare = BareSockets::start(&file.path().to_string_lossy()).await?;
    let (mut ours, mut query, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let measured = [
            timed(stage.events(&id, seen, MISSED)).await?,
            timed(stage.rows(&id, seen, MISSED)).await?,
            timed(received(&bare.urls[0], None, SEND.to_owned(), MISSED)).await?,
        ];
        // The first of all warms up what all of them use.
        if round > 0 {
            ours.push(measured[0]);
            query.push(measured[1]);
            bytes.push(measured[2]);
        }
    }
    let figure = format!("resume after {MISSED} missed events: all of them received, p50 of {ROUNDS}");
    table.add(&*figure, "ms", pair(&ours, &query), "the same rows by one hand-written query");
    table.add(&*figure, "ms", pair(&ours, &bytes), "the same bytes through a bare WebSocket");
    table.compare(figure, "ms", percentile(&ours, 50), RESUME, "what it may take");
    let figure = format!("resume after {MISSED} missed events: the slowest of {ROUNDS}");
    table.compare(figure, "ms", percentile(&ours, 100), RESUME, "what it may take");
    Ok(())
}

async fn first_events(stage: &Stage, table: &mut Table) -> Result<(), Failure> {
    let id = stage.session().await?;
    fill(&stage.pool, &id).await?;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all((stage.events(&id, 0, PAGE).await?.join("\n") + "\n").as_bytes())?;
    let bare = BareSockets::start(&file.path().to_string_lossy()).await?;
    let places = [("from the beginning", 0), ("from the middle", LONG / 2)];
    for (name, after) in places {
        let (mut socket, mut sse, mut query, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let measured = [
                timed(stage.events(&id, after, 1)).await?,
                timed(stage.first_byte(&id, after)).await?,
                timed(stage.rows(&id, after, PAGE)).await?,
                timed(received(&bare.urls[0], None, SEND.to_owned(), 1)).await?,
            ];
            if round > 0 {
                for (values, measured) in [&mut socket, &mut sse, &mut query, &mut bytes].into_iter().zip(measured) {
                    values.push(measured);
                }
            }
        }
        for (way, ours) in [("WebSocket", &socket), ("Server-Sent Events", &sse)] {
            let figure = format!("first event of {LONG}, {name}, {way}, p50 of {ROUNDS}");
            let beside = format!("the first {PAGE} rows by one hand-written query");
            table.add(&*figure, "ms", pair(ours, &query), beside);
            table.add(&*figure, "ms", pair(ours, &bytes), "the first event of a bare WebSocket");
            table.compare(figure, "ms", percentile(ours, 50), FIRST, "what it may take");
        }
    }
    Ok(())
}

async fn timed<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<f64, Failure> {
    let began = Instant::now();
    timeout(PATIENCE, work).await??;
    Ok(millis(began.elapsed()))
}

/// Events of a new connection, until there are so many.
async fn received(url: &str, token: Option<&str>, first: String, count: i64) -> Result<Vec<String>, Failure> {
    let mut socket = connect(url, token, first).await?;
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(next_event(&mut socket).await?);
    }
    Ok(events)
}

impl Stage {
    async fn session(&self) -> Result<String, Failure> {
        let session = json!({"project_id": PROJECT, "interactive": true});
        let session = self.server.ask(Method::POST, "/sessions", session).await?;
        Ok(session["id"].as_str().ok_or("a session without id")?.to_owned())
    }

    /// So many events of the server, as a client that has seen what is before them gets them.
    async fn events(&self, id: &str, after: i64, count: i64) -> Result<Vec<String>, Failure> {
        let url = format!("ws://{}/api/ambient/v1/live", self.server.address);
        let subscribe = json!({"op": "subscribe", "id": "s", "channel": format!("session:{id}"), "after_seq": after});
        received(&url, Some(&self.server.token), subscribe.to_string(), count).await
    }

    /// The first piece of the stream.
    async fn first_byte(&self, id: &str, after: i64) -> Result<(), Failure> {
        let url = format!("http://{}/api/ambient/v1/sessions/{id}/events/stream", self.server.address);
        let request = self.http.get(url).query(&[("after_seq", after)]).bearer_auth(&self.server.token);
        let first = request.send().await?.error_for_status()?.chunk().await?;
        first.map(drop).ok_or_else(|| "a stream without a piece".into())
    }

    async fn rows(&self, id: &str, after: i64, count: i64) -> Result<(), Failure> {
        type Row = (i64, chrono::DateTime<chrono::Utc>, String, String);
        let query = sqlx::query_as::<_, Row>(ROWS).bind(id).bind(after).bind(count);
        let rows = query.fetch_all(&self.pool).await?;
        if i64::try_from(rows.len())? == count { Ok(()) } else { Err(format!("{} rows", rows.len()).into()) }
    }
}

/// Stores events as a server stores those of a runner.
async fn miss(db: &Database, id: &str) -> Result<(), Failure> {
    let lease = db.acquire_runner_lease(id, 1, "bench", Duration::from_secs(300)).await?.ok_or("no lease")?;
    let mut cursor = 0;
    while cursor < MISSED {
        let last = (cursor + BATCH).min(MISSED);
        let batch = RunnerBatch {
            session_id: id.to_owned(),
            run: 1,
            epoch: lease.epoch,
            log_id: "bench".to_owned(),
            cursor_before: cursor,
            changes: TurnChanges::default(),
            records: (cursor + 1..=last).map(record).collect(),
        };
        db.append_runner_events(batch).await?;
        cursor = last;
    }
    Ok(())
}

/// A log of a million events: rows as a runner's, without their transactions.
#[expect(clippy::disallowed_methods, reason = "nobody gives a bench's transactions up")]
async fn fill(pool: &PgPool, id: &str) -> Result<(), Failure> {
    let mut tx = pool.begin().await?;
    sqlx::query("set local statement_timeout = 0").execute(&mut *tx).await?;
    let stream =
        "update ambient.session_streams set next_seq = next_seq + $2 where session_id = $1 returning next_seq - $2";
    let first: i64 = sqlx::query_scalar(stream).bind(id).bind(LONG).fetch_one(&mut *tx).await?;
    let rows = "insert into ambient.session_events (session_id, seq, at, type, data, run, log_id, runner_seq)
                select $1, $2 + i - 1, now(), 'agent.text', $3, 1, 'filled', i from generate_series(1, $4::bigint) i";
    let data: Value = record(1).data;
    sqlx::query(rows).bind(id).bind(first).bind(data).bind(LONG).execute(&mut *tx).await?;
    tx.commit().await?;
    sqlx::query("vacuum analyze ambient.session_events").execute(pool).await?;
    Ok(())
}
