//! A worker that ends by itself.

use ambient_domain::session::Phase;
use ambient_persistence::new_id;
use futures::future::join_all;

use crate::world::{World, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_is_made_anew_and_readiness_tells() {
    let world = World::new().await;
    let project = world.project().await;
    assert_eq!(world.health.check(), Ok(()));
    // Its activities open connections of the pool.
    let sessions: Vec<String> = (0..4).map(|_| new_id()).collect();
    join_all(sessions.iter().map(|id| world.new_session(id, &project, world.interactive(), true))).await;
    join_all(sessions.iter().map(|id| world.idle(id))).await;
    world.polls_fail.send_replace(true);
    let why = wait_for("the worker's end", || async { world.health.check().err() }).await;
    assert!(why.contains("for the test"), "{why}");
    // They have not ended with it.
    join_all((0..16).map(|_| async { world.db.ping().await.unwrap() })).await;
    let id = new_id();
    world.new_session(&id, &project, world.interactive(), true).await;
    world.polls_fail.send_replace(false);
    world.in_phase(&id, Phase::Running).await;
    wait_for("the worker's health", || async { world.health.check().ok() }).await;
    world.end().await;
}
