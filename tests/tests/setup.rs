//! Setup scripts: whose runs, what people are told when one fails, and a crash of the server in the middle of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use ambient_tests::TestDatabase;
use serde_json::json;
use support::{Origin, Server, script};

#[tokio::test]
async fn the_sessions_script_goes_before_its_agents_and_a_killed_server_does_not_run_it_again() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    server.restart().await;
    server.project("setup").await;
    let agent = json!({ "project_id": "setup", "name": "careful", "setup_script": "echo of the agent >> done" });
    let agent = server.post("/agents", agent).await.expect(201);
    assert_eq!(agent["setup_script"], "echo of the agent >> done");
    let prompt = script("cat done; echo 'all shown'");

    let body = json!({ "project_id": "setup", "prompt": prompt, "agent_id": agent["id"] });
    let id = server.session(body).await;
    server.printed(&id, "of the agent\nall shown").await;

    let own = "echo of the session >> done; touch begun; until [ -e go ]; do sleep 0.05; done";
    let body = json!({ "project_id": "setup", "prompt": prompt, "agent_id": agent["id"], "setup_script": own });
    let id = server.session(body).await;
    let workspace = server.session_dir(&id).join("workspace");
    support::eventually("the script is up", async || workspace.join("begun").exists().then_some(())).await;
    server.kill();
    server.restart().await;
    std::fs::write(workspace.join("go"), "").unwrap();
    server.printed(&id, "all shown").await;
    assert_eq!(std::fs::read_to_string(workspace.join("done")).unwrap(), "of the session\n");

    let path = format!("/sessions/{id}");
    let patch = json!({ "setup_script": null });
    let refused = server.send(server.request(reqwest::Method::PATCH, &path).json(&patch)).await;
    assert_eq!(refused.status, 409, "{}", refused.json);
    assert!(refused.json.to_string().contains("setup_script cannot change while"), "{}", refused.json);
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    server.post(&format!("{path}/start"), json!({})).await.expect(202);
    support::eventually("the next run's turn ends", async || {
        (support::runner::ended(&server.events(&id).await).len() == 2).then_some(())
    })
    .await;
    let again = std::fs::read_to_string(workspace.join("done")).unwrap();
    assert_eq!(again, "of the session\n", "the workspace is as it was set up");
    server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    let changed = server.send(server.request(reqwest::Method::PATCH, &path).json(&patch)).await.expect(200);
    assert_eq!(changed["setup_script"], json!(null));
    for given in ["#".repeat(65_537), "a\0b".to_owned()] {
        for path in ["/sessions", "/agents"] {
            let body = json!({ "project_id": "setup", "name": "x", "setup_script": given });
            let answer = server.post(path, body).await;
            assert_eq!(answer.status, 400, "{}", answer.json);
            assert!(answer.json.to_string().contains("setup_script"), "{}", answer.json);
        }
    }
    server.verified().await;
}

#[tokio::test]
async fn a_batch_session_whose_script_fails_is_failed_with_the_reason() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    server.restart().await;
    server.project("setup").await;
    let body = json!({
        "project_id": "setup", "prompt": script("touch asked"), "interactive": false, "setup_script": "exit 7",
    });
    let id = server.session(body).await;
    let failed = server.phase(&id, "Failed").await;
    let outcome = failed["outcome"].to_string();
    assert!(outcome.contains("PrerequisiteFailed"), "{failed:#}");
    assert!(outcome.contains("setup script failed: exit code 7"), "{failed:#}");
}

#[tokio::test]
async fn files_that_were_handed_in_are_there_before_anything_runs_whatever_was_killed_meanwhile() {
    let database = TestDatabase::new().await;
    let mut server = Server::new(&database, "one");
    server.restart().await;
    server.project("setup").await;
    let origin = Origin::new();
    origin.open_to_everyone();
    let body = json!({
        "project_id": "setup", "prompt": script("cat ../seen"), "interactive": false,
        "setup_script": "cat ../in/data > ../seen; ../in/tool >> ../seen",
        "repos": [{ "name": "app", "url": origin.url() }],
    });
    let created = server.post("/sessions", body).await.expect(201);
    let id = created["id"].as_str().unwrap();
    let put = async |server: &Server, query: &str, content: &str| {
        let path = format!("/sessions/{id}/upload_file?{query}");
        server.send(server.request(reqwest::Method::PUT, &path).body(content.to_owned())).await
    };
    put(&server, "path=in/data", "of the data\n").await.expect(201);
    server.kill();
    server.restart().await;
    put(&server, "path=in/tool&executable=true", "#!/bin/sh\necho of the tool\n").await.expect(201);
    put(&server, "path=app/log.txt/below", "x").await.expect(201);

    // What cannot be put there is told, and taken back.
    server.post(&format!("/sessions/{id}/start"), json!({})).await.expect(202);
    let failed = server.phase(id, "Failed").await;
    assert!(failed["outcome"].to_string().contains("UploadFailed"), "{failed:#}");
    assert!(failed["outcome"].to_string().contains("app/log.txt/below"), "{failed:#}");
    server.delete(&format!("/sessions/{id}/upload_file?path=app/log.txt/below")).await.expect(204);
    server.kill();
    server.restart().await;
    server.post(&format!("/sessions/{id}/start"), json!({})).await.expect(202);
    server.phase(id, "Completed").await;
    server.printed(id, "of the data\nof the tool").await;
    let left = server.get(&format!("/sessions/{id}/uploads")).await.expect(200);
    assert_eq!(left["items"], json!([]));
    server.verified().await;
}
