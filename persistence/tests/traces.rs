//! What is exported as traces: the feed behind its cursor, and the queues, by one server at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use ambient_domain::session::{self, Session, workflow_id};
use ambient_persistence::{Database, DatabaseOptions, TracedOperation, TurnChange, TurnEnd, TurnStarted};
use chrono::{TimeDelta, Utc};
use support::*;

const TTL: Duration = Duration::from_secs(3600);
const FAR: i64 = 10_000;

async fn tracing(s: &Store) -> Database {
    let options = DatabaseOptions { traces: true, ..DatabaseOptions::default() };
    Database::connect(&s.database.url(), options).await.unwrap()
}

/// The one operation to trace. A feed shows nothing above the oldest transaction of the whole server, which may be another test's.
async fn one_to_trace(db: &Database) -> Vec<TracedOperation> {
    for _ in 0..1_000 {
        let found = db.operations_to_trace(10).await.unwrap();
        if !found.is_empty() {
            assert_eq!(found.len(), 1);
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the operation does not come");
}

/// Waits until a feed that begins now begins after what has happened: older transactions of other tests hold its beginning back.
async fn all_is_behind_the_horizon(s: &Store) {
    let sql = "select coalesce(bool_and(xid < pg_snapshot_xmin(pg_current_snapshot())), true) from ambient.operations";
    for _ in 0..1_000 {
        if sqlx::query_scalar::<_, bool>(sql).fetch_one(s.db.pool()).await.unwrap() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a transaction of another test does not end");
}

#[tokio::test]
async fn the_feed_begins_with_the_first_lease_and_only_its_holder_moves_on() {
    let s = store().await;
    let before = new_project(&s.db, "before").await;
    all_is_behind_the_horizon(&s).await;
    let lease = s.db.trace_lease("one", TTL).await.unwrap().unwrap();
    assert_eq!(s.db.trace_lease("two", TTL).await.unwrap(), None, "one server at a time");
    assert_eq!(s.db.trace_lease("one", TTL).await.unwrap(), Some(lease), "an extension changes nothing");
    let session = new_session(&s.db, &before, false).await;
    let found = one_to_trace(&s.db).await;
    let commands: Vec<&str> = found.iter().map(|operation| operation.command.as_str()).collect();
    assert_eq!(commands, ["create"], "what happened before anyone exported is not told");
    assert_eq!(found[0].origin.entity_id, session.id);
    assert_eq!(one_to_trace(&s.db).await, found, "until it is told that they were exported");

    s.db.release_trace_lease(lease).await.unwrap();
    let next = s.db.trace_lease("two", TTL).await.unwrap().unwrap();
    assert!(next.epoch > lease.epoch);
    assert!(!s.db.operations_traced(lease, &found[0].place).await.unwrap(), "the former holder");
    one_to_trace(&s.db).await;
    assert!(s.db.operations_traced(next, &found[0].place).await.unwrap());
    assert!(s.db.operations_to_trace(10).await.unwrap().is_empty());

    // What is too old is given up, and counted.
    apply::<Session>(&s.db, &session.id, &session::Command::Delete).await;
    assert_eq!(s.db.drop_operations_to_trace(next, Utc::now() - TimeDelta::hours(1), FAR).await.unwrap(), 0);
    one_to_trace(&s.db).await;
    assert!(s.db.trace_backlog().await.unwrap().oldest_operation_seconds >= 0);
    let later = Utc::now() + TimeDelta::days(36_500);
    assert_eq!(s.db.drop_operations_to_trace(lease, later, FAR).await.unwrap(), 0, "not by the former holder");
    assert_eq!(s.db.drop_operations_to_trace(next, later, FAR).await.unwrap(), 1);
    assert!(s.db.operations_to_trace(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn executions_are_noted_before_they_are_started_and_only_where_traces_are_exported() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    while !s.db.claim_outbox(100, None, TTL).await.unwrap().is_empty() {}
    assert!(s.db.executions_to_trace(10).await.unwrap().is_empty());
    let session = new_session(&s.db, &project, true).await;
    let db = tracing(&s).await;
    let claimed = db.claim_outbox(100, None, TTL).await.unwrap();
    assert_eq!(claimed[0].len(), 2);
    let start = workflow_id::start(&session.id, 1, 1);
    assert_eq!(db.execution_origin(&start).await.unwrap(), Some(claimed[0][0].operation_id.clone()));
    let lease = db.trace_lease("one", TTL).await.unwrap().unwrap();
    let due = db.executions_to_trace(10).await.unwrap();
    let mut ids: Vec<&str> = due.iter().map(|execution| execution.workflow_id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [start.as_str(), workflow_id::supervise(&session.id, 1).as_str()]);
    assert!(db.executions_to_trace(10).await.unwrap().is_empty(), "looked at again after a while");
    db.look_at_executions(std::slice::from_ref(&session.id), Duration::ZERO).await.unwrap();
    assert_eq!(db.executions_to_trace(10).await.unwrap().len(), 2, "or when something has happened");
    assert!(db.execution_traced(lease, &start).await.unwrap());
    assert_eq!(db.trace_backlog().await.unwrap().executions, 1);
    assert!(db.execution_origin(&start).await.unwrap().is_some(), "it is still a cause");
    let long_ago = Utc::now() - TimeDelta::days(1);
    assert_eq!(db.trim_traces(lease, long_ago, 1).await.unwrap(), 0);
    assert_eq!(db.trim_traces(lease, long_ago, 0).await.unwrap(), 0, "the newest stays");
    db.close().await;
}

#[tokio::test]
async fn a_turn_waits_from_the_commit_that_ends_it() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let db = tracing(&s).await;
    let reader = lease(&db, &session, "server-1").await.unwrap();
    let started = |message: &str, index| Some(TurnStarted { message_id: message.to_owned(), at: Utc::now(), index });
    let result = Some(TurnEnd { outcome: "finished".to_owned(), ..TurnEnd::default() });
    let mut first = batch(&session, &reader, 0, 2);
    first.changes.turns = vec![TurnChange { number: Some(1), started: started("m", 0), ..TurnChange::default() }];
    db.append_runner_events(first).await.unwrap();
    assert!(db.turns_to_trace(10).await.unwrap().is_empty(), "it goes on");
    let mut second = batch(&session, &reader, 2, 2);
    second.changes.turns = vec![
        TurnChange { number: Some(1), result: result.clone(), ended: Some((Utc::now(), 0)), ..TurnChange::default() },
        TurnChange { number: Some(2), started: started("n", 1), ..TurnChange::default() },
    ];
    db.append_runner_events(second).await.unwrap();
    let turns = db.turns_to_trace(10).await.unwrap();
    assert_eq!(turns.iter().map(|turn| (turn.number, turn.message_id.as_str())).collect::<Vec<_>>(), [(1, "m")]);
    assert_eq!(
        (&turns[0].project_id, db.turn_of_message(&session.id, "n").await.unwrap()),
        (&project.id, Some((1, 2)))
    );
    let held = db.trace_lease("one", TTL).await.unwrap().unwrap();
    assert!(db.turn_traced(held, &turns[0]).await.unwrap());
    assert!(db.turns_to_trace(10).await.unwrap().is_empty());

    // Of a server that exports nothing none waits.
    let mut third = batch(&session, &reader, 4, 1);
    third.changes.turns =
        vec![TurnChange { number: Some(2), result, ended: Some((Utc::now(), 0)), ..TurnChange::default() }];
    s.db.append_runner_events(third).await.unwrap();
    assert!(db.turns_to_trace(10).await.unwrap().is_empty());
    db.close().await;
}
