//! A session that is stopped or deleted leaves nothing behind, and says how that is known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{collections::HashSet, fs};

use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use support::{
    Server, eventually,
    live::Channel,
    processes::{marked, mentioning, nonces_of, runner_pid},
    runner, script,
};

/// Leaves processes in sessions and process groups of their own.
const ESCAPEES: &str = "setsid sleep 1000 >/dev/null 2>&1 &\n\
    (setsid sh -c 'setsid sleep 1000 & trap \"\" TERM INT HUP; while :; do sleep 0.2; done' >/dev/null 2>&1 &)\n\
    echo mine > kept.txt\necho escaped";

async fn running(server: &Server, prompt: &str) -> (String, HashSet<String>) {
    let id = server.session(json!({"project_id": "stop", "prompt": script(prompt)})).await;
    server.printed(&id, "escaped").await;
    server.phase(&id, "Running").await;
    let nonces = nonces_of(&server.session_dir(&id));
    assert!(marked(&nonces).len() >= 3, "the runner and those that escaped: {:?}", marked(&nonces));
    (id, nonces)
}

fn condition<'a>(session: &'a Value, kind: &str) -> &'a Value {
    session["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap()
}

/// Token by which the runner speaks to the server.
fn session_tokens(server: &Server, id: &str, run: i64) -> Vec<String> {
    let secrets = fs::read_dir(server.session_dir(id).join(format!("runs/{run}/secrets"))).unwrap();
    secrets.map(|file| fs::read_to_string(file.unwrap().path()).unwrap().trim().to_owned()).collect()
}

/// Statuses of a look at the session with each of its tokens.
async fn statuses(server: &Server, id: &str, tokens: &[String]) -> Vec<u16> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut statuses = Vec::new();
    for token in tokens {
        let url = format!("http://{}/api/ambient/v1/sessions/{id}", server.address());
        statuses.push(http.get(url).bearer_auth(token).send().await.unwrap().status().as_u16());
    }
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn stop_ends_every_process_of_the_run_and_proves_it() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("stop").await;
    let (id, nonces) = running(&server, ESCAPEES).await;
    let tokens = session_tokens(&server, &id, 1);
    assert_eq!(statuses(&server, &id, &tokens).await.first(), Some(&200), "the runner's token opens its session");

    let path = format!("/sessions/{id}");
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    let session = server.phase(&id, "Stopped").await;
    assert_eq!(marked(&nonces), Vec::<u32>::new(), "Stopped is the proof that nothing is left");
    let proof = condition(&session, "TornDown");
    assert_eq!((&proof["status"], &proof["reason"]), (&json!("True"), &json!("Proven")));
    assert_eq!(session["outcome"]["reason"], "UserStopped");
    assert!(statuses(&server, &id, &tokens).await.iter().all(|status| *status == 401), "the run's tokens are refused");
    assert_eq!(server.post(&format!("{path}/stop"), json!({})).await.status, 200, "a second stop changes nothing");

    server
        .post(&format!("{path}/start"), json!({"prompt": script("cat kept.txt; echo 'in run' two")}))
        .await
        .expect(202);
    server.printed(&id, "mine\nin run two").await;
    let session = server.phase(&id, "Running").await;
    assert_eq!((&session["run"], &session["attempt"]), (&json!(2), &json!(1)));
    assert!(statuses(&server, &id, &tokens).await.iter().all(|status| *status == 401), "also while another run goes");
    assert_ne!(runner_pid(&server.session_dir(&id), 1, 1), runner_pid(&server.session_dir(&id), 2, 1));
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    server.closed_once(&id).await;
    server.verified().await;
}

/// Messages of a run, and those whose turn has begun.
fn messages_and_begun(events: &[Value], run: i64) -> (Vec<Value>, Vec<Value>) {
    let messages = events.iter().filter(|event| event["type"] == "user.message" && event["data"]["run"] == run);
    let begun = runner::begun(events).into_iter();
    (
        messages.map(|event| event["data"]["message_id"].clone()).collect(),
        begun.map(|(_, message)| message.into()).collect(),
    )
}

#[tokio::test]
async fn a_stop_begins_no_turn_of_those_that_wait_and_says_which_were_not_run() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("stop").await;
    let id = server.session(json!({"project_id": "stop", "prompt": script("echo escaped; sleep 600")})).await;
    server.printed(&id, "escaped").await;
    let path = format!("/sessions/{id}");
    let messages = format!("{path}/messages");
    for n in 1..=5 {
        server.post(&messages, json!({"text": script(&format!("touch ran-{n}"))})).await.expect(201);
    }
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    // The next run leaves the messages of the last one alone. It is stopped while it comes up: some have not reached its runner.
    server
        .post(&format!("{path}/start"), json!({"prompt": script("ls; echo 'in run' two; sleep 600")}))
        .await
        .expect(202);
    for n in 1..=3 {
        server.post(&messages, json!({"text": script(&format!("touch again-{n}"))})).await;
    }
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    server.post(&format!("{path}/start"), json!({"prompt": script("ls; echo 'in run' three")})).await.expect(202);
    server.printed(&id, "in run three").await;
    let events = server.events(&id).await;
    let printed: String = events.iter().filter_map(runner::output).collect();
    assert!(!printed.contains("ran-") && !printed.contains("again-"), "{printed}");
    let told: Vec<&Value> = events.iter().filter(|event| event["type"] == "session.messages_not_run").collect();
    for (run, told) in [1, 2].into_iter().zip(&told) {
        let (messages, begun) = messages_and_begun(&events, run);
        let waited: Vec<&Value> = messages.iter().filter(|message| !begun.contains(message)).collect();
        assert_eq!(told["data"]["run"], run);
        assert_eq!(told["data"]["message_ids"].as_array().unwrap().iter().collect::<Vec<_>>(), waited, "run {run}");
    }
    assert_eq!(told.len(), 2);
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    server.closed_once(&id).await;
    server.verified().await;
}

#[tokio::test]
async fn delete_of_a_running_session_leaves_no_process_and_no_workspace_and_ends_its_channel() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("stop").await;
    let (id, nonces) = running(&server, ESCAPEES).await;
    let tokens = session_tokens(&server, &id, 1);
    let directory = server.session_dir(&id);
    let mut channel = Channel::open(&server, &id, 0).await.unwrap();
    channel.next().await.expect("it has begun");

    assert_eq!(server.delete(&format!("/sessions/{id}")).await.status, 204);
    assert_eq!(
        statuses(&server, &id, &tokens).await,
        vec![401; tokens.len()],
        "its tokens are invalid from the commit"
    );
    assert_eq!(server.get(&format!("/sessions/{id}")).await.status, 404);
    let end = loop {
        let frame = channel.next().await.expect("the channel ends by a frame");
        if frame["op"] != "event" {
            break frame;
        }
    };
    assert_eq!((&end["op"], &end["reason"]), (&json!("ended"), &json!("deleted")));
    eventually("no process and no workspace is left", async || {
        (marked(&nonces).is_empty() && !directory.exists()).then_some(())
    })
    .await;
    server.verified().await;
}

#[tokio::test]
async fn stop_while_it_starts_and_starts_and_stops_at_once_end_in_one_clean_state() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("stop").await;
    let body = json!({"project_id": "stop", "prompt": script("echo escaped; sleep 600")});
    let id = server.post("/sessions", body).await.expect(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/sessions/{id}");
    assert_eq!(server.post(&format!("{path}/stop"), json!({})).await.status, 409, "it was never started");

    let (start, go) = (format!("{path}/start"), json!({}));
    let (one, two) = tokio::join!(server.post(&start, go.clone()), server.post(&start, go));
    let mut both = [one.status, two.status];
    both.sort_unstable();
    assert_eq!(both, [202, 409], "of two starts at once, one is accepted");
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    let session = server.phase(&id, "Stopped").await;
    assert_eq!((&session["run"], &condition(&session, "TornDown")["status"]), (&json!(1), &json!("True")));
    assert_eq!(marked(&nonces_of(&server.session_dir(&id))), Vec::<u32>::new());
    server.closed_once(&id).await;
    server.verified().await;
}

#[tokio::test]
async fn delete_while_it_starts_or_stops_leaves_nothing() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("stop").await;
    for stop_first in [false, true] {
        let body = json!({"project_id": "stop", "prompt": script("echo escaped; sleep 600")});
        let id = server.session(body).await;
        let directory = server.session_dir(&id);
        if stop_first {
            server.printed(&id, "escaped").await;
            server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
        }
        assert_eq!(server.delete(&format!("/sessions/{id}")).await.status, 204);
        eventually("session-delete has finished", async || {
            let list = server.get("/workflow_executions?workflow=session-delete&size=100").await.expect(200);
            let finished = |execution: &&Value| {
                execution["status"] == "Completed" && execution["id"].as_str().is_some_and(|name| name.contains(&id))
            };
            list["items"].as_array().unwrap().iter().find(finished).map(|_| ())
        })
        .await;
        assert!(!directory.exists());
        assert_eq!(mentioning(&id), Vec::<u32>::new());
    }
    server.verified().await;
}

#[tokio::test]
async fn the_mark_of_a_deleted_session_goes_when_it_is_old_although_the_server_is_killed_and_the_session_stays_gone() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    server.project("stop").await;
    let (id, _) = running(&server, ESCAPEES).await;
    let (directory, mark) = (server.session_dir(&id), server.data_dir().join("deleted").join(&id));
    assert_eq!(server.delete(&format!("/sessions/{id}")).await.status, 204);
    eventually("the session is gone, and marked", async || (!directory.exists() && mark.exists()).then_some(())).await;
    server.closed_once(&id).await;

    // A sweep that a new server starts does not wait for its minute.
    let sweep_anew = async |server: &mut Server| {
        let terminate = async || server.post("/workflow_executions/sweep%2Fone/terminate", json!({})).await;
        eventually("the sweep is there", async || (terminate().await.status == 200).then_some(())).await;
        server.kill();
        server.restart().await;
    };
    sweep_anew(&mut server).await;
    eventually("a sweep", async || {
        let history = server.get("/workflow_executions/sweep%2Fone/history").await.expect(200);
        let has = |kind: &str| history["items"].as_array().unwrap().iter().any(|event| event["type"] == kind);
        (has("TimerStarted") && !has("WorkflowExecutionTerminated")).then_some(())
    })
    .await;
    assert!(mark.exists(), "it is young");

    let two_days = std::time::Duration::from_secs(2 * 24 * 60 * 60);
    let file = fs::File::options().write(true).open(&mark).unwrap();
    file.set_modified(std::time::SystemTime::now() - two_days).unwrap();
    for _ in 0..2 {
        sweep_anew(&mut server).await;
    }
    eventually("its mark is gone", async || (!mark.exists()).then_some(())).await;
    sweep_anew(&mut server).await;
    let start = server.post(&format!("/sessions/{id}/start"), json!({})).await;
    assert_eq!((start.status, directory.exists(), mark.exists()), (404, false, false));
    server.verified().await;
}
