//! Sessions of the agent that does what its messages tell it to.

use ambient_tests::TestDatabase;
use serde_json::{Value, json};

use super::{Server, binary, eventually};

/// A server whose sessions may run the agent, with a project `agents`.
pub(crate) async fn server(database: &TestDatabase) -> Server {
    let mut server = Server::new(database, "one");
    let programs = binary("ambient-fake-agent").parent().unwrap().to_string_lossy().into_owned();
    server.settings.push(("AMBIENT_READABLE_PATHS", programs));
    server.launch();
    server.ready().await;
    server.project("agents").await;
    server
}

/// A session to create.
pub(crate) fn body(prompt: &str) -> Value {
    json!({ "project_id": "agents", "prompt": prompt,
        "agent_command": { "program": binary("ambient-fake-agent").to_str().unwrap(), "args": ["for-tests"] } })
}

/// Waits until the session has a request that waits; its id.
pub(crate) async fn asked(server: &Server, id: &str) -> String {
    eventually("the agent asks", async || {
        let open = server.get(&format!("/sessions/{id}/interrupts")).await.expect(200);
        let first = open["items"].as_array()?.iter().find(|one| one["status"] == "waiting")?;
        Some(first["id"].as_str()?.to_owned())
    })
    .await
}
