//! A real agent, Codex, on a whole server, with a model that follows a script: what it edits, asks, and leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use ambient_scripted_model::{Ending, ScriptedModel};
use ambient_tests::TestDatabase;
use ambient_wire::runner_event::{Conversation, RunnerEvent, TurnOutcome, UsageSource};
use serde_json::{Value, json};
use support::{
    Server, eventually,
    processes::{marked, nonces_of},
    real_agents::{KEY, server},
    runner,
};

/// Answers whatever waits with "once", until that many turns have ended; the commands that were asked for.
async fn answer_until(server: &Server, id: &str, turns: usize) -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    eventually("the turn ends", async || {
        let open = server.get(&format!("/sessions/{id}/interrupts")).await.expect(200);
        for request in open["items"].as_array().unwrap().iter().filter(|request| request["status"] == "waiting") {
            commands.extend(request["command"].as_str().map(str::to_owned));
            let path = format!("/sessions/{id}/interrupts/{}", request["id"].as_str().unwrap());
            server.post(&path, json!({ "answer": "once" })).await;
        }
        (runner::ended(&server.events(id).await).len() >= turns).then_some(())
    })
    .await;
    commands
}

fn told(events: &[Value]) -> Vec<RunnerEvent> {
    events.iter().filter_map(|event| RunnerEvent::read(&event["data"])).collect()
}

#[tokio::test]
async fn codex_edits_asks_is_answered_loads_its_conversation_and_is_stopped_with_its_model_call() {
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
    let server = server(&database, &model, "codex", "scripted").await;
    let body = json!({ "project_id": "agents", "agent_type": "codex", "prompt": "SCENARIO=edit" });
    let id = server.session(body).await;
    let commands = answer_until(&server, &id, 1).await;
    let events = server.events(&id).await;
    let all = told(&events);
    assert_eq!(runner::ended(&events)[0].outcome, TurnOutcome::Finished, "{all:#?}");
    let workspace = server.session_dir(&id).join("workspace");
    assert_eq!(std::fs::read_to_string(workspace.join("notes.txt")).unwrap(), "one\nTWO\n");
    assert_eq!(std::fs::read_to_string(workspace.join("shell.txt")).unwrap(), "from-shell\n");
    assert!(commands.iter().any(|command| command.contains("from-shell")), "{commands:?}");
    let proxied =
        all.iter().filter(|event| matches!(event, RunnerEvent::Usage { source: UsageSource::Proxy, .. })).count();
    assert!(proxied >= 4, "each call is metered: {proxied}");
    assert!(
        model.seen().iter().all(|call| call.headers["authorization"] == format!("Bearer {KEY}")),
        "the key is the server's"
    );
    assert!(!serde_json::to_string(&events).unwrap().contains(KEY));

    // The next run loads the conversation; a stop closes the call of its model.
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    server.post(&format!("/sessions/{id}/start"), json!({ "prompt": "SCENARIO=slow" })).await.expect(202);
    model.until(|seen| seen.iter().any(|call| call.scenario == "slow" && call.ending == Ending::Open)).await;
    server
        .event(&id, "the slow text is there", |event| {
            matches!(RunnerEvent::read(&event["data"]), Some(RunnerEvent::AgentText { .. }))
        })
        .await;
    let started: Vec<Conversation> = told(&server.events(&id).await)
        .into_iter()
        .filter_map(|event| match event {
            RunnerEvent::AgentStarted { conversation, .. } => Some(conversation),
            _ => None,
        })
        .collect();
    assert_eq!(started, [Conversation::New, Conversation::Loaded]);
    let nonces = nonces_of(&server.session_dir(&id));
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    assert_eq!(marked(&nonces), Vec::<u32>::new());
    model.until(|seen| seen.iter().all(|call| call.ending != Ending::Open)).await;
    let slow: Vec<Ending> =
        model.seen().iter().filter(|call| call.scenario == "slow").map(|call| call.ending).collect();
    assert!(slow.contains(&Ending::ClosedByClient), "{slow:?}");
    server.verified().await;
}
