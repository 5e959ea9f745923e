//! What happens while the database is away is not forgotten when it comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use ambient_tests::OwnPostgres;
use serde_json::{Value, json};
use support::{
    Server, eventually,
    processes::{runner_pid, signal},
    script,
};

const SESSIONS: usize = 4;
/// From the database's return to a session that runs again; the first wait of a relaunch is 1 s.
const SOON: Duration = Duration::from_secs(30);

fn is_idle(session: &Value) -> bool {
    let ready = session["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Ready");
    session["phase"] == "Running" && ready.is_some_and(|ready| ready["reason"] == "Idle")
}

async fn idle(server: &Server, id: &str, attempt: i64) {
    eventually(&format!("{id} is idle in attempt {attempt}"), async || {
        let answer = Server::try_send(server.request(reqwest::Method::GET, &format!("/sessions/{id}"))).await?;
        (answer.status == 200 && is_idle(&answer.json) && answer.json["attempt"] == attempt).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_runner_seen_while_the_database_is_away_is_told_when_it_is_back() {
    let postgres = OwnPostgres::start();
    let database = postgres.database().await;
    let server = Server::start(&database, "one").await;
    server.project("away").await;
    let mut ids = Vec::new();
    for _ in 0..SESSIONS {
        ids.push(server.session(json!({"project_id": "away", "prompt": script("echo began")})).await);
    }
    for id in &ids {
        idle(&server, id, 1).await;
    }
    postgres.kill_9();
    ids.iter().for_each(|id| signal(runner_pid(&server.session_dir(id), 1, 1), "KILL"));
    // Every end was seen, and could not be reported.
    eventually("the ends are seen", async || {
        let log = server.whole_log();
        let told =
            |id: &String| log.lines().any(|line| line.contains(id.as_str()) && line.contains("reporting it again"));
        ids.iter().all(told).then_some(())
    })
    .await;
    postgres.start_again();
    let back = Instant::now();
    for id in &ids {
        idle(&server, id, 2).await;
    }
    assert!(back.elapsed() < SOON, "running again only after {:?}", back.elapsed());
    for id in &ids {
        let message = json!({"text": script("echo answered")});
        server.post(&format!("/sessions/{id}/messages"), message).await.expect(201);
        server.printed(id, "answered").await;
    }
    server.verified().await;
}
