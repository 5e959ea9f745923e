//! Nothing that was accepted is lost, and nothing is done twice, whatever is killed and when.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    Origin, PATIENCE, Server, eventually,
    live::Follower,
    processes::{runner_pid, signal},
    runner, script,
};

const ROUNDS: usize = 12;
/// Longest time between the request that starts a session and the kill.
const LATEST_KILL_MS: u64 = 1_500;

/// The same numbers in every run of the test.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn seqs(events: &[Value]) -> Vec<i64> {
    events.iter().map(|event| event["seq"].as_i64().unwrap()).collect()
}

/// Events of the runner as the live log has them.
fn from_runner(events: &[Value]) -> Vec<Value> {
    let ours = |event: &&Value| {
        let kind = event["type"].as_str().unwrap();
        kind.starts_with("session.") || kind.starts_with("user.")
    };
    events.iter().filter(|event| !ours(event)).map(|event| event["data"].clone()).collect()
}

/// Events of the runner as it recorded them.
fn recorded(server: &Server, id: &str, run: i64) -> Vec<Value> {
    let log = fs::read_to_string(server.session_dir(id).join(format!("runs/{run}/events.ndjson"))).unwrap();
    log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect()
}

/// The live log has no gap and each of the runner's records once, in its order.
async fn complete_log(server: &Server, id: &str) -> Vec<Value> {
    // What writes still would be seen by one of the two reads alone.
    server.closed_once(id).await;
    let events = server.events(id).await;
    let expected: Vec<i64> = (1..).take(events.len()).collect();
    assert_eq!(seqs(&events), expected, "{id}");
    assert_eq!(from_runner(&events), recorded(server, id, 1), "{id}");
    events
}

fn working(text: &str) -> String {
    script(&format!(
        "echo {text} >> log.txt\nfor i in 1 2 3 4 5 6 7 8; do echo step $i; sleep 0.1; done\ngit add log.txt\ngit commit -q -m {text}"
    ))
}

/// Creates and starts a session by one request that is repeated, with its key, until it is answered.
async fn create_in_spite_of_kills(request: reqwest::Request) -> String {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let again = reqwest::RequestBuilder::from_parts(http.clone(), request.try_clone().unwrap());
        if let Some(answer) = Server::try_send(again).await {
            return answer.expect(201)["id"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "the session is not created");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn sessions_survive_kill_9_of_the_server_at_any_point_and_work_exactly_once() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    let origin = Origin::new();
    server.project("crash").await;
    let mut random = Seeded(2);
    let mut sessions = Vec::new();
    for round in 0..ROUNDS {
        let body = json!({
            "project_id": "crash", "interactive": false, "start": true, "timeout": 120, "prompt": working(&format!("round-{round}")),
            "repos": [{"name": "log", "url": origin.url(), "output": {"target_branch": format!("out-{round}")}, "auto_push": true}],
        });
        let request = server.request(Method::POST, "/sessions").header("idempotency-key", format!("round-{round}"));
        let request = request.json(&body).build().unwrap();
        let created = tokio::spawn(create_in_spite_of_kills(request));
        let delay = Duration::from_millis(random.below(LATEST_KILL_MS));
        tokio::time::sleep(delay).await;
        server.kill();
        server.restart().await;
        let id = created.await.unwrap();
        sessions.push((round, Follower::start(&server, &id), id));
    }
    for (round, follower, id) in sessions {
        let session = server.phase(&id, "Completed").await;
        assert_eq!(session["attempt"], 1, "the runner was not touched: {session:#}");
        let (branch, line) = (format!("out-{round}"), format!("round-{round}"));
        assert_eq!(origin.file(&branch, "log.txt"), format!("start\n{line}\n"));
        assert_eq!(origin.commits(&branch), 2);
        let events = complete_log(&server, &id).await;
        assert_eq!(runner::begun_and_finished(&events), (1, 1), "{id}");
        pushed_once(&server, &id, &events, &branch, &origin.head(&branch)).await;
        let followed = follower.finish().await;
        assert_eq!(
            seqs(&followed),
            seqs(&events)[..followed.len()],
            "the follower missed or repeated something of {id}"
        );
    }
    assert_eq!(server.get("/sessions?size=0").await.expect(200)["total"], ROUNDS, "one session for each key");
    server.verified().await;
}

/// The log tells of one push, and the session of the same.
async fn pushed_once(server: &Server, id: &str, events: &[Value], branch: &str, commit: &str) {
    let pushes = events.iter().filter(|event| event["type"] == "repo.pushed").count();
    let session = server.get(&format!("/sessions/{id}")).await.expect(200);
    let statuses = session["repo_statuses"].as_array().unwrap();
    assert_eq!((pushes, statuses.len()), (1, 1), "{statuses:?}");
    let told = ["repo", "status", "branch", "commit"].map(|field| statuses[0][field].as_str().unwrap());
    assert_eq!(told, ["log", "pushed", branch, commit], "{id}");
    assert_eq!((&session["error"], &session["results"]), (&Value::Null, &Value::Null), "{id}");
}

/// How long after a turn's push its server is killed, ms: before its end is recorded, and after.
const KILLS_AT_THE_END: [u64; 4] = [0, 20, 60, 150];

#[tokio::test]
async fn a_server_killed_at_the_end_of_a_turn_tells_once_of_what_was_pushed() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    let origin = Origin::new();
    server.project("crash").await;
    for (round, delay) in KILLS_AT_THE_END.into_iter().enumerate() {
        let branch = format!("end-{round}");
        let prompt = script(&format!("echo {branch} >> log.txt\ngit add log.txt\ngit commit -q -m {branch}"));
        let body = json!({
            "project_id": "crash", "interactive": false, "start": true, "timeout": 120, "prompt": prompt,
            "repos": [{"name": "log", "url": origin.url(), "output": {"target_branch": branch}, "auto_push": true}],
        });
        let id = server.post("/sessions", body).await.expect(201)["id"].as_str().unwrap().to_owned();
        eventually("the branch is pushed", async || origin.has(&branch).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        server.kill();
        server.restart().await;
        server.phase(&id, "Completed").await;
        let events = complete_log(&server, &id).await;
        assert_eq!(runner::begun_and_finished(&events), (1, 1), "{id}");
        pushed_once(&server, &id, &events, &branch, &origin.head(&branch)).await;
        assert_eq!(origin.commits(&branch), 2);
    }
    server.verified().await;
}

/// More often than a step that fails is tried.
const KILLS_OF_ONE_STEP: i64 = 5;

#[tokio::test]
async fn a_clone_survives_more_kills_of_the_server_than_it_may_fail() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    let origin = Origin::new();
    origin.hold();
    server.project("crash").await;
    let body = json!({
        "project_id": "crash", "interactive": false, "timeout": 900, "prompt": script("cat log.txt"),
        "repos": [{"url": origin.url()}],
    });
    let id = server.session(body).await;
    let start = format!("/workflow_executions/session-start%2F{id}%2F1.1");
    for kills in 1..=KILLS_OF_ONE_STEP {
        let begun = Instant::now();
        loop {
            let execution = server.get(&start).await.expect(200);
            let is_at_it = execution["pending_activities"].as_array().unwrap().iter().any(|step| {
                let attempt = step["attempt"].as_i64().unwrap();
                step["activity"] == "reconcile-and-mark-running" && step["state"] == "Started" && attempt >= kills
            });
            if is_at_it {
                break;
            }
            // An attempt whose worker was killed may be noticed only by its missing heartbeats.
            assert!(begun.elapsed() < 3 * PATIENCE, "no attempt {kills} at the clone: {execution:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.kill();
        server.restart().await;
    }
    origin.let_go();
    let session = server.phase(&id, "Completed").await;
    assert_eq!(session["attempt"], 1, "{session:#}");
    let events = complete_log(&server, &id).await;
    assert_eq!(runner::begun_and_finished(&events), (1, 1));
    server.verified().await;
}

/// Says when the agent is in the middle of its turn; goes on when it is let.
fn waits_the_first_time() -> String {
    script(
        "echo ran >> ran.txt\necho \"working $(wc -l < ran.txt)\"\nif [ \"$(wc -l < ran.txt)\" = 1 ]; then sleep 600; fi\necho finished",
    )
}

#[tokio::test]
async fn a_batch_prompt_runs_again_when_its_runner_was_killed_in_the_middle() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("crash").await;
    let body = json!({"project_id": "crash", "interactive": false, "timeout": 120, "prompt": waits_the_first_time()});
    let id = server.session(body).await;
    server.printed(&id, "working 1").await;
    signal(runner_pid(&server.session_dir(&id), 1, 1), "KILL");
    let session = server.phase(&id, "Completed").await;
    assert_eq!((&session["run"], &session["attempt"]), (&json!(1), &json!(2)));
    let events = complete_log(&server, &id).await;
    assert_eq!(events.iter().filter(|event| runner::ended_lost(event)).count(), 1);
    assert_eq!(runner::begun_and_finished(&events), (2, 1));
    let turns = runner::begun(&events);
    assert_eq!(turns[0].1, turns[1].1, "the same message");
    assert_ne!(turns[0].0, turns[1].0, "a new turn");
    server.verified().await;
}

#[tokio::test]
async fn a_chat_waits_for_its_user_when_its_runner_was_killed_in_the_middle() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("crash").await;
    let id = server.session(json!({"project_id": "crash", "prompt": waits_the_first_time()})).await;
    server.printed(&id, "working 1").await;
    signal(runner_pid(&server.session_dir(&id), 1, 1), "KILL");
    server.event(&id, "the turn ends with RunnerLost", runner::ended_lost).await;
    let path = format!("/sessions/{id}");
    let idle = eventually("it is Running and idle again", async || {
        let session = server.get(&path).await.expect(200);
        let ready = session["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Ready");
        let idle = ready.is_some_and(|ready| ready["status"] == "True" && ready["reason"] == "Idle");
        (session["phase"] == "Running" && session["attempt"] == 2 && idle).then_some(session)
    })
    .await;
    assert_eq!(idle["run"], 1);
    assert_eq!(runner::begun(&server.events(&id).await).len(), 1, "the prompt is not repeated in a chat");
    server.post(&format!("{path}/messages"), json!({"text": script("echo answered; cat ran.txt")})).await.expect(201);
    server.printed(&id, "answered").await;
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    complete_log(&server, &id).await;
}

#[tokio::test]
async fn a_session_survives_kill_9_of_its_runner_and_the_server_together() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    server.project("crash").await;
    let body = json!({"project_id": "crash", "interactive": false, "timeout": 120, "prompt": waits_the_first_time()});
    let id = server.session(body).await;
    server.printed(&id, "working 1").await;
    let follower = Follower::start(&server, &id);
    let runner = runner_pid(&server.session_dir(&id), 1, 1);
    server.kill();
    signal(runner, "KILL");
    server.restart().await;
    let session = server.phase(&id, "Completed").await;
    assert_eq!((&session["run"], &session["attempt"]), (&json!(1), &json!(2)));
    let events = complete_log(&server, &id).await;
    assert_eq!(seqs(&follower.finish().await), seqs(&events));
    server.verified().await;
}
