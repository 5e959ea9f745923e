//! What sessions go by where neither they nor their agents say: their project's settings.

use ambient_domain::session::{AgentLaunch, Session};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Answer as Response, Server};

async fn settings(server: &Server, settings: Value) -> Response {
    let request = server.request(Method::PATCH, "/projects/demo").json(&json!({ "settings": settings }));
    Response::of(request.send().await.unwrap()).await
}

/// A session that is created and started with this; what its run goes by.
async fn launch(server: &Server, mut body: Value) -> AgentLaunch {
    body["project_id"] = json!("demo");
    body["name"] = json!("s");
    body["start"] = json!(true);
    let created = server.post("/sessions", body).await.expect(StatusCode::CREATED);
    let session = server.database.load::<Session>(created["id"].as_str().unwrap()).await.unwrap().unwrap();
    *session.run().unwrap().agent.clone().unwrap()
}

#[tokio::test]
async fn a_run_goes_by_the_session_then_its_agent_then_its_project() {
    let server = Server::start().await;
    server.project("demo").await;
    let of_project = json!({
        "agent_command": { "program": "/opt/project/agent" },
        "mcp_servers": [{ "type": "stdio", "name": "of-project", "command": "m" }],
        "network": { "mode": "none" },
        "setup_script": "echo project",
    });
    let shown = settings(&server, of_project.clone()).await.expect(StatusCode::OK);
    for (field, value) in of_project.as_object().unwrap() {
        assert_eq!(&shown["settings"][field], value);
    }
    let project = launch(&server, json!({})).await;
    assert_eq!(
        (project.agent_type.as_str(), project.command.unwrap().program.as_str()),
        ("custom", "/opt/project/agent")
    );
    assert_eq!(project.mcp_servers.len(), 1);
    assert!(project.network.is_some());
    assert_eq!(project.setup_script.as_deref(), Some("echo project"));

    let agent = json!({
        "project_id": "demo", "name": "a", "agent_type": "script", "setup_script": "echo agent",
        "network": { "mode": "open" },
    });
    let agent = server.post("/agents", agent).await.expect(StatusCode::CREATED);
    let of_agent = launch(&server, json!({ "agent_id": agent["id"] })).await;
    assert_eq!((of_agent.agent_type.as_str(), &of_agent.command), ("script", &None), "a command is its agent type's");
    assert_eq!(of_agent.setup_script.as_deref(), Some("echo agent"));
    assert_ne!(of_agent.network, project.network);
    assert_eq!(of_agent.mcp_servers, project.mcp_servers, "the agent has none of its own");

    let own = json!({ "agent_id": agent["id"], "setup_script": "" });
    assert_eq!(launch(&server, own).await.setup_script.as_deref(), Some(""));
    let custom = json!({ "agent_command": { "program": "/opt/own" } });
    assert_eq!(launch(&server, custom).await.command.unwrap().program, "/opt/own");
    settings(&server, json!({ "agent_type": "script" })).await.expect(StatusCode::OK);
    assert_eq!(launch(&server, json!({})).await, AgentLaunch { agent_type: "script".into(), ..AgentLaunch::default() });
}

#[tokio::test]
async fn what_is_wrong_in_the_settings_is_named_with_its_place() {
    let server = Server::start().await;
    server.project("demo").await;
    for (given, status, field) in [
        (json!({ "agent_type": "nonesuch" }), 404, "settings.agent_type"),
        (json!({ "agent_command": { "program": "" } }), 400, "settings.agent_command.program"),
        (
            json!({ "mcp_servers": [{ "type": "stdio", "name": "", "command": "m" }] }),
            400,
            "settings.mcp_servers[0].name",
        ),
        (
            json!({ "network": { "mode": "allow_list", "allow": ["ok.com", "Bad.com"] } }),
            400,
            "settings.network.allow[1]",
        ),
        (json!({ "network": { "mode": "allow_list" } }), 400, "settings.network.allow"),
        (json!({ "setup_script": "#".repeat(65_537) }), 400, "settings.setup_script"),
        (json!({ "colour": 1 }), 400, "settings.colour"),
    ] {
        assert_eq!(settings(&server, given.clone()).await.fault(status), field, "{given}");
    }
}
