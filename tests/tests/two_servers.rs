//! Two servers on one database are one system: either takes any command, and one carries on when the other is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use support::{
    Server, eventually,
    live::{Channel, Follower},
    processes::{marked, nonces_of},
    runner, script,
};

fn batch(text: &str, seconds: u32) -> Value {
    json!({"project_id": "both", "interactive": false, "timeout": 120,
        "prompt": script(&format!("echo begin {text}; sleep {seconds}; echo end {text}"))})
}

fn seqs(events: &[Value]) -> Vec<i64> {
    events.iter().map(|event| event["seq"].as_i64().unwrap()).collect()
}

/// The server whose machine the session runs on.
fn home<'a>(servers: [&'a Server; 2], id: &str) -> &'a Server {
    servers.into_iter().find(|server| !nonces_of(&server.session_dir(id)).is_empty()).expect("it runs somewhere")
}

#[tokio::test]
async fn sessions_and_commands_go_through_either_server() {
    let database = TestDatabase::new().await;
    let a = Server::start(&database, "a").await;
    let b = a.start_beside(&database, "b").await;
    a.project("both").await;
    let (one, two) = (a.session(batch("one", 2)).await, b.session(batch("two", 2)).await);
    let chat = a.session(json!({"project_id": "both", "prompt": script("echo ready")})).await;
    let followers = [Follower::start(&b, &one), Follower::start(&a, &two)];
    for (follower, id) in followers.into_iter().zip([&one, &two]) {
        let (seen_by_a, seen_by_b) = (a.phase(id, "Completed").await, b.phase(id, "Completed").await);
        assert_eq!(seen_by_a["version"], seen_by_b["version"]);
        let events = a.events(id).await;
        assert_eq!(seqs(&events), (1..).take(events.len()).collect::<Vec<_>>());
        assert_eq!(seqs(&follower.finish().await), seqs(&events), "followed through the other server");
        b.closed_once(id).await;
    }

    b.printed(&chat, "ready").await;
    a.phase(&chat, "Running").await;
    let path = format!("/sessions/{chat}");
    let mut channel = Channel::open(&b, &chat, 0).await.unwrap();
    b.post(&format!("{path}/messages"), json!({"text": script("echo through b")})).await.expect(201);
    loop {
        let frame = channel.next().await.expect("the channel stays open");
        if runner::output(&frame).is_some_and(|text| text.contains("through b")) {
            break;
        }
    }
    let patched = b.send(b.request(reqwest::Method::PATCH, &path).json(&json!({"name": "renamed"}))).await.expect(200);
    assert_eq!(a.get(&path).await.expect(200)["name"], patched["name"]);
    let (stop, go) = (format!("{path}/stop"), json!({}));
    let (first, second) = tokio::join!(a.post(&stop, go.clone()), b.post(&stop, go));
    assert!([first.status, second.status].iter().all(|status| matches!(status, 200 | 202)));
    let stopped = b.phase(&chat, "Stopped").await;
    assert_eq!(stopped["run"], 1);
    assert!([&a, &b].iter().all(|server| marked(&nonces_of(&server.session_dir(&chat))).is_empty()));
    a.verified().await;
}

#[tokio::test]
async fn the_other_server_goes_on_when_one_is_killed_and_its_sessions_complete_when_it_is_back() {
    let database = TestDatabase::new().await;
    let mut a = Server::start(&database, "a").await;
    let mut b = a.start_beside(&database, "b").await;
    a.project("both").await;
    let id = a.session(batch("one", 6)).await;
    a.printed(&id, "begin one").await;
    a.phase(&id, "Running").await;
    let at_home = home([&a, &b], &id).host.clone();
    let (dying, living) = if at_home == "a" { (&mut a, &b) } else { (&mut b, &a) };
    let nonces = nonces_of(&dying.session_dir(&id));
    dying.kill();

    living.project("after").await;
    let other = living
        .session(json!({"project_id": "after", "interactive": false, "timeout": 120, "prompt": script("echo hi")}))
        .await;
    assert!(!marked(&nonces).is_empty(), "the agent works on without its server");
    let session = living.get(&format!("/sessions/{id}")).await.expect(200);
    assert_eq!(session["phase"], "Running", "another host does not judge it: {session:#}");
    living.phase(&other, "Completed").await;

    dying.restart().await;
    let session = living.phase(&id, "Completed").await;
    assert_eq!((&session["run"], &session["attempt"]), (&json!(1), &json!(1)));
    let events = living.events(&id).await;
    assert_eq!(seqs(&events), (1..).take(events.len()).collect::<Vec<_>>());
    assert_eq!(runner::begun_and_finished(&events).1, 1);
    for session in [&id, &other] {
        living.closed_once(session).await;
    }
    eventually("both are ready", async || (dying.get("/sessions").await.status == 200).then_some(())).await;
    living.verified().await;
}
