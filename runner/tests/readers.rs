//! What readers and callers of a runner can rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use ambient_runner_protocol::RunnerFrame;
use harness::{Client, Session, is_of_type};
use serde_json::json;

#[tokio::test]
async fn a_lower_epoch_is_dropped_and_a_higher_one_takes_over() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut second = runner.client.events(2, "", 0).await;
    second.until(|record| is_of_type(record, "attempt.started")).await;
    let mut first = runner.client.events(1, "", 0).await;
    assert_eq!(first.next().await, Some(RunnerFrame::Superseded { epoch: 2 }));
    assert_eq!(first.next().await, None);
    runner.client.deliver("a", 1, "words").await.expect(200);
    second.until_turn_ended().await;
    let mut third = runner.client.events(3, "", 0).await;
    third.until_turn_ended().await;
    assert_eq!(second.next().await, Some(RunnerFrame::Superseded { epoch: 3 }));
    assert_eq!(second.next().await, None);
    // The same epoch: the same reader has come back.
    let mut again = runner.client.events(3, &third.log_id, third.last).await;
    assert!(matches!(again.next().await, Some(RunnerFrame::Welcome { last, .. }) if last == third.last));
}

#[tokio::test]
async fn a_cursor_of_another_log_begins_at_the_first_record() {
    let session = Session::new(true);
    let runner = session.start().await;
    let mut reader = runner.client.events(1, "someone-elses", 100).await;
    let records = reader.until(|record| is_of_type(record, "attempt.started")).await;
    assert_eq!(records[0].n, 1);
    assert_ne!(reader.log_id, "someone-elses");
}

#[tokio::test]
async fn many_records_come_in_order_in_bounded_frames() {
    let session = Session::new(true);
    let runner = session.start().await;
    for i in 0..200 {
        runner.client.deliver(&format!("m{i}"), i, "words").await.expect(200);
    }
    let mut reader = runner.client.events(1, "", 0).await;
    let (mut last, mut turns) = (0, 0);
    while turns < 200 {
        match reader.next().await.unwrap() {
            RunnerFrame::Records { records } => {
                assert!(records.len() <= 256);
                for record in &records {
                    assert_eq!(record.n, last + 1);
                    last = record.n;
                    turns += i32::from(is_of_type(record, "turn.ended"));
                }
            }
            other => assert!(matches!(other, RunnerFrame::Welcome { .. })),
        }
    }
}

#[tokio::test]
async fn only_the_runs_token_opens_and_a_refreshed_one_works_at_once() {
    let session = Session::new(true);
    let runner = session.start().await;
    let health = Client::new(&session.spec.socket, "wrong").get("/health").await.expect(200).json();
    assert_eq!((&health["session_id"], &health["run"], &health["state"]), (&"s".into(), &1.into(), &"idle".into()));
    for token in ["wrong", "", "token-of-the-ru", "token-of-the-runx"] {
        let stranger = Client::new(&session.spec.socket, token);
        assert_eq!(stranger.get("/repos").await.expect(401).json()["code"], "unauthorized");
        stranger.deliver("a", 1, "words").await.expect(401);
    }
    runner.client.get("/repos").await.expect(200);
    std::fs::write(session.paths.server_token(1), "second").unwrap();
    Client::new(&session.spec.socket, "second").get("/repos").await.expect(200);
    runner.client.get("/repos").await.expect(401);
}

#[tokio::test]
async fn bad_messages_and_routes_are_refused_with_the_field() {
    let session = Session::new(true);
    let runner = session.start().await;
    let post = |body| runner.client.send("POST", "/messages", body);
    post(json!({ "id": "", "seq": 1, "text": "x" })).await.expect_bad("id");
    post(json!({ "id": "a\nb", "seq": 1, "text": "x" })).await.expect_bad("id");
    post(json!({ "id": "a", "seq": -1, "text": "x" })).await.expect_bad("seq");
    post(json!({ "id": "a", "seq": 1, "text": "x\u{0}" })).await.expect_bad("text");
    post(json!({ "id": "a", "seq": 1, "text": "x", "more": 1 })).await.expect_bad("more");
    post(json!({ "id": "a", "seq": 1 })).await.expect_bad("text");
    post(json!({ "id": "a", "seq": "1", "text": "x" })).await.expect_bad("body");
    post(json!({ "id": "a", "seq": 1, "text": "x".repeat(1024 * 1024 + 1) })).await.expect(413);
    post(json!({ "id": "a", "seq": 1, "text": "x".repeat(8 * 1024 * 1024) })).await.expect(413);
    runner.client.get("/git/status").await.expect_bad("repo");
    runner.client.get("/git/status?repo=x&y=1").await.expect_bad("y");
    assert_eq!(runner.client.get("/nothing").await.expect(404).json()["code"], "not_found");
    let records = runner.client.events(1, "", 0).await.until(|record| is_of_type(record, "attempt.started")).await;
    assert_eq!(records.len(), 1, "nothing bad was recorded");
}

#[tokio::test]
async fn who_sends_no_whole_request_is_cut_off_and_keeps_nobody_else_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let session = Session::new(true);
    let runner = session.start().await;
    let mut idle = Vec::new();
    for beginning in ["", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "].iter().cycle().take(100) {
        let mut stream = tokio::net::UnixStream::connect(&session.spec.socket).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    runner.client.get("/health").await.expect(200);
    for mut stream in idle {
        let ends = async {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), ends).await.expect("it is cut off");
    }
    runner.client.get("/health").await.expect(200);
}
