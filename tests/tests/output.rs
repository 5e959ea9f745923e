//! Where a session's commits go, and what it tells of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use support::{Origin, Server, eventually, script};

async fn session(server: &Server, id: &str) -> Value {
    server.get(&format!("/sessions/{id}")).await.expect(200)
}

/// The session, once it tells this of the repository `log`.
async fn told(server: &Server, id: &str, status: &str) -> Value {
    eventually(&format!("the repository is {status}"), async || {
        let session = session(server, id).await;
        (session["repo_statuses"][0]["status"] == *status).then_some(session)
    })
    .await
}

#[tokio::test]
async fn a_session_works_in_its_main_repository_and_tells_what_became_of_its_fork() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    let origin = Origin::new();
    let fork = origin.fork();
    server.project("out").await;
    let work = script("pwd\necho more >> log.txt\ngit commit -q -a -m more");
    let output = json!({"push_to": "fork", "target_repo": fork.url()});
    let id = server
        .session(json!({
            "project_id": "out", "interactive": true, "prompt": format!("I add a line.\n{work}"), "main_repo_index": 1,
            "repos": [
                {"name": "notes", "url": origin.url(), "output": {"push_to": "none"}},
                {"name": "log", "url": origin.url(), "output": output, "auto_push": true},
            ],
        }))
        .await;
    server.printed(&id, "/workspace/log\n").await;
    let pushed = told(&server, &id, "pushed").await;
    let (branch, status) = (format!("ambient/{id}"), &pushed["repo_statuses"][0]);
    assert_eq!(pushed["repo_statuses"].as_array().unwrap().len(), 1, "nothing has become of the other");
    assert_eq!(
        (&status["repo"], &status["url"], &status["branch"]),
        (&json!("log"), &json!(fork.url()), &json!(branch))
    );
    assert_eq!((status["commit"].as_str().unwrap(), fork.commits(&branch)), (&*fork.head(&branch), 2));
    assert!(!origin.has(&branch));
    server.event(&id, "the turn's end", |event| event["type"] == "turn.ended").await;
    let ended = session(&server, &id).await;
    assert_eq!((ended["results"].as_str().map(str::trim), &ended["error"]), (Some("I add a line."), &Value::Null));

    let path = format!("/sessions/{id}/git");
    let refused = server.post(&format!("{path}/push"), json!({"repo": "notes", "branch": "b"})).await.expect(409);
    assert!(refused["reason"].as_str().unwrap().contains("output.push_to"), "{refused}");
    let kept = server.post(&format!("{path}/abandon"), json!({"repo": "log"})).await.expect(200)["kept"].clone();
    let abandoned = told(&server, &id, "abandoned").await;
    assert_eq!(abandoned["repo_statuses"][0]["commit"], kept);

    // The branch has what the workspace no longer has, so the next push is refused.
    let again = script("echo other >> log.txt\ngit commit -q -a -m other");
    server.post(&format!("/sessions/{id}/messages"), json!({"text": again})).await.expect(201);
    let failed = told(&server, &id, "failed").await;
    assert!(failed["repo_statuses"][0]["message"].as_str().unwrap().contains("refused"), "{failed:#}");
    eventually("the run has an error", async || {
        let error = session(&server, &id).await["error"].as_str().unwrap_or_default().to_owned();
        error.starts_with("PushFailed: ").then_some(())
    })
    .await;
    let turns = server.get(&format!("/sessions/{id}/turns")).await.expect(200);
    assert!(turns["items"][0]["repos"].to_string().contains("could not be pushed"), "{turns:#}");
    server.post(&format!("{path}/push"), json!({"repo": "log", "branch": "rescue"})).await.expect(200);
    let rescued = told(&server, &id, "pushed").await;
    assert_eq!((&rescued["repo_statuses"][0]["branch"], fork.commits("rescue")), (&json!("rescue"), 2));
    server.verified().await;
}
