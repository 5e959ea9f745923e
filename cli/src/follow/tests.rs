use serde_json::json;
use url::Url;

use super::*;
use crate::{
    config::Target,
    output::capture::{self, Captured},
    stub::{Reply, SESSION, Stub, event, refused},
};

fn follower(url: &str, after_seq: Option<i64>, patience: Duration) -> (Follower, Captured) {
    let (console, _, err) = capture::console(false, false);
    let target = Target { url: Url::parse(url).unwrap(), token: Some("secret".to_owned()), project: None };
    let client = Client::new(&target, console).unwrap();
    (Follower::new(&client, SESSION, after_seq, patience), err)
}

fn subscribed(seq: i64) -> ServerFrame {
    ServerFrame::Subscribed { id: "1".to_owned(), seq }
}

fn ended() -> ServerFrame {
    ServerFrame::Ended { id: "1".to_owned(), reason: "deleted".to_owned() }
}

fn failure(code: &str) -> ServerFrame {
    let (id, code, reason) = (Some("1".to_owned()), code.to_owned(), "because".to_owned());
    ServerFrame::Error { id, code, reason, oldest: None, covers_seq: None }
}

/// What a connection sends: frames; then it stays open (true) or is cut.
fn live(frames: Vec<ServerFrame>, stays: bool) -> Reply {
    Reply::Live(Box::new(move |_| (frames.clone(), stays)))
}

fn events(seqs: impl IntoIterator<Item = i64>) -> Vec<ServerFrame> {
    seqs.into_iter().map(|seq| event(seq, "X", json!({"n": seq}))).collect()
}

async fn all(follower: &mut Follower) -> Vec<i64> {
    let mut seqs = Vec::new();
    while let Step::Event(event) = follower.next().await.unwrap() {
        assert_eq!(event.data["n"], event.seq);
        seqs.push(event.seq);
    }
    seqs
}

fn snapshot(covers_seq: i64) -> ServerFrame {
    ServerFrame::Snapshot { id: "1".to_owned(), covers_seq, data: json!({"covers_seq": covers_seq}) }
}

#[tokio::test]
async fn a_snapshot_comes_once_and_following_goes_on_after_what_it_covers() {
    let stub = Stub::start(|request| match request.before {
        // Cut between the snapshot and everything that was to follow.
        0 => live(vec![snapshot(41)], false),
        1 => live([vec![subscribed(41)], events([42])].concat(), false),
        _ => live([vec![snapshot(40), subscribed(42)], events([43]), vec![ended()]].concat(), true),
    })
    .await;
    let (mut follower, _) = follower(&stub.url, None, Duration::from_secs(60));
    let first = follower.next().await.unwrap();
    assert_eq!(first, Step::Snapshot(Snapshot { covers_seq: 41, data: json!({"covers_seq": 41}) }));
    assert_eq!(all(&mut follower).await, [42, 43]);
    assert_eq!(stub.cursors(), [None, Some(41), Some(42)]);
}

#[tokio::test]
async fn every_event_comes_once_and_in_order_however_connections_end() {
    let stub = Stub::start(|request| match request.before {
        0 => live([vec![subscribed(0)], events(1..=3)].concat(), false),
        1 => Reply::Cut,
        2 => Reply::Http(503, "", String::new()),
        // A server that repeats itself, and then skips something.
        3 => {
            live([vec![subscribed(3)], events([2, 3, 4, 5, 5]), vec![ServerFrame::Pong {}], events([7])].concat(), true)
        }
        4 => live([vec![subscribed(5)], events([6]), vec![failure("busy")]].concat(), true),
        _ => live([vec![subscribed(6)], events([7, 8]), vec![ended()]].concat(), true),
    })
    .await;
    let (mut follower, err) = follower(&stub.url, Some(0), Duration::from_secs(60));
    assert_eq!(all(&mut follower).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(stub.cursors(), [Some(0), Some(3), Some(5), Some(6)]);
    assert!(stub.requests().iter().all(|request| request.headers["authorization"] == "Bearer secret"));
    let told: Vec<String> = err.text().lines().map(|line| line.split(" (").next().unwrap().to_owned()).collect();
    let expected = [
        "connection lost; resuming after seq 3 …",
        "connection is back",
        "connection lost; resuming after seq 5 …",
        "connection is back",
        "connection lost; resuming after seq 6 …",
        "connection is back",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_connection_is_made_and_resumed_however_often_waiting_for_it_is_given_up() {
    let stub = Stub::start(|request| match request.before {
        0 => live([vec![subscribed(0)], events(1..=2)].concat(), false),
        _ => live([vec![subscribed(2)], events([3]), vec![ended()]].concat(), true),
    })
    .await;
    let (mut follower, _) = follower(&stub.url, Some(0), Duration::from_secs(60));
    let mut seqs = Vec::new();
    loop {
        match follower.next().now_or_never() {
            Some(Ok(Step::Event(event))) => seqs.push(event.seq),
            Some(step) => break assert_eq!(step.unwrap(), Step::Ended("deleted".to_owned())),
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(stub.cursors(), [Some(0), Some(2)], "each connection was made once");
}

#[tokio::test]
async fn a_follower_without_a_cursor_takes_the_servers() {
    let stub = Stub::start(|request| match request.before {
        0 => live(vec![subscribed(41)], false),
        _ => live([vec![subscribed(41)], events([42]), vec![ended()]].concat(), true),
    })
    .await;
    let (mut follower, _) = follower(&stub.url, None, Duration::from_secs(60));
    assert_eq!(all(&mut follower).await, [42]);
    assert_eq!(stub.cursors(), [None, Some(41)]);
}

#[tokio::test]
async fn what_is_no_longer_kept_is_told_and_left_out() {
    let stub = Stub::start(|request| match request.before {
        0 => live(vec![failure("too_old")], true),
        _ => live([vec![subscribed(90)], events([91]), vec![ended()]].concat(), true),
    })
    .await;
    let (mut follower, err) = follower(&stub.url, Some(7), Duration::from_secs(60));
    assert_eq!(all(&mut follower).await, [91]);
    assert_eq!(stub.cursors(), [Some(7), None]);
    assert!(err.text().contains("events after seq 7 are no longer kept (because)"));
}

#[tokio::test]
async fn a_connection_that_never_comes_back_is_given_up_in_time() {
    let stub = Stub::start(|request| match request.before {
        0 => live([vec![subscribed(0)], events(1..=2)].concat(), false),
        _ => Reply::Cut,
    })
    .await;
    let (mut follower, _) = follower(&stub.url, Some(0), Duration::from_millis(900));
    let error = loop {
        if let Err(error) = follower.next().await {
            break error;
        }
    };
    assert!(error.to_string().starts_with("connection lost after seq 2 and not back within 0 s"), "{error}");
    assert_eq!(error.exit(), Exit::Unavailable);
    assert!(stub.requests().len() > 2, "it was tried more than once");
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    for (reply, exit) in [(404, Exit::NotFound), (401, Exit::Denied), (403, Exit::Denied)] {
        let stub = Stub::start(move |_| refused(reply, "no")).await;
        let (mut follower, _) = follower(&stub.url, Some(0), Duration::from_secs(60));
        let error = follower.next().await.unwrap_err();
        assert_eq!((error.exit(), error.to_string().as_str(), stub.requests().len()), (exit, "no", 1));
    }
    for (code, exit) in [("not_found", Exit::NotFound), ("bad_frame", Exit::Rejected), ("refused", Exit::Failure)] {
        let stub = Stub::start(move |_| live(vec![failure(code)], true)).await;
        let (mut follower, _) = follower(&stub.url, Some(0), Duration::from_secs(60));
        assert_eq!(follower.next().await.unwrap_err().exit(), exit, "{code}");
    }
}
