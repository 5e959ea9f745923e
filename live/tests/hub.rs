//! Fan-out on a real database: nothing lost, nothing repeated, nothing out of order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ambient_live::{End, HubOptions, LiveHub, SubscribeError};
use ambient_persistence::{Hint, RunnerBatch, RunnerRecord, TurnChanges};
use ambient_tests::TestDatabase;
use chrono::Utc;
use support::{PATIENCE, Server, eventually};
use tokio::{sync::watch, time::timeout};

/// Small rings: reading the table is part of what is tested.
fn options() -> HubOptions {
    HubOptions { ring_events: 64, page_events: 32, safety_interval: Duration::from_secs(1), ..HubOptions::default() }
}

/// Stores `total` events as the reader of run `run` would, in batches of different sizes.
async fn write(server: &Server, session_id: &str, run: i64, total: i64) {
    let lease = server.db.acquire_runner_lease(session_id, run, "writer", PATIENCE).await.unwrap().unwrap();
    let mut cursor = 0;
    while cursor < total {
        let count = (1 + cursor % 17).min(total - cursor);
        let record = |n| RunnerRecord {
            n,
            at: Utc::now(),
            event_type: "agent.text".to_owned(),
            data: serde_json::json!({ "type": "agent.text", "message_id": format!("m-{run}"), "text": "x".repeat(usize::try_from(n % 300).unwrap()) }),
        };
        let batch = RunnerBatch {
            session_id: session_id.to_owned(),
            run,
            epoch: lease.epoch,
            log_id: format!("log-{run}"),
            cursor_before: cursor,
            changes: TurnChanges::default(),
            records: (cursor + 1..=cursor + count).map(record).collect(),
        };
        server.db.append_runner_events(batch).await.unwrap();
        server.hints.publish(Hint::Live(session_id.to_owned()));
        cursor += count;
    }
}

async fn cut_listeners(server: &Server) -> u64 {
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name in ('ambient-listener', 'ambient-notifier')";
    sqlx::query(sql).execute(server.db.pool()).await.unwrap().rows_affected()
}

type Hubs = Arc<[watch::Sender<LiveHub>; 2]>;

/// Follows from the start to `last`; slow, or leaving and coming back elsewhere, as `kind` says. How often it subscribed.
async fn follow(hubs: Hubs, session_id: Arc<str>, last: i64, kind: usize) -> u64 {
    let (mut cursor, mut subscribed) = (0, 0);
    while cursor < last {
        let hub = hubs[(kind + usize::try_from(subscribed).unwrap()) % 2].borrow().clone();
        let Ok(mut subscription) = hub.subscribe(&session_id, cursor).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        subscribed += 1;
        let mut patience =
            if kind.is_multiple_of(3) { 1 + (kind + usize::try_from(cursor).unwrap()) % 23 } else { usize::MAX };
        while cursor < last && patience > 0 {
            let Some(batch) = timeout(PATIENCE, subscription.next()).await.expect("events in time") else {
                assert_eq!(subscription.end(), Some(End::Closed));
                break;
            };
            for event in &batch.events {
                assert_eq!(event.seq(), cursor + 1, "subscriber {kind}");
                cursor = event.seq();
            }
            assert_eq!(subscription.cursor(), cursor);
            patience -= 1;
            if kind.is_multiple_of(5) {
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        }
    }
    subscribed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_subscriber_gets_every_event_once_and_in_order_whatever_is_cut_or_restarted() {
    let database = TestDatabase::new().await;
    let (a, b) = (Server::on(&database).await, Server::on(&database).await);
    let session = a.new_session(|_| {}).await;
    let before = a.db.last_seq(&session.id).await.unwrap();
    let last = before + 2 * 1500;
    let hub = |server: &Server| LiveHub::start(server.db.clone(), server.hints.clone(), options());
    let hubs: Hubs = Arc::new([watch::Sender::new(hub(&a)), watch::Sender::new(hub(&b))]);
    let session_id: Arc<str> = session.id.as_str().into();
    let followers: Vec<_> =
        (0..200).map(|kind| tokio::spawn(follow(hubs.clone(), session_id.clone(), last, kind))).collect();
    let disturb = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            // Those that were cut before may not be back yet.
            eventually("there is a listener to cut", || async { cut_listeners(&a).await > 0 }).await;
            // A restart: those who follow it end and come back.
            let old = hubs[0].send_replace(hub(&a));
            old.shutdown();
        }
    };
    tokio::join!(write(&a, &session.id, 101, 1500), write(&b, &session.id, 102, 1500), disturb);
    let subscribed = AtomicU64::new(0);
    for follower in followers {
        subscribed.fetch_add(follower.await.unwrap(), Ordering::Relaxed);
    }
    assert!(subscribed.into_inner() > 200, "nobody came back: the test tests nothing");
    // A read that is under way holds on to the session until it is done.
    eventually("a session without subscribers is not watched", || async {
        hubs.iter().all(|hub| hub.borrow().watched() == 0)
    })
    .await;
}

#[tokio::test]
async fn another_servers_event_comes_at_once_by_its_hint() {
    let database = TestDatabase::new().await;
    let (a, b) = (Server::on(&database).await, Server::on(&database).await);
    let session = a.new_session(|_| {}).await;
    let options = HubOptions { safety_interval: Duration::from_secs(3600), ..HubOptions::default() };
    let hub = LiveHub::start(a.db.clone(), a.hints.clone(), options);
    let mut subscription = hub.subscribe(&session.id, 0).await.unwrap();
    let first = subscription.next().await.unwrap();
    assert_eq!(first.events[0].seq(), 1);
    // The listener may still be connecting: then its Resync tells.
    b.creating(&session).await;
    let next = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(next.events[0].seq(), first.last_seq() + 1);
    let json: serde_json::Value = serde_json::from_str(next.events[0].json()).unwrap();
    assert_eq!((&json["type"], &json["data"]["phase"]), (&"session.phase".into(), &"Creating".into()));
}

#[tokio::test]
async fn a_lost_hint_is_made_up_for_by_the_safety_interval() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let session = server.new_session(|_| {}).await;
    let silent = ambient_persistence::Hints::local();
    let hub = LiveHub::start(server.db.clone(), silent, options());
    let last = server.db.last_seq(&session.id).await.unwrap();
    let mut subscription = hub.subscribe(&session.id, last).await.unwrap();
    server.creating(&session).await;
    let batch = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(batch.events[0].seq(), last + 1);
}

#[tokio::test]
async fn subscribers_share_events_and_cursors_that_cannot_be_served_are_told() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let session = server.new_session(|_| {}).await;
    let hub = LiveHub::start(server.db.clone(), server.hints.clone(), options());
    write(&server, &session.id, 101, 200).await;
    let last = server.db.last_seq(&session.id).await.unwrap();
    let (mut one, mut other) =
        (hub.subscribe(&session.id, last - 1).await.unwrap(), hub.subscribe(&session.id, last - 1).await.unwrap());
    let (one, other) = (one.next().await.unwrap(), other.next().await.unwrap());
    assert!(Arc::ptr_eq(&one.events[0], &other.events[0]));
    let ahead = hub.subscribe(&session.id, last + 1).await;
    assert!(matches!(ahead, Err(SubscribeError::Ahead { last: end }) if end == last), "{ahead:?}");

    let mut behind = hub.subscribe(&session.id, 3).await.unwrap();
    let sql = "delete from ambient.session_events where session_id = $1 and seq <= 5";
    sqlx::query(sql).bind(&session.id).execute(server.db.pool()).await.unwrap();
    let too_old = hub.subscribe(&session.id, 4).await;
    assert!(matches!(too_old, Err(SubscribeError::TooOld { oldest: 6, covers_seq: None })), "{too_old:?}");
    assert_eq!(behind.next().await, None);
    assert_eq!(behind.end(), Some(End::TooOld { oldest: 6, covers_seq: None }));
    assert_eq!(hub.subscribe(&session.id, 5).await.unwrap().next().await.unwrap().events[0].seq(), 6);
}

#[tokio::test]
async fn a_subscription_ends_with_the_deletion_and_a_closed_hub_says_so() {
    use ambient_domain::session::{Command, Session};
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let session = server.new_session(|_| {}).await;
    let kept = server.new_session(|_| {}).await;
    let hub = LiveHub::start(server.db.clone(), server.hints.clone(), HubOptions::default());
    let mut subscription = hub.subscribe(&session.id, 0).await.unwrap();
    let last = server.db.last_seq(&kept.id).await.unwrap();
    let mut waiting = hub.subscribe(&kept.id, last).await.unwrap();
    server.command::<Session>(&session.id, &Command::Delete, &[]).await;
    let mut types = Vec::new();
    while let Some(batch) = timeout(PATIENCE, subscription.next()).await.unwrap() {
        types.extend(batch.events.iter().map(|event| event.event_type().to_owned()));
    }
    assert_eq!(types.last().map(String::as_str), Some("session.deleted"));
    assert_eq!(subscription.end(), Some(End::Deleted));
    let (ended, ()) = tokio::join!(timeout(PATIENCE, waiting.next()), async { hub.shutdown() });
    assert_eq!((ended.unwrap(), waiting.end()), (None, Some(End::Closed)));
    assert!(matches!(hub.subscribe(&kept.id, 0).await, Err(SubscribeError::Closed)));
}

#[tokio::test]
async fn a_subscriber_that_waits_keeps_no_room_for_what_it_seldom_does() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let session = server.new_session(|_| {}).await;
    let hub = LiveHub::start(server.db.clone(), server.hints.clone(), options());
    let mut subscription = hub.subscribe(&session.id, 0).await.unwrap();
    // A query of the table alone is more than that.
    let waiting = size_of_val(&subscription.next());
    assert!(waiting <= 1_024, "{waiting} bytes");
}
