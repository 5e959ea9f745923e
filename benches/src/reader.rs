//! What runners write, through the server's reader: over their sockets into the table, and from it to a subscriber of each.
//!
//! The runners stand in this process and have all their records ready, so that nothing but the reader is measured: real ones sync each batch
//! to their own log first. The ceiling is the same rows in the same tables (events, stream, cursor, lease, activity) by one hand-written
//! prepared statement for each batch, on as many connections as there are runners, which delivers nothing.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ambient_domain::session::{Fact, Session};
use ambient_live::{
    EndpointError, FactError, FactSink, HubOptions, LiveHub, ReaderOptions, RunnerEndpoints, RunnerReaders, Tokens,
};
use ambient_runner_protocol::{ReaderHello, Record, RunnerFrame};
use async_trait::async_trait;
use axum::{
    Router,
    extract::{
        WebSocketUpgrade,
        ws::{Message, Utf8Bytes, WebSocket},
    },
    http::StatusCode,
    routing::any,
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::watch, task::JoinSet, time::timeout};

use crate::{
    Failure,
    domain::{World, fact_request},
    interleave::{interleave, per_second},
    live::record,
    server::short_dir,
    table::Table,
};

const RUNNERS: usize = 4;
/// Records of a frame, which a runner sends at most.
const FRAME: i64 = 256;
const FRAMES: i64 = 80;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let world = World::start().await?;
    let frames = Arc::new(Frames::new()?);
    let hub = LiveHub::start(world.db.clone(), world.hints.clone(), HubOptions::default());
    let figure = format!("runners' events stored and delivered, {RUNNERS} runners");
    let ways = [
        (true, "the same rows by one hand-written statement for 256, which gets them"),
        (false, "the same, with constants in the place of what is written"),
    ];
    for (sent, beside) in ways {
        let ours = async || through_reader(&world, &hub, &frames).await;
        let rates = interleave(ROUNDS, ours, async || by_hand(&world, sent).await).await?;
        table.add(&*figure, "events/s", rates, beside);
    }
    hub.shutdown();
    drop(hub);
    world.end().await;
    Ok(())
}

fn events() -> Result<u64, Failure> {
    Ok(u64::try_from(FRAMES * FRAME)? * u64::try_from(RUNNERS)?)
}

/// A runner's whole log as it is sent.
struct Frames(Vec<Utf8Bytes>);

impl Frames {
    fn new() -> Result<Self, Failure> {
        let frame = |first: i64| {
            let records = (first..first + FRAME).map(|n| {
                let mut event = record(n).data;
                // One message of the agent to a frame.
                event["message_id"] = format!("m{}", first / FRAME).into();
                Record { n, at: chrono::Utc::now(), event }
            });
            serde_json::to_string(&RunnerFrame::Records { records: records.collect() }).map(Utf8Bytes::from)
        };
        Ok(Self((0..FRAMES).map(|n| frame(n * FRAME + 1)).collect::<Result<_, _>>()?))
    }
}

/// Sessions that have a runner.
async fn sessions(world: &World) -> Result<Vec<Session>, Failure> {
    let sessions = world.sessions(RUNNERS).await?;
    for session in &sessions {
        world.actors.call::<Session>(&session.id, fact_request(Fact::Provisioning)).await?;
    }
    Ok(sessions)
}

async fn through_reader(world: &World, hub: &LiveHub, frames: &Arc<Frames>) -> Result<f64, Failure> {
    let sessions = sessions(world).await?;
    let dir = short_dir()?;
    let (go, begin) = watch::channel(false);
    let (connected, mut connections) = watch::channel(0_usize);
    let mut runners = JoinSet::new();
    for session in &sessions {
        let router = runner(session.id.clone(), frames.clone(), begin.clone(), connected.clone());
        let listener = UnixListener::bind(dir.path().join(&session.id))?;
        runners.spawn(async move { axum::serve(listener, router).await });
    }
    let sockets = Arc::new(Sockets(dir));
    let (db, hints) = (world.db.clone(), world.hints.clone());
    let readers =
        RunnerReaders::start(db, hints, Tokens::new([7; 32]), sockets, Arc::new(Taken), ReaderOptions::default());
    let mut subscribers = JoinSet::new();
    for session in &sessions {
        let mut following = hub.subscribe(&session.id, world.db.last_seq(&session.id).await?).await?;
        let last = following.cursor() + FRAMES * FRAME;
        subscribers.spawn(async move {
            while following.cursor() < last && following.next().await.is_some() {}
            following.cursor() == last
        });
        readers.ensure(&session.project_id, &session.id, 1);
    }
    timeout(PATIENCE, connections.wait_for(|count| *count == RUNNERS)).await??;
    let began = Instant::now();
    go.send_replace(true);
    while let Some(has_all) = timeout(PATIENCE, subscribers.join_next()).await? {
        if !has_all? {
            return Err("a subscriber has not got what its runner wrote".into());
        }
    }
    let took = began.elapsed();
    readers.shutdown().await;
    runners.abort_all();
    Ok(per_second(events()?, took))
}

/// What a reader uses of a runner: its log. What else it is told, it takes.
fn runner(
    log_id: String,
    frames: Arc<Frames>,
    begin: watch::Receiver<bool>,
    connected: watch::Sender<usize>,
) -> Router {
    let events = any(move |upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(move |socket| async move {
            if let Err(error) = written(socket, log_id, &frames, begin, connected).await {
                eprintln!("bench: a runner: {error}");
            }
        })
    });
    Router::new().route("/events", events).fallback(async || StatusCode::NO_CONTENT)
}

async fn written(
    mut socket: WebSocket,
    log_id: String,
    frames: &Frames,
    mut begin: watch::Receiver<bool>,
    connected: watch::Sender<usize>,
) -> Result<(), Failure> {
    let Some(Ok(Message::Text(hello))) = socket.recv().await else { return Err("no hello".into()) };
    let _: ReaderHello = serde_json::from_str(&hello)?;
    let welcome = RunnerFrame::Welcome { log_id, last: FRAMES * FRAME };
    socket.send(Message::Text(serde_json::to_string(&welcome)?.into())).await?;
    connected.send_modify(|count| *count += 1);
    begin.wait_for(|begin| *begin).await?;
    for frame in &frames.0 {
        socket.send(Message::Text(frame.clone())).await?;
    }
    while let Some(Ok(_)) = socket.recv().await {}
    Ok(())
}

/// Where the runners listen: each in a socket that is named by its session.
struct Sockets(TempDir);

#[async_trait]
impl RunnerEndpoints for Sockets {
    async fn endpoint(&self, _: &str, session_id: &str, _: i64) -> Result<Option<PathBuf>, EndpointError> {
        Ok(Some(self.0.path().join(session_id)))
    }
}

/// These logs have no facts.
struct Taken;

#[async_trait]
impl FactSink for Taken {
    async fn report(&self, _: &str, _: i64, _: i32, _: Fact) -> Result<(), FactError> {
        Ok(())
    }
}

/// The reader's transaction in one statement: with the records as they are sent to it, or with constants in their place.
fn statement(sent: bool) -> String {
    let constant = record(1).data.to_string().replace('\'', "''");
    let (data, records) = if sent {
        ("r.data".to_owned(), "unnest($2::jsonb[]) with ordinality as r(data, i)".to_owned())
    } else {
        (format!("'{constant}'::jsonb"), format!("generate_series(1, {FRAME}) as r(i)"))
    };
    format!(
        "with fenced as (select epoch from ambient.runner_leases where session_id = $1 and run = 1 for share),
            moved as (update ambient.runner_cursors set cursor = cursor + {FRAME}
                where session_id = $1 and log_id = 'hand' returning cursor),
            stream as (update ambient.session_streams set next_seq = next_seq + {FRAME}, messages = messages + 1
                where session_id = $1 returning next_seq),
            active as (update ambient.session_runtime set last_activity_at = now() where session_id = $1)
         insert into ambient.session_events (session_id, seq, at, type, data, run, log_id, runner_seq, message_id)
         select $1, s.next_seq - {FRAME} + r.i - 1, clock_timestamp(), 'agent.text', {data}, 1, 'hand',
             m.cursor - {FRAME} + r.i, case when r.i = 1 then 'hand:' || m.cursor end
         from fenced, moved m, stream s, {records}"
    )
}

async fn by_hand(world: &World, sent: bool) -> Result<f64, Failure> {
    let sessions = sessions(world).await?;
    let connect: PgConnectOptions = world.database.url().parse()?;
    let sql = Arc::new(statement(sent));
    let records: Arc<Vec<Value>> = Arc::new((1..=FRAME).map(|n| record(n).data).collect());
    let mut connections = Vec::new();
    for session in &sessions {
        world.db.acquire_runner_lease(&session.id, 1, "hand", PATIENCE * 5).await?.ok_or("no lease")?;
        let cursor =
            "insert into ambient.runner_cursors (session_id, log_id, run, cursor, epoch) values ($1, 'hand', 1, 0, 1)";
        sqlx::query(cursor).bind(&session.id).execute(world.db.pool()).await?;
        connections.push((connect.connect().await?, session.id.clone()));
    }
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for (mut connection, id) in connections {
        let (sql, records) = (sql.clone(), records.clone());
        writers.spawn(async move {
            for _ in 0..FRAMES {
                let query = sqlx::query(AssertSqlSafe(sql.as_str())).bind(&id);
                let query = if sent { query.bind(&*records) } else { query };
                let stored = query.execute(&mut connection).await?;
                if i64::try_from(stored.rows_affected())? != FRAME {
                    return Err::<(), Failure>("rows are missing".into());
                }
            }
            Ok(())
        });
    }
    while let Some(written) = timeout(PATIENCE, writers.join_next()).await? {
        written??;
    }
    Ok(per_second(events()?, began.elapsed()))
}
