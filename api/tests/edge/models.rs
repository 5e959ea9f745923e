//! What is said about models, and variables of projects, as callers say and see it.

use ambient_domain::{project::Project, session::Session};
use ambient_workflows::ServerModels;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{ALICE, Answer as Response, Server};

fn wrong_rules() -> Vec<(Value, &'static str, u16)> {
    let endpoint = |endpoint: Value| json!({ "endpoints": { "openai": endpoint } });
    vec![
        (json!([]), "", 400),
        (json!({ "allowed": "m" }), ".allowed", 400),
        (json!({ "allowed": ["m", 1] }), ".allowed[1]", 400),
        (json!({ "allowed": ["m", ""] }), ".allowed[1]", 400),
        (json!({ "allowed": ["m".repeat(257)] }), ".allowed[0]", 400),
        (json!({ "allowed": ["https://u:canary@host"] }), ".allowed[0]", 400),
        (json!({ "allowed": vec!["m"; 101] }), ".allowed", 400),
        (json!({ "limits": 1 }), ".limits", 400),
        (json!({ "limits": { "tokens": -1 } }), ".limits.tokens", 400),
        (json!({ "limits": { "tokens": 1.5 } }), ".limits.tokens", 400),
        (json!({ "limits": { "tokens": 1_000_000_000_000_001_u64 } }), ".limits.tokens", 400),
        (json!({ "limits": { "cost_micros": "1" } }), ".limits.cost_micros", 400),
        (json!({ "limits": { "cost": 1 } }), ".limits.cost", 400),
        (endpoint(json!("https://x")), ".endpoints.openai", 400),
        (endpoint(json!({})), ".endpoints.openai", 400),
        (endpoint(json!({ "base_url": "https://u:canary@x" })), ".endpoints.openai.base_url", 400),
        (endpoint(json!({ "base_url": "https://x/v1?key=canary" })), ".endpoints.openai.base_url", 400),
        (endpoint(json!({ "base_url": "file:///etc" })), ".endpoints.openai.base_url", 400),
        (endpoint(json!({ "base_url": "https://2130706433" })), ".endpoints.openai.base_url", 400),
        (endpoint(json!({ "key": "canary" })), ".endpoints.openai.key", 400),
        (endpoint(json!({ "key_variable": "NONE" })), ".endpoints.openai.key_variable", 409),
        (json!({ "endpoints": { "mistral": { "base_url": "https://x" } } }), ".endpoints.mistral", 400),
    ]
}

#[tokio::test]
async fn a_fault_is_refused_with_its_field_wherever_it_is_said_and_repeated_nowhere() {
    let server = Server::start().await;
    let project = server.project("demo").await;
    let session = server.session("demo").await;
    let agent = json!({ "project_id": "demo", "name": "a" });
    let agent = server.post("/agents", agent).await.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
    for (n, (said, field, status)) in wrong_rules().into_iter().enumerate() {
        let settings = json!({ "settings": { "models": said } });
        let named = |mut body: Value| {
            body["project_id"] = json!("demo");
            body["name"] = json!(format!("x{n}"));
            body
        };
        let answers = [
            ("settings.models", server.patch(&format!("/projects/{project}"), settings.clone()).await),
            ("settings.models", {
                let mut body = settings;
                body["name"] = json!(format!("x{n}"));
                server.post("/projects", body).await
            }),
            ("models", server.post("/agents", named(json!({ "models": said }))).await),
            ("models", server.patch(&format!("/agents/{agent}"), json!({ "models": said })).await),
            ("models", server.post("/sessions", named(json!({ "models": said }))).await),
            ("models", server.patch(&format!("/sessions/{session}"), json!({ "models": said })).await),
        ];
        for (place, answer) in answers {
            assert!(!answer.text.contains("canary"), "{}", answer.text);
            assert_eq!(answer.fault(status), format!("{place}{field}"), "{said}: {}", answer.text);
        }
    }
    let budgets = [
        (json!({}), ""),
        (json!({ "period": "day" }), ""),
        (json!({ "tokens": -1 }), ".tokens"),
        (json!({ "cost_micros": u64::MAX }), ".cost_micros"),
        (json!({ "tokens": 1, "period": "year" }), ".period"),
        (json!(7), ""),
    ];
    for (said, field) in budgets {
        let answer = server.patch("/projects/demo", json!({ "settings": { "model_budget": said } })).await;
        assert_eq!(answer.fault(400), format!("settings.model_budget{field}"), "{said}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_projects_variables_are_sealed_and_a_session_gets_those_of_project_agent_and_itself() {
    let server = Server::start().await;
    let body =
        json!({ "name": "demo", "environment_variables": { "A": "canary-1", "B": "canary-2", "C": "canary-3" } });
    let created = server.post("/projects", body).await.expect(StatusCode::CREATED);
    assert_eq!(created["environment_variable_names"], json!(["A", "B", "C"]));
    let changed = json!({ "environment_variables": { "A": "canary-4", "C": null } });
    let changed = server.patch("/projects/demo", changed).await.expect(StatusCode::OK);
    assert_eq!(changed["environment_variable_names"], json!(["A", "B"]));
    let agent = json!({ "project_id": "demo", "name": "a", "environment_variables": { "B": "canary-5" } });
    let agent = server.post("/agents", agent).await.expect(StatusCode::CREATED);
    let body = json!({ "project_id": "demo", "name": "s", "agent_id": agent["id"], "start": true });
    let id = server.post("/sessions", body).await.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
    let session = server.database.load::<Session>(&id).await.unwrap().unwrap();
    let launch = session.run().unwrap().agent.clone().unwrap().environment_variables;
    let project = server.database.load::<Project>(created["id"].as_str().unwrap()).await.unwrap().unwrap();
    assert_eq!(launch["A"], project.spec.environment_variables["A"]);
    assert!(launch["B"].starts_with("agent/") && launch.len() == 2, "{launch:?}");
    for (variables, field) in [
        (json!({ "1A": "x" }), "environment_variables.1A"),
        (json!({ "HOME": "x" }), "environment_variables.HOME"),
        (json!({ "A": "x\0" }), "environment_variables.A"),
        (json!({ "A": "x".repeat(16 * 1024 + 1) }), "environment_variables.A"),
        (json!({ "A": ["canary"] }), "environment_variables.A"),
        (json!("canary"), "environment_variables"),
    ] {
        let patch = server.patch("/projects/demo", json!({ "environment_variables": variables })).await;
        assert_eq!(patch.fault(400), field);
        let create = server.post("/projects", json!({ "name": "other", "environment_variables": variables })).await;
        assert_eq!(create.fault(400), field);
        assert!(!patch.text.contains("canary") && !create.text.contains("canary"));
    }
    let operations = server.operations("", 1).await.to_string();
    assert!(!operations.contains("canary"), "{operations}");
}

#[tokio::test]
async fn which_models_there_are_is_told_with_who_said_so() {
    let server = Server::with(|config| {
        let base_urls = [(ambient_domain::model_rules::ModelProvider::Openai, "http://own:1/v1".to_owned())].into();
        config.default_model = Some("b".to_owned());
        config.models =
            ServerModels { base_urls, allowed: ["a", "b", "c"].map(str::to_owned).into(), ..ServerModels::default() };
    })
    .await;
    server.project("demo").await;
    let models = json!({ "allowed": ["b", "c", "x"], "limits": { "tokens": 9 }, "endpoints": { "gemini": { "key_variable": "KEY" } } });
    let body = json!({ "environment_variables": { "KEY": "canary" }, "settings": { "models": models } });
    let patched = server.patch("/projects/demo", body).await.expect(StatusCode::OK);
    assert_eq!(patched["settings"]["models"], models);
    let listed = server.get("/projects/demo/models").await.expect(StatusCode::OK);
    let names = |listed: &Value| {
        let items = listed["items"].as_array().unwrap().clone();
        items.iter().map(|m| (m["id"].as_str().unwrap().to_owned(), m["is_default"] == true)).collect::<Vec<_>>()
    };
    assert_eq!(names(&listed), [("b".to_owned(), true), ("c".to_owned(), false)]);
    let expected = json!([
        { "provider": "openai", "host": "own:1", "named_by": "server", "has_key": false },
        { "provider": "gemini", "host": "generativelanguage.googleapis.com", "named_by": "project", "has_key": true },
    ]);
    assert_eq!((&listed["endpoints"], &listed["is_restricted"]), (&expected, &json!(true)));
    assert_eq!(listed["session_limits"], json!({ "tokens": 9 }));

    let own = json!({ "allowed": ["c"], "limits": { "tokens": 20, "cost_micros": 5 }, "endpoints": { "openai": { "base_url": "https://mine.example/v1" } } });
    let body = json!({ "project_id": "demo", "name": "s", "llm_model": "c", "models": own });
    let session = server.post("/sessions", body).await.expect(StatusCode::CREATED);
    assert_eq!(session["models"], own);
    let path = format!("/sessions/{}", session["id"].as_str().unwrap());
    let listed = server.get(&format!("{path}/models")).await.expect(StatusCode::OK);
    assert_eq!(names(&listed), [("c".to_owned(), true)]);
    assert_eq!(listed["endpoints"][0]["host"], "mine.example");
    assert_eq!(
        (&listed["endpoints"][0]["named_by"], &listed["endpoints"][1]["named_by"]),
        (&json!("session"), &json!("project"))
    );
    assert_eq!(listed["session_limits"], json!({ "tokens": 9, "cost_micros": 5 }));
    let cleared = server.patch(&path, json!({ "models": null })).await.expect(StatusCode::OK);
    assert_eq!(cleared["models"], json!({}));
    assert_eq!(server.get("/projects/demo/usage").await.expect(StatusCode::OK)["budget"], Value::Null);
    let budget = json!({ "settings": { "model_budget": { "tokens": 7, "period": "month" } } });
    server.patch("/projects/demo", budget).await.expect(StatusCode::OK);
    let usage = server.get("/projects/demo/usage").await.expect(StatusCode::OK);
    assert_eq!((&usage["budget"]["left_tokens"], &usage["budget"]["left_cost_micros"]), (&json!(7), &Value::Null));
    assert!(usage["budget"]["since"].as_str().unwrap().ends_with("-01T00:00:00Z"), "{usage}");
}

#[tokio::test]
async fn an_agent_does_not_widen_its_own_session() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let token = server.tokens.runner_to_server(&id, 1, 1, 0);
    let patch = |token: String| {
        let request = server.request_as(&token, Method::PATCH, &format!("/sessions/{id}"));
        async {
            Response::of(request.json(&json!({ "models": { "limits": { "tokens": 9 } } })).send().await.unwrap()).await
        }
    };
    patch(token).await.error(403);
    let limits = patch(ALICE.to_owned()).await.expect(StatusCode::OK)["models"]["limits"].clone();
    assert_eq!(limits, json!({ "tokens": 9 }));
}
