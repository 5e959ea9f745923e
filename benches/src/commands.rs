//! Durable commands: through the actors, and as batches of the append interface, compared with the same rows written by hand, and
//! with plain inserts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ambient_domain::session::Session;
use ambient_persistence::Current;

use crate::{
    Failure,
    domain::{World, message_item, message_request},
    hand_written::HandWritten,
    interleave::{interleave, pair, per_second, percentile},
    peer::Peer,
    table::Table,
};

const CLIENTS: u16 = 64;
const SESSIONS_OF_CLIENT: usize = 4;
const BATCH: u16 = 100;
const BATCH_CLIENTS: u16 = 8;
/// Connections of the ceiling: as many as an append has batches under way.
const WRITERS: u16 = 2;
/// Commands of a statement of the ceiling: as many as a batch has at most.
const GROUP: u16 = 64;
/// Bytes of write-ahead log so far.
const LOG: &str = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
/// Index entries made so far: a row updated in place (HOT) makes none.
const INDEX_ENTRIES: &str = "
    select coalesce(sum((t.n_tup_ins + t.n_tup_upd - t.n_tup_hot_upd) * i.indexes), 0)::float8
    from pg_stat_user_tables t
    join (select indrelid, count(*) as indexes from pg_index group by indrelid) i on i.indrelid = t.relid";
/// After this time an idle connection has reported what it has counted.
const STATISTICS_LAG: Duration = Duration::from_secs(11);
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let world = Arc::new(World::start().await?);
    let peer = Peer::new(&world.database.url(), world.db.pool()).await?;
    let sessions = world.sessions(usize::from(CLIENTS) * SESSIONS_OF_CLIENT).await?;
    commands(&world, &sessions, Duration::from_millis(500)).await?;
    let hand = HandWritten::new(&world.database.url(), world.db.pool(), &sessions[0].id, WRITERS, GROUP).await?;
    let rates = interleave(
        ROUNDS,
        async || commands(&world, &sessions, ROUND).await,
        async || peer.rate(CLIENTS, 1, ROUND).await,
    )
    .await?;
    let beside = format!("{}: one-row commits, {CLIENTS} clients", peer.name());
    table.add(format!("commands through actors, {CLIENTS} clients"), "commands/s", rates, beside);

    let mut batchers = Vec::new();
    for _ in 0..BATCH_CLIENTS {
        let sessions = world.sessions(usize::from(BATCH)).await?;
        batchers.push(world.current(&sessions).await?);
    }
    match hand {
        Some(hand) => beside_hand_written(table, &world, &sessions, &mut batchers, &hand).await?,
        None => eprintln!("there is no pgbench: the hand-written ceiling is left out"),
    }
    let Ok(world) = Arc::try_unwrap(world) else { return Err("a client did not end".into()) };
    world.end().await;
    Ok(())
}

async fn beside_hand_written(
    table: &mut Table,
    world: &Arc<World>,
    sessions: &[Session],
    batchers: &mut [Vec<Current<Session>>],
    hand: &HandWritten,
) -> Result<(), Failure> {
    let rates = interleave(
        ROUNDS,
        async || commands(world, sessions, ROUND).await,
        async || hand.rate(WRITERS, GROUP, ROUND).await,
    )
    .await?;
    let beside = format!("the same rows written by hand, {GROUP} a statement");
    table.add(format!("commands through actors, {CLIENTS} clients"), "commands/s", rates, &*beside);

    let rates = interleave(
        ROUNDS,
        async || batches(world, batchers, ROUND).await,
        async || hand.rate(WRITERS, GROUP, ROUND).await,
    )
    .await?;
    table.add(format!("commands in batches of {BATCH}, {BATCH_CLIENTS} clients"), "commands/s", rates, beside);

    let times =
        interleave(ROUNDS, async || alone(world, &sessions[0], ROUND).await, async || hand.alone(ROUND).await).await?;
    table.add("a command alone, p50", "ms", times, "the same rows written by hand, p50");

    for (figure, unit, counter) in [("write-ahead log", "bytes", LOG), ("index entries", "entries", INDEX_ENTRIES)] {
        let (ours, theirs) = (
            caused(world, counter, async || commands(world, sessions, ROUND).await).await?,
            caused(world, counter, async || hand.rate(WRITERS, GROUP, ROUND).await).await?,
        );
        let beside = "the same rows written by hand";
        table.add(format!("{figure} of a command"), unit, pair(&[ours], &[theirs]), beside);
    }
    Ok(())
}

/// Median of the times of one command at a time, in milliseconds.
async fn alone(world: &Arc<World>, session: &Session, duration: Duration) -> Result<f64, Failure> {
    let (world, id) = (world.clone(), session.id.clone());
    // A task, as a server's requests are: see the hand-written one.
    let times = tokio::spawn(async move {
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < duration {
            let asked = Instant::now();
            world.actors.call::<Session>(&id, message_request()).await?;
            times.push(asked.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok::<_, Failure>(times)
    });
    Ok(percentile(&times.await??, 50))
}

/// What each of the commands, whose rate for a round is given by `work`, adds to one of PostgreSQL's counters.
async fn caused(
    world: &World,
    counter: &'static str,
    work: impl AsyncFnOnce() -> Result<f64, Failure>,
) -> Result<f64, Failure> {
    let count = async || {
        tokio::time::sleep(STATISTICS_LAG).await;
        sqlx::query_scalar::<_, f64>(counter).fetch_one(world.db.pool()).await
    };
    let before = count().await?;
    let commands = work().await? * ROUND.as_secs_f64();
    Ok((count().await? - before) / commands)
}

/// Clients that send messages to sessions of their own, one after the other.
async fn commands(world: &Arc<World>, sessions: &[Session], duration: Duration) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for own in sessions.chunks(SESSIONS_OF_CLIENT) {
        let (world, ids) = (world.clone(), own.iter().map(|session| session.id.clone()).collect::<Vec<_>>());
        clients.spawn(async move {
            let mut done = 0_u64;
            for id in ids.iter().cycle().take_while(|_| began.elapsed() < duration) {
                world.actors.call::<Session>(id, message_request()).await?;
                done += 1;
            }
            Ok::<u64, Failure>(done)
        });
    }
    sum(clients, began).await
}

/// Clients that append to sessions of their own, all of them at once.
async fn batches(
    world: &Arc<World>,
    batchers: &mut [Vec<Current<Session>>],
    duration: Duration,
) -> Result<f64, Failure> {
    let began = Instant::now();
    let appends = batchers.iter_mut().map(|sessions| {
        let db = world.db.clone();
        async move {
            let mut done = 0_u64;
            while began.elapsed() < duration {
                let prepared: Vec<_> = sessions.iter().map(message_item).collect::<Result<_, Failure>>()?;
                let (items, after): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
                done += items.len() as u64;
                db.append(items).await.into_iter().collect::<Result<Vec<_>, _>>()?;
                *sessions = after;
            }
            Ok::<u64, Failure>(done)
        }
    });
    let done: u64 = futures::future::try_join_all(appends).await?.into_iter().sum();
    Ok(per_second(done, began.elapsed()))
}

async fn sum(mut clients: tokio::task::JoinSet<Result<u64, Failure>>, began: Instant) -> Result<f64, Failure> {
    let mut done = 0;
    while let Some(client) = clients.join_next().await {
        done += client??;
    }
    Ok(per_second(done, began.elapsed()))
}
