//! A runner's log is stored by one reader at a time, each record once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use ambient_domain::session::Session;
use ambient_persistence::{Database, RunnerAppendError, RunnerBatch, RunnerLease, RunnerRecord, VerifyScope};
use chrono::Utc;
use serde_json::json;
use support::*;

const TTL: Duration = Duration::from_secs(30);

fn batch(session: &Session, lease: &RunnerLease, cursor_before: i64, count: i64) -> RunnerBatch {
    let record = |n| RunnerRecord {
        n,
        at: Utc::now(),
        event_type: "TEXT_MESSAGE_CONTENT".to_owned(),
        data: json!({"delta": format!("{n}")}),
    };
    RunnerBatch {
        session_id: session.id.clone(),
        run: 1,
        epoch: lease.epoch,
        log_id: "log-1".to_owned(),
        cursor_before,
        records: (cursor_before + 1..=cursor_before + count).map(record).collect(),
    }
}

async fn lease(db: &Database, session: &Session, holder: &str) -> Option<RunnerLease> {
    db.acquire_runner_lease(&session.id, 1, holder, TTL).await.unwrap()
}

/// Gives `work` up at its wait number `waits`, counted from 0.
async fn given_up_at(waits: usize, work: impl Future) {
    let (mut work, mut waited) = (Box::pin(work), 0);
    poll_fn(|context| {
        if work.as_mut().poll(context).is_ready() || waited == waits {
            return Poll::Ready(());
        }
        waited += 1;
        Poll::Pending
    })
    .await;
}

#[tokio::test]
async fn work_that_is_given_up_at_any_wait_leaves_no_transaction_open() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    let elsewhere = s.database.pool().await;
    let open =
        "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in trans%'";
    let mut stored = 0;
    for waits in 0..12 {
        given_up_at(waits, s.db.append_runner_events(batch(&session, &lease, stored, 1))).await;
        given_up_at(waits, s.db.lock::<Session>(&session.id)).await;
        given_up_at(waits, s.db.verify(&VerifyScope::default())).await;
        // A commit that is under way may be given up too.
        let until = Instant::now() + Duration::from_secs(5);
        while sqlx::query_scalar::<_, i64>(open).fetch_one(&elsewhere).await.unwrap() > 0 {
            assert!(Instant::now() < until, "given up at wait {waits}, and a transaction is still open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stored = s.db.runner_cursor(&session.id, "log-1").await.unwrap();
    }
    assert!(stored > 0, "none came to its end");
}

#[tokio::test]
async fn a_reader_that_lost_its_lease_or_place_stores_nothing() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let first = lease(&s.db, &session, "server-1").await.unwrap();
    assert_eq!(lease(&s.db, &session, "server-2").await, None);
    assert_eq!(s.db.append_runner_events(batch(&session, &first, 0, 3)).await.unwrap(), 4);
    // The same piece again: after an unknown outcome of the commit.
    let repeated = s.db.append_runner_events(batch(&session, &first, 0, 3)).await;
    assert!(matches!(repeated, Err(RunnerAppendError::CursorMoved(3))), "{repeated:?}");
    assert_eq!(s.db.runner_cursor(&session.id, "log-1").await.unwrap(), 3);

    s.db.release_runner_lease(&first).await.unwrap();
    let second = lease(&s.db, &session, "server-2").await.unwrap();
    assert!(second.epoch > first.epoch);
    let fenced = s.db.append_runner_events(batch(&session, &first, 3, 2)).await;
    assert!(matches!(fenced, Err(RunnerAppendError::LeaseLost)), "{fenced:?}");
    assert!(!s.db.renew_runner_lease(&first, TTL).await.unwrap());
    assert!(s.db.renew_runner_lease(&second, TTL).await.unwrap());
    assert_eq!(s.db.append_runner_events(batch(&session, &second, 3, 2)).await.unwrap(), 6);

    let events = s.db.read_events(&session.id, 0, 100).await.unwrap();
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let runner: Vec<_> = events.iter().filter_map(|e| e.runner_seq).collect();
    assert_eq!(runner, [1, 2, 3, 4, 5]);
    let mut backwards = batch(&session, &second, 5, 2);
    backwards.records.reverse();
    assert!(matches!(s.db.append_runner_events(backwards).await, Err(RunnerAppendError::Malformed(_))));
}

#[tokio::test]
async fn two_readers_with_the_same_lease_store_each_record_once() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    let readers = (0..4).map(|_| {
        let (db, session, lease) = (s.db.clone(), session.clone(), lease.clone());
        tokio::spawn(async move {
            let mut cursor = 0;
            while cursor < 60 {
                match db.append_runner_events(batch(&session, &lease, cursor, 3)).await {
                    Ok(_) => cursor += 3,
                    Err(RunnerAppendError::CursorMoved(to)) => cursor = to,
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    futures::future::join_all(readers).await.into_iter().for_each(Result::unwrap);
    let events = s.db.read_events(&session.id, 1, 100).await.unwrap();
    let pairs: Vec<_> = events.iter().map(|e| (e.seq, e.runner_seq.unwrap())).collect();
    assert_eq!(pairs, (1..=60).map(|n| (n + 1, n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_odd_string_of_a_runner_does_not_block_its_log() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    let mut odd = batch(&session, &lease, 0, 1);
    odd.records[0].data = json!({"a\0": ["x\0y", {"b": "\0"}]});
    s.db.append_runner_events(odd).await.unwrap();
    let event = s.db.read_events(&session.id, 1, 1).await.unwrap().remove(0);
    assert_eq!(event.data, json!({"a\u{fffd}": ["x\u{fffd}y", {"b": "\u{fffd}"}]}));
}

#[tokio::test]
async fn messages_are_delivered_in_order_and_only_forwards() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    for text in ["one", "two", "three"] {
        let before = s.db.load_current::<Session>(&session.id).await.unwrap().unwrap();
        let send = item(Some(&before), &message(text), &[text]);
        append(&s.db, send).await.unwrap();
    }
    let texts = |events: Vec<ambient_persistence::StoredEvent>| {
        events.iter().map(|e| e.data["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let waiting = s.db.undelivered_messages(&session.id, 1).await.unwrap();
    let second = waiting[1].clone();
    assert_eq!(texts(waiting), ["one", "two", "three"]);
    assert_eq!(s.db.message(&session.id, second.message_id.as_ref().unwrap()).await.unwrap(), Some(second.clone()));
    s.db.mark_delivered(&session.id, second.seq).await.unwrap();
    s.db.mark_delivered(&session.id, second.seq - 1).await.unwrap();
    assert_eq!(texts(s.db.undelivered_messages(&session.id, 1).await.unwrap()), ["three"]);
    assert_eq!(s.db.undelivered_messages(&session.id, 2).await.unwrap(), []);
    assert_eq!(s.db.session_runtime(&session.id).await.unwrap().unwrap().delivered_seq, second.seq);
}
