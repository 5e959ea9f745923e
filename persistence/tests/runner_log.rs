//! A runner's log is stored by one reader at a time, each record once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use ambient_domain::session::Session;
use ambient_persistence::{
    AGENT, ModelUsage, PROXY, RunChange, RunnerAppendError, RunnerBatch, RunnerLease, TurnChange, TurnEnd, TurnStarted,
    UsageBy, UsageChange, UsageOf, UsageRow, VerifyScope,
};
use chrono::Utc;
use serde_json::{Value, json};
use support::*;

const TTL: Duration = Duration::from_secs(30);

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

/// A batch of given events.
fn told(session: &Session, lease: &RunnerLease, cursor_before: i64, events: &[Value]) -> RunnerBatch {
    let count = i64::try_from(events.len()).unwrap();
    let mut batch = batch(session, lease, cursor_before, count);
    for (record, event) in batch.records.iter_mut().zip(events) {
        (record.event_type, record.data) = (event["type"].as_str().unwrap().to_owned(), event.clone());
    }
    batch
}

#[tokio::test]
async fn a_message_of_the_agent_starts_with_its_first_piece_whatever_lies_between_and_whatever_its_id() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let before = s.db.load_current::<Session>(&session.id).await.unwrap().unwrap();
    append(&s.db, item(Some(&before), &message("hi"), &["hi"])).await.unwrap();
    let of_a_person = s.db.undelivered_messages(&session.id, 1).await.unwrap()[0].message_id.clone().unwrap();
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    let piece = |id: &str| json!({"type": "agent.text", "message_id": id, "text": "x"});
    let long = "x".repeat(10_000);
    let pieces = [
        piece("a"),
        piece("b"),
        json!({"type": "agent.thought", "message_id": "t", "text": "x"}),
        piece("a"),
        piece(&of_a_person),
        json!({"type": "TEXT_MESSAGE_START", "messageId": "earlier"}),
    ];
    s.db.append_runner_events(told(&session, &lease, 0, &pieces)).await.unwrap();
    let image = json!({"type": "agent.content", "message_id": "c", "content": {"type": "image"}});
    let more = [piece("b"), image, piece("c"), piece(&long), piece(&long), json!({"type": "agent.text", "text": 7})];
    s.db.append_runner_events(told(&session, &lease, 6, &more)).await.unwrap();

    let events = s.db.read_events(&session.id, 0, 100).await.unwrap();
    let starts = |event: &ambient_persistence::StoredEvent| event.runner_seq.filter(|_| event.message_id.is_some());
    assert_eq!(events.iter().filter_map(starts).collect::<Vec<_>>(), [1, 2, 5, 8, 10, 12]);
    assert_eq!(s.db.count_messages(&session.id).await.unwrap(), 8, "with the person's and the earlier runner's");
    assert_eq!(s.db.undelivered_messages(&session.id, 1).await.unwrap().len(), 1, "the agent's are not delivered");
    s.db.mark_delivered(&session.id, 2).await.unwrap();
    assert!(s.db.sessions_with_runners().await.unwrap().iter().all(|session| !session.has_undelivered));
}

#[tokio::test]
async fn messages_whose_turn_has_not_begun_are_known_from_todays_records_and_earlier_ones() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    for begins in [
        |id: &str| json!({"type": "turn.started", "turn_id": "s/1/1", "message_id": id}),
        |id: &str| json!({"type": "RUN_STARTED", "threadId": "s", "runId": "s/1/1", "messageId": id}),
    ] {
        let session = new_session(&s.db, &project, true).await;
        for text in ["one", "two", "three"] {
            let before = s.db.load_current::<Session>(&session.id).await.unwrap().unwrap();
            append(&s.db, item(Some(&before), &message(text), &[text])).await.unwrap();
        }
        let sent = s.db.messages_not_run(&session.id, 1).await.unwrap();
        assert_eq!(sent.len(), 3);
        let lease = lease(&s.db, &session, "server-1").await.unwrap();
        let text = json!({"type": "agent.text", "message_id": "a", "text": "x"});
        let events = [begins(&sent[0]), text, begins(&sent[1])];
        s.db.append_runner_events(told(&session, &lease, 0, &events)).await.unwrap();
        assert_eq!(s.db.messages_not_run(&session.id, 1).await.unwrap(), sent[2..]);
    }
}

/// Usage of a turn.
fn used(turn: i64, source: &'static str, model: &str, input_tokens: i64) -> UsageChange {
    let usage = ModelUsage { calls: 1, input_tokens, output_tokens: 5, cost_micros: 7, ..ModelUsage::default() };
    UsageChange { turn, source, model: model.to_owned(), at: Utc::now(), usage }
}

#[tokio::test]
async fn usage_is_added_up_by_what_the_proxy_counted_and_only_without_that_by_what_agents_report() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    let mut first = batch(&session, &lease, 0, 1);
    first.changes.usage = vec![used(1, PROXY, "m", 10), used(1, AGENT, "m", 1000), used(1, PROXY, "n", i64::MAX)];
    let mut second = batch(&session, &lease, 1, 1);
    second.changes.usage = vec![used(1, PROXY, "m", 1), used(2, AGENT, "m", 50), used(2, AGENT, "m", 70)];
    s.db.append_runner_events(first.clone()).await.unwrap();
    assert!(s.db.append_runner_events(first).await.is_err(), "stored once");
    s.db.append_runner_events(second).await.unwrap();

    assert_eq!(s.db.model_usage_before(&session.id, 1).await.unwrap(), (0, 0));
    assert_eq!(s.db.model_usage_before(&session.id, 2).await.unwrap(), (i64::MAX as u64, 21));
    assert_eq!(s.db.model_usage_before("another", 2).await.unwrap(), (0, 0));
    let of = |rows: Vec<UsageRow>| -> Vec<(i64, String, i64, i64)> {
        rows.into_iter().map(|row| (row.turn, row.model, row.usage.calls, row.usage.input_tokens)).collect()
    };
    let by = async |by| of(s.db.model_usage(UsageOf::Session(&session.id), by).await.unwrap());
    assert_eq!(by(UsageBy::Turn).await, [(1, String::new(), 3, i64::MAX), (2, String::new(), 1, 70)]);
    let second = UsageOf::Turns(&session.id, (1, 2), (1, 9));
    assert_eq!(of(s.db.model_usage(second, UsageBy::Turn).await.unwrap()), [(2, String::new(), 1, 70)]);
    assert_eq!(
        by(UsageBy::Model).await,
        [(0, "m".to_owned(), 1, 70), (0, "m".to_owned(), 2, 11), (0, "n".to_owned(), 1, i64::MAX)]
    );
    let project_of = UsageOf::Project(&project.id, None, Some(Utc::now() - chrono::Duration::days(1)));
    assert_eq!(s.db.model_usage(project_of, UsageBy::Day).await.unwrap(), []);
    let project_of = UsageOf::Project(&project.id, Some(Utc::now() - chrono::Duration::days(1)), None);
    assert_eq!(s.db.model_usage(project_of, UsageBy::Day).await.unwrap().len(), 2, "by who counted");
}

#[tokio::test]
async fn models_of_a_turn_are_bounded_and_what_others_use_still_counts() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    let mut all = batch(&session, &lease, 0, 1);
    all.changes.usage = (0..100).map(|n| used(1, PROXY, &format!("model-{n}"), 1)).collect();
    s.db.append_runner_events(all).await.unwrap();
    let rows = s.db.model_usage(UsageOf::Session(&session.id), UsageBy::Model).await.unwrap();
    assert_eq!(rows.len(), 33);
    assert_eq!(rows.iter().map(|row| row.usage.calls).sum::<i64>(), 100);
}

#[tokio::test]
async fn a_turn_is_one_row_whatever_batches_tell_of_it() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    let before = s.db.last_seq(&session.id).await.unwrap();
    let started = |index| Some(TurnStarted { message_id: format!("m{index}"), at: Utc::now(), index });
    let mut first = batch(&session, &lease, 0, 3);
    first.changes.turns =
        vec![TurnChange { number: Some(1), started: started(1), tool_calls: 2, ..TurnChange::default() }];
    let mut second = batch(&session, &lease, 3, 4);
    let result =
        Some(TurnEnd { outcome: "error".to_owned(), code: Some("AgentLost".to_owned()), ..TurnEnd::default() });
    let repos = vec![json!({"repo": "a", "failed": "no\u{0}space"})];
    second.changes.turns = vec![
        TurnChange { tool_calls: 1, permission_requests: 1, repos, ..TurnChange::default() },
        TurnChange { number: Some(1), result, ended: Some((Utc::now(), 2)), ..TurnChange::default() },
        TurnChange { number: Some(2), started: started(3), ..TurnChange::default() },
    ];
    s.db.append_runner_events(first).await.unwrap();
    let open = s.db.turn(&session.id, 1, 1).await.unwrap().unwrap();
    assert_eq!((open.first_seq, open.last_seq, open.outcome.as_deref(), open.is_last), (before + 2, None, None, true));
    s.db.append_runner_events(second).await.unwrap();
    let (turns, total) = s.db.turns(&session.id, Some(1), 1, 10).await.unwrap();
    let [next, ended] = &turns[..] else { panic!("{turns:#?}") };
    assert_eq!((total, next.number, next.first_seq, next.is_last), (2, 2, before + 7, true));
    assert_eq!((ended.last_seq, ended.code.as_deref(), ended.is_last), (Some(before + 6), Some("AgentLost"), false));
    assert_eq!((ended.tool_calls, ended.permission_requests), (3, 1));
    assert_eq!(ended.repos, json!([{"repo": "a", "failed": "no\u{fffd}space"}]));
    assert_eq!(s.db.turns(&session.id, Some(2), 1, 10).await.unwrap(), (Vec::new(), 0));
}

#[tokio::test]
async fn a_run_is_one_row_that_holds_the_last_word_on_each_repository() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let lease = lease(&s.db, &session, "server-1").await.unwrap();
    assert_eq!(s.db.run_results(&session.id, 1).await.unwrap(), None);
    let status = |status: &str| json!({"status": status, "message": "a\u{0}b"});
    let said = |id: &str, text: &str| json!({"type": "agent.text", "message_id": id, "text": text});
    let other = json!({"type": "tool.started"});

    let events = [json!({"type": "turn.started"}), said("1", "first"), said("2", "se"), other.clone()];
    let mut first = told(&session, &lease, 0, &events);
    let started = Some(TurnStarted { message_id: "m".to_owned(), at: Utc::now(), index: 0 });
    first.changes.turns = vec![TurnChange { number: Some(1), started, ..TurnChange::default() }];
    first.changes.run.repos.insert("a".to_owned(), status("pushed"));
    s.db.append_runner_events(first).await.unwrap();
    let row = s.db.run_results(&session.id, 1).await.unwrap().unwrap();
    assert_eq!((row.results, row.error), (None, None));

    let mut second = told(&session, &lease, 4, &[said("2", "cond"), json!({"type": "turn.ended"}), said("3", "third")]);
    second.changes.run = RunChange {
        repos: [("a".to_owned(), status("abandoned")), ("b".to_owned(), status("failed"))].into(),
        turn: Some(Some("PushFailed: no".to_owned())),
        turn_ended: Some(1),
    };
    s.db.append_runner_events(second.clone()).await.unwrap();
    // Once more, after an unknown outcome of the commit.
    assert!(s.db.append_runner_events(second).await.is_err());
    let row = s.db.run_results(&session.id, 1).await.unwrap().unwrap();
    assert_eq!((row.results.as_deref(), row.error.as_deref()), (Some("second"), Some("PushFailed: no")));
    let told_of = |status: &str| json!({"status": status, "message": "a\u{fffd}b"});
    assert_eq!(row.repo_statuses, json!({"a": told_of("abandoned"), "b": told_of("failed")}));

    // A turn that says nothing leaves what was said, and one that finishes has no error.
    let mut third = told(&session, &lease, 7, &[json!({"type": "turn.started"}), other, json!({"type": "turn.ended"})]);
    let started = Some(TurnStarted { message_id: "n".to_owned(), at: Utc::now(), index: 0 });
    third.changes.turns = vec![TurnChange { number: Some(2), started, ..TurnChange::default() }];
    third.changes.run = RunChange { turn: Some(None), turn_ended: Some(2), ..RunChange::default() };
    s.db.append_runner_events(third).await.unwrap();
    let row = s.db.run_results(&session.id, 1).await.unwrap().unwrap();
    assert_eq!((row.results.as_deref(), row.error), (Some("second"), None));
    assert_eq!(s.db.run_results(&session.id, 2).await.unwrap(), None);
}
