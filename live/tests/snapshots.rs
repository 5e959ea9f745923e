//! Snapshots on a real database: the messages are complete whoever starts when, and whenever a compaction dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use ambient_live::{Beginning, HubOptions, LiveHub, Snapshot, snapshot};
use ambient_persistence::{Hint, RunnerBatch, RunnerRecord, TurnChanges};
use ambient_tests::TestDatabase;
use chrono::Utc;
use serde_json::{Value, json};
use support::{PATIENCE, Server};
use tokio::time::timeout;

/// Writes a runner's log piece by piece.
struct Log<'a> {
    server: &'a Server,
    session_id: &'a str,
    epoch: i64,
    cursor: i64,
}

impl<'a> Log<'a> {
    async fn of(server: &'a Server, session_id: &'a str) -> Self {
        let lease = server.db.acquire_runner_lease(session_id, 1, "writer", PATIENCE).await.unwrap().unwrap();
        Self { server, session_id, epoch: lease.epoch, cursor: 0 }
    }

    async fn write(&mut self, events: &[Value]) {
        let record = |(n, data): (i64, &Value)| RunnerRecord {
            n,
            at: Utc::now(),
            event_type: data["type"].as_str().unwrap().to_owned(),
            data: data.clone(),
        };
        let batch = RunnerBatch {
            session_id: self.session_id.to_owned(),
            run: 1,
            epoch: self.epoch,
            log_id: format!("log-of-{}", self.session_id),
            cursor_before: self.cursor,
            changes: TurnChanges::default(),
            records: (self.cursor + 1..).zip(events).map(record).collect(),
        };
        self.cursor += i64::try_from(events.len()).unwrap();
        self.server.db.append_runner_events(batch).await.unwrap();
        self.server.hints.publish(Hint::Live(self.session_id.to_owned()));
    }
}

fn delta(id: &str, text: &str) -> Value {
    json!({"type": "agent.text", "message_id": id, "text": text})
}

/// As earlier runners recorded it.
fn earlier_turn(n: i64) -> Vec<Value> {
    let (words, call) = (format!("words-{n}"), format!("call-{n}"));
    let delta = |text: &str| json!({"type": "TEXT_MESSAGE_CONTENT", "messageId": words, "delta": text});
    vec![
        json!({"type": "TEXT_MESSAGE_START", "messageId": words, "role": "assistant"}),
        delta("half "),
        delta("and half"),
        json!({"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "shell"}),
        json!({"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": "make"}),
        json!({"type": "TOOL_CALL_RESULT", "messageId": format!("{call}/result"), "toolCallId": call, "content": "no\n", "exitCode": 2}),
    ]
}

/// A turn: words, a call, its result.
fn turn(n: i64) -> Vec<Value> {
    let (words, call) = (format!("words-{n}"), format!("call-{n}"));
    vec![
        delta(&words, "half "),
        delta(&words, "and half"),
        json!({"type": "tool.started", "tool_call_id": call, "title": "shell", "kind": "execute", "status": "in_progress"}),
        json!({"type": "tool.updated", "tool_call_id": call, "input": {"script": "make"}}),
        json!({"type": "tool.updated", "tool_call_id": call, "status": "failed", "output": "no\n", "exit_code": 2}),
    ]
}

/// Makes every insertion or deletion of a snapshot fail, as if the process died there; or none.
async fn die_at(server: &Server, step: Option<&str>) {
    let mut sql = "drop trigger if exists die on ambient.snapshots;
                   create or replace function die() returns trigger language plpgsql as $$ begin raise 'died'; end $$;"
        .to_owned();
    if let Some(step) = step {
        sql +=
            &format!("create trigger die before {step} on ambient.snapshots for each statement execute function die()");
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(server.db.pool()).await.unwrap();
}

async fn rows(server: &Server, session_id: &str) -> Vec<(i64, chrono::DateTime<Utc>, Value)> {
    let sql = "select covers_seq, created_at, data from ambient.snapshots where session_id = $1";
    sqlx::query_as(sql).bind(session_id).fetch_all(server.db.pool()).await.unwrap()
}

async fn compacted(server: &Server, session_id: &str) -> i64 {
    snapshot::compact(&server.db, session_id).await.unwrap()
}

#[tokio::test]
async fn a_compaction_that_dies_anywhere_is_finished_by_the_next_and_repeating_it_changes_nothing() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let (session, whole) = (server.new_session(|_| {}).await, server.new_session(|_| {}).await);
    let hub = LiveHub::start(server.db.clone(), server.hints.clone(), HubOptions::default());
    let covers = async || hub.begin(&session.id).await.unwrap().snapshot.map(|snapshot| snapshot.covers_seq());
    let mut log = Log::of(&server, &session.id).await;
    let (first, second) = (earlier_turn(1), turn(2));
    assert_eq!(covers().await, None);
    log.write(&[&first[..], &second[..2]].concat()).await;
    let old = compacted(&server, &session.id).await;

    log.write(&second[2..]).await;
    die_at(&server, Some("insert")).await;
    snapshot::compact(&server.db, &session.id).await.unwrap_err();
    assert_eq!(covers().await, Some(old), "readers begin with the old one");
    die_at(&server, Some("delete")).await;
    snapshot::compact(&server.db, &session.id).await.unwrap_err();
    let last = server.db.last_seq(&session.id).await.unwrap();
    assert_eq!(covers().await, Some(last), "what was written counts");
    assert_eq!(rows(&server, &session.id).await.len(), 2);
    die_at(&server, None).await;

    assert_eq!(compacted(&server, &session.id).await, last);
    let once = rows(&server, &session.id).await;
    assert_eq!((once.len(), once[0].0), (1, last));
    let (one, other) = tokio::join!(compacted(&server, &session.id), compacted(&server, &session.id));
    assert_eq!((one, other), (last, last));
    assert_eq!(rows(&server, &session.id).await, once);

    Log::of(&server, &whole.id).await.write(&[first, second].concat()).await;
    compacted(&server, &whole.id).await;
    assert_eq!(once[0].2["messages"], rows(&server, &whole.id).await[0].2["messages"], "pieces make no difference");
    let of_second: Vec<_> = once[0].2["messages"].as_array().unwrap().iter().skip(3).collect();
    assert_eq!((&of_second[0]["content"], &of_second[2]["exitCode"]), (&json!("half and half"), &json!(2)));
}

/// The text of message `m` as somebody sees it who begins now and stays until the end.
async fn read(hub: LiveHub, session_id: String, last: i64) -> (i64, String) {
    let Beginning { snapshot, mut subscription } = hub.begin(&session_id).await.unwrap();
    let covered = snapshot.as_ref().map_or(0, Snapshot::covers_seq);
    assert_eq!(subscription.cursor(), covered);
    let data: Value = snapshot.map_or(Value::Null, |snapshot| serde_json::from_str(snapshot.json()).unwrap());
    let mut text = data["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
    while subscription.cursor() < last {
        for event in timeout(PATIENCE, subscription.next()).await.unwrap().unwrap().events {
            let event: Value = serde_json::from_str(event.json()).unwrap();
            text += event["data"]["text"].as_str().unwrap_or_default();
        }
    }
    (covered, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_begins_while_the_log_grows_and_is_compacted_misses_nothing_and_sees_nothing_twice() {
    const PIECES: i64 = 200;
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let session = server.new_session(|_| {}).await;
    let options = HubOptions { ring_events: 32, page_events: 16, ..HubOptions::default() };
    let hub = LiveHub::start(server.db.clone(), server.hints.clone(), options);
    let mut log = Log::of(&server, &session.id).await;
    log.write(&[delta("m", "")]).await;
    let last = server.db.last_seq(&session.id).await.unwrap() + PIECES * 5;
    let words = |n: i64| (5 * n..5 * n + 5).map(|n| format!("{n};")).collect::<Vec<_>>();

    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let (db, id) = (server.db.clone(), session.id.clone());
    let compactor = tokio::spawn(async move {
        let mut times = 0;
        while timeout(Duration::from_millis(5), is_done.wait_for(|done| *done)).await.is_err() {
            snapshot::compact(&db, &id).await.unwrap();
            times += 1;
        }
        times
    });
    let mut readers = Vec::new();
    for piece in 0..PIECES {
        let deltas: Vec<_> = words(piece).iter().map(|word| delta("m", word)).collect();
        log.write(&deltas).await;
        if piece % 10 == 0 {
            readers.push(tokio::spawn(read(hub.clone(), session.id.clone(), last)));
        }
    }
    let expected: String = (0..PIECES).flat_map(words).collect();
    let mut beginnings = std::collections::BTreeSet::new();
    for reader in readers {
        let (covered, text) = reader.await.unwrap();
        assert_eq!(text, expected);
        beginnings.insert(covered);
    }
    done.send_replace(true);
    assert!(compactor.await.unwrap() > 3 && beginnings.len() > 3, "{beginnings:?}: the test tests nothing");
}
