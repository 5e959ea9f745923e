//! Agents that speak the Agent Client Protocol, on a whole server: what they say is recorded, what they ask is answered, whoever dies meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use ambient_tests::TestDatabase;
use ambient_wire::runner_event::{RunnerEvent, TurnOutcome};
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    Answer, Server, binary, eventually,
    fake_agent::{asked, body, server},
    processes::{marked, nonces_of},
    runner,
};

/// What the agent has said so far.
async fn said(server: &Server, id: &str) -> String {
    let text = |event: &Value| match RunnerEvent::read(&event["data"]) {
        Some(RunnerEvent::AgentText { text, .. }) => Some(text),
        _ => None,
    };
    server.events(id).await.iter().filter_map(text).collect()
}

async fn turns_ended(server: &Server, id: &str, count: usize) -> Vec<TurnOutcome> {
    eventually("the turns end", async || {
        let ended = runner::ended(&server.events(id).await);
        (ended.len() >= count).then(|| ended.iter().map(|result| result.outcome).collect())
    })
    .await
}

#[tokio::test]
async fn a_request_is_answered_once_and_survives_the_death_of_the_server() {
    let database = TestDatabase::new().await;
    let mut server = server(&database).await;
    let id = server.session(body("say hello\nask c1 rm -r build")).await;
    let interrupt = asked(&server, &id).await;
    let inbox = server.get("/inbox").await.expect(200);
    assert_eq!(inbox["total"], 1, "{inbox}");
    let session = server.get(&format!("/sessions/{id}")).await.expect(200);
    assert_eq!(session["agent_type"], "custom");

    // It waits while there is no server, and is answered by the next one.
    server.kill();
    server.restart().await;
    let path = format!("/sessions/{id}/interrupts/{interrupt}");
    server.post(&path, json!({ "answer": "once" })).await.expect(200);
    server.kill();
    server.restart().await;
    assert_eq!(turns_ended(&server, &id, 1).await, [TurnOutcome::Finished]);
    assert_eq!(said(&server, &id).await, "helloanswer c1: selected opt-allow_once");
    assert_eq!(server.post(&path, json!({ "answer": "reject" })).await.status, 409);
    assert_eq!(server.get("/inbox").await.expect(200)["total"], 0);

    // "Always" is a rule from then on.
    server.post(&format!("/sessions/{id}/messages"), json!({ "text": "ask c2 make test" })).await.expect(201);
    let interrupt = asked(&server, &id).await;
    server.post(&format!("/sessions/{id}/interrupts/{interrupt}"), json!({ "answer": "always" })).await.expect(200);
    turns_ended(&server, &id, 2).await;
    eventually("the runner goes by the rule", async || {
        let turns = runner::ended(&server.events(&id).await).len();
        server.post(&format!("/sessions/{id}/messages"), json!({ "text": "ask c3 make test" })).await.expect(201);
        eventually("it is decided, or asked", async || {
            let events = server.events(&id).await;
            let is_over = runner::ended(&events).len() > turns;
            let waits = server.get("/inbox").await.expect(200)["total"] != 0;
            (is_over || waits).then_some(())
        })
        .await;
        let events = server.events(&id).await;
        let decided =
            events.iter().any(|event| event["type"] == "permission.decided" && event["data"]["allowed"] == true);
        if !decided && server.get("/inbox").await.expect(200)["total"] != 0 {
            let interrupt = asked(&server, &id).await;
            server.post(&format!("/sessions/{id}/interrupts/{interrupt}"), json!({ "answer": "once" })).await;
        }
        decided.then_some(())
    })
    .await;

    let nonces = nonces_of(&server.session_dir(&id));
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    let stopped = server.phase(&id, "Stopped").await;
    assert_eq!(marked(&nonces), Vec::<u32>::new(), "nothing of the agent is left");
    let events = server.events(&id).await;
    let started = events.iter().rfind(|event| event["type"] == "agent.started").unwrap();
    assert_eq!(stopped["sdk_session_id"], started["data"]["agent_session_id"]);
    server.verified().await;
}

#[tokio::test]
async fn what_a_message_comes_with_reaches_the_agent_as_far_as_it_takes_it() {
    let database = TestDatabase::new().await;
    let server = server(&database).await;
    let id = server.session(body("say hello")).await;
    turns_ended(&server, &id, 1).await;
    for (name, content) in [("shot.png", "x"), ("notes.txt", "text")] {
        let put = server.request(Method::PUT, &format!("/sessions/{id}/workspace/{name}"));
        assert_eq!(put.body(content).send().await.unwrap().status(), 201);
    }
    std::os::unix::fs::symlink("/etc/shadow", server.session_dir(&id).join("workspace/secret")).unwrap();
    let path = format!("/sessions/{id}/messages");
    let send = |attachments: Value| server.post(&path, json!({ "text": "attached", "attachments": attachments }));
    let refused = send(json!([{ "type": "file", "path": "../runs" }])).await;
    assert!(refused.status == 400 && refused.json.to_string().contains("attachments[0].path"), "{}", refused.json);
    let given = json!([
        { "type": "file", "path": "shot.png" }, { "type": "file", "path": "notes.txt" }, { "type": "file", "path": "none" },
        { "type": "link", "uri": "https://example.com/x" }, { "type": "file", "path": "secret" },
    ]);
    send(given.clone()).await.expect(201);
    turns_ended(&server, &id, 2).await;
    let said = said(&server, &id).await;
    let told: Value = serde_json::from_str(&said[said.find('[').unwrap()..]).unwrap();
    let notices: String = server
        .events(&id)
        .await
        .iter()
        .filter_map(|event| match RunnerEvent::read(&event["data"]) {
            Some(RunnerEvent::AgentNotice { text }) => Some(text),
            _ => None,
        })
        .collect();
    let kinds: Vec<&str> = told.as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["image", "resource", "resource_link"], "{told} {notices}");
    assert_eq!((&told[0]["data"], &told[1]["resource"]["text"]), (&json!("eA=="), &json!("text")));
    assert!(
        notices.contains("'none' is left out: there is no such file") && notices.contains("'secret' is left out"),
        "{notices}"
    );
    let listed = server.get(&path).await.expect(200);
    assert!(listed["items"].as_array().unwrap().iter().any(|message| message["attachments"] == given), "{listed}");
}

async fn changed(server: &Server, id: &str, patch: Value) -> Answer {
    server.send(server.request(Method::PATCH, &format!("/sessions/{id}")).json(&patch)).await
}

#[tokio::test]
async fn settings_change_while_it_runs_and_mcp_servers_get_the_sessions_variables() {
    let database = TestDatabase::new().await;
    let mut server = server(&database).await;
    let mut create = body("say hello\nmcp");
    create["mcp_servers"] = json!([
        { "type": "stdio", "name": "files", "command": "npx", "args": ["-y", "files"], "env": { "TOKEN": "${TOKEN}" } },
        { "type": "sse", "name": "old", "url": "https://old.example/sse" },
    ]);
    create["environment_variables"] = json!({ "TOKEN": "canary-3b11" });
    let id = server.session(create.clone()).await;
    turns_ended(&server, &id, 1).await;
    let told = said(&server, &id).await;
    let expected = json!([{ "name": "files", "command": "npx", "args": ["-y", "files"], "env": [{ "name": "TOKEN", "value": "canary-3b11" }] }]);
    assert_eq!(serde_json::from_str::<Value>(told.strip_prefix("hello").unwrap()).unwrap(), expected);
    let notice = |event: &Value| match RunnerEvent::read(&event["data"]) {
        Some(RunnerEvent::AgentNotice { text }) => text.contains("'old' is left out"),
        _ => false,
    };
    server.event(&id, "the server that the agent cannot use is told", notice).await;
    let path = format!("/sessions/{id}");
    let shown = server.get(&path).await.expect(200);
    assert_eq!(shown["mcp_servers"], create["mcp_servers"]);
    assert!(!server.get(&format!("/operations?entity_id={id}")).await.expect(200).to_string().contains("canary-3b11"));

    // The server dies right after it has taken the change: the next one tells the runner, once.
    let refused = changed(&server, &id, json!({ "mcp_servers": [] })).await;
    assert_eq!(refused.status, 409);
    assert!(refused.json.to_string().contains("mcp_servers cannot change while"), "{}", refused.json);
    changed(&server, &id, json!({ "agent_mode": "code" })).await.expect(200);
    server.kill();
    server.restart().await;
    let mode = |event: &Value| match RunnerEvent::read(&event["data"]) {
        Some(RunnerEvent::AgentSettings { mode, .. }) => mode.as_deref() == Some("code"),
        _ => false,
    };
    server.event(&id, "the agent is in the other mode", mode).await;
    changed(&server, &id, json!({ "agent_mode": "fly" })).await.expect(200);
    let notice = |event: &Value| match RunnerEvent::read(&event["data"]) {
        Some(RunnerEvent::AgentNotice { text }) => text.contains("mode 'fly' is not in effect"),
        _ => false,
    };
    server.event(&id, "what the agent refuses is told", notice).await;
    let events = server.events(&id).await;
    assert_eq!(events.iter().filter(|event| mode(event)).count(), 1);
    server.verified().await;
}

#[tokio::test]
async fn a_stop_closes_what_waits_and_the_next_run_takes_the_conversation_up() {
    let database = TestDatabase::new().await;
    let server = server(&database).await;
    let id = server.session(body("say remember\nask c1 make")).await;
    asked(&server, &id).await;
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    assert_eq!(server.get("/inbox").await.expect(200)["total"], 0);
    let events = server.events(&id).await;
    assert!(events.iter().any(|event| event["type"] == "permission.closed" && event["data"]["outcome"] != "answered"));
    server.post(&format!("/sessions/{id}/start"), json!({ "prompt": "say again" })).await.expect(202);
    eventually("it says so", async || said(&server, &id).await.ends_with("again").then_some(())).await;
    server.verified().await;
}

#[tokio::test]
async fn what_a_run_is_started_with_comes_from_the_agents_definition_and_is_recorded_with_its_version() {
    let database = TestDatabase::new().await;
    let server = server(&database).await;
    let agent = server
        .post(
            "/agents",
            json!({ "project_id": "agents", "name": "worker", "agent_mode": "code",
            "agent_command": { "program": binary("ambient-fake-agent").to_str().unwrap() },
            "environment_variables": { "WHO": "worker", "WHAT": "theirs" } }),
        )
        .await
        .expect(201);
    let body = json!({ "project_id": "agents", "prompt": "env WHO\nenv WHAT", "agent_id": agent["id"],
        "environment_variables": { "WHAT": "ours" } });
    let id = server.session(body).await;
    turns_ended(&server, &id, 1).await;
    assert_eq!(said(&server, &id).await, "env: workerenv: ours");
    let events = server.events(&id).await;
    assert!(events.iter().any(|event| event["type"] == "agent.settings" && event["data"]["mode"] == "code"));
    let operations = server.get(&format!("/operations?entity_id={id}&command=create")).await.expect(200);
    let started = operations.to_string();
    assert!(started.contains("\"definition\"") && started.contains(agent["id"].as_str().unwrap()), "{started}");
    let refused = server
        .post("/sessions", json!({ "project_id": "agents", "prompt": "x", "agent_type": "custom", "start": true }))
        .await;
    assert_eq!(refused.status, 400);
    assert!(refused.json.to_string().contains("agent_command"), "{}", refused.json);
    let absent = server
        .post("/sessions", json!({ "project_id": "agents", "prompt": "x", "agent_type": "codex", "start": true }))
        .await;
    assert_eq!(absent.status, 409);
    assert!(absent.json.to_string().contains("agent-type install codex"), "{}", absent.json);
    server.verified().await;
}
