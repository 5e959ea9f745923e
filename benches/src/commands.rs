//! Durable commands: through the actors, and as batches of the append interface, beside plain inserts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ambient_domain::session::Session;

use crate::{
    Failure,
    domain::{World, message_item, message_request},
    interleave::{interleave, per_second},
    peer::Peer,
    table::Table,
};

const CLIENTS: u16 = 64;
const SESSIONS_OF_CLIENT: usize = 4;
const BATCH: u16 = 100;
const BATCH_CLIENTS: u16 = 8;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let world = Arc::new(World::start().await?);
    let peer = Peer::new(&world.database.url(), world.db.pool()).await?;
    let sessions = world.sessions(usize::from(CLIENTS) * SESSIONS_OF_CLIENT).await?;
    commands(&world, &sessions, Duration::from_millis(500)).await?;
    let pair = interleave(
        ROUNDS,
        async || commands(&world, &sessions, ROUND).await,
        async || peer.rate(CLIENTS, 1, ROUND).await,
    )
    .await?;
    let beside = format!("{}: one-row commits, {CLIENTS} clients", peer.name());
    table.add(format!("commands through actors, {CLIENTS} clients"), "commands/s", pair, beside);

    let mut batchers = Vec::new();
    for _ in 0..BATCH_CLIENTS {
        batchers.push(world.sessions(usize::from(BATCH)).await?);
    }
    let pair = interleave(
        ROUNDS,
        async || batches(&world, &mut batchers, ROUND).await,
        async || peer.rate(BATCH_CLIENTS, BATCH, ROUND).await,
    )
    .await?;
    let beside = format!("{}: commits of {BATCH} rows, {BATCH_CLIENTS} clients", peer.name());
    table.add(format!("commands in batches of {BATCH}, {BATCH_CLIENTS} clients"), "commands/s", pair, beside);
    let Ok(world) = Arc::try_unwrap(world) else { return Err("a client did not end".into()) };
    world.end().await;
    Ok(())
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
async fn batches(world: &Arc<World>, batchers: &mut [Vec<Session>], duration: Duration) -> Result<f64, Failure> {
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
