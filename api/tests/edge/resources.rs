//! Projects, sessions, operations and executions, as they are created, listed, read, changed and deleted.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::Server;

/// Values that differ from run to run, by name.
fn stable(mut value: Value) -> Value {
    for key in ["id", "href", "created_at", "updated_at", "project_id", "operation_id", "start_time"] {
        if value.get(key).is_some_and(|value| !value.is_null()) {
            value[key] = json!(format!("[{key}]"));
        }
    }
    value
}

#[tokio::test]
async fn a_project_lives_from_its_creation_to_its_deletion() {
    let server = Server::start().await;
    let body = json!({"name": "demo", "description": "For demos", "labels": {"team": "a"}, "settings": {"inactivity_timeout": 60}});
    let created = server.post("/projects", body).await;
    let project = created.expect(StatusCode::CREATED);
    assert_eq!(created.header("location"), project["href"].as_str().unwrap());
    assert_eq!(created.header("etag"), "\"1\"");
    insta::assert_json_snapshot!("project", stable(project.clone()));

    let by_name = server.get("/projects/demo").await.expect(StatusCode::OK);
    let by_id = server.get(&format!("/projects/{}", project["id"].as_str().unwrap())).await.expect(StatusCode::OK);
    assert_eq!((&by_name, &by_id), (&project, &project));

    let patched = server.patch("/projects/demo", json!({"description": "Changed", "labels": {"team": null}})).await;
    assert_eq!(patched.header("etag"), "\"2\"");
    let patched = patched.expect(StatusCode::OK);
    assert_eq!((&patched["description"], &patched["labels"]), (&json!("Changed"), &json!({})));
    let then = server.get("/projects/demo?version=1").await.expect(StatusCode::OK);
    assert_eq!(then["description"], "For demos");

    let deleted = server.delete("/projects/demo").await;
    assert_eq!(deleted.expect(StatusCode::ACCEPTED)["status"], "Terminating");
    let id = project["id"].as_str().unwrap();
    assert!(
        deleted
            .header("location")
            .starts_with(&format!("/api/ambient/v1/workflow_executions/project-delete%2F{id}%2F"))
    );
    let execution = server.get(deleted.header("location")).await.expect(StatusCode::OK);
    assert_eq!(execution["workflow"], "project-delete");
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let server = Server::start().await;
    server.project("demo").await;
    assert_eq!(server.post("/projects", json!({"name": "demo"})).await.fault(409), "name");
}

#[tokio::test]
async fn permissions_are_granted_and_revoked_but_the_last_owner_stays() {
    let server = Server::start().await;
    server.project("demo").await;
    let list = server.get("/projects/demo/permissions").await.expect(StatusCode::OK);
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|p| p["subject_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "alice", "vera"]);
    let revoke = |name: &str| format!("/projects/demo/permissions?subject_type=user&subject_name={name}");
    server.delete(&revoke("vera")).await.expect(StatusCode::NO_CONTENT);
    server.delete(&revoke("vera")).await.error(404);
    server.delete(&revoke("admin")).await.error(409);
    let bad = json!({"subject_type": "robot", "subject_name": "x", "role": "view"});
    assert_eq!(server.post("/projects/demo/permissions", bad).await.fault(400), "subject_type");
}

#[tokio::test]
async fn a_session_gets_its_defaults_from_project_and_server() {
    let server = Server::with(|config| config.default_model = Some("server-model".to_owned())).await;
    server
        .post("/projects", json!({"name": "demo", "settings": {"inactivity_timeout": 60}}))
        .await
        .expect(StatusCode::CREATED);
    let repos = json!([{"url": "https://h/a/b.git"}, {"url": "https://h/c/b", "branch": "main"}]);
    let body = json!({"project_id": "demo", "prompt": "Fix the build\nand more", "interactive": false, "repos": repos});
    let created = server.post("/sessions", body).await;
    insta::assert_json_snapshot!("session", stable(created.expect(StatusCode::CREATED)));
    let minimal = server.post("/sessions", json!({"project_id": "demo"})).await.expect(StatusCode::CREATED);
    assert_eq!(
        (&minimal["name"], &minimal["timeout"], &minimal["phase"]),
        (&json!("session"), &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_sessions_limits_are_shown_as_numbers_of_kubernetes_changed_while_it_rests_and_kept_below_the_servers() {
    let maximum = ambient_domain::session::ResourceOverrides {
        memory: Some("8Gi".parse().unwrap()),
        processes: Some(500),
        ..Default::default()
    };
    let server = Server::with(|config| config.session_maxima = maximum).await;
    server.project("demo").await;
    let limits = json!({"cpu": "0.5", "memory": "1024Mi", "processes": 256, "disk": "10G"});
    let body = json!({"project_id": "demo", "resource_overrides": limits});
    let created = server.post("/sessions", body).await.expect(StatusCode::CREATED);
    let path = format!("/sessions/{}", created["id"].as_str().unwrap());
    let shown = json!({"cpu": "500m", "memory": "1Gi", "processes": 256, "disk": "10G"});
    assert_eq!(created["resource_overrides"], shown);
    let none = server.post("/sessions", json!({"project_id": "demo"})).await.expect(StatusCode::CREATED);
    assert_eq!(none["resource_overrides"], json!({}));

    let patch = |limits: Value| json!({"resource_overrides": limits});
    let patched = server.patch(&path, patch(json!({"cpu": null, "memory": "8Gi", "open_files": 100}))).await;
    let shown = json!({"memory": "8Gi", "processes": 256, "disk": "10G", "open_files": 100});
    assert_eq!(patched.expect(StatusCode::OK)["resource_overrides"], shown);
    let bad = server.patch(&path, patch(json!({"memory": "8.5Gi"}))).await;
    assert_eq!(bad.fault(400), "resource_overrides.memory");
    assert!(bad.error(400)["reason"].as_str().unwrap().contains("at most 8Gi"));
    let bad = server.post("/sessions", json!({"project_id": "demo", "resource_overrides": {"processes": 501}})).await;
    assert_eq!(bad.fault(400), "resource_overrides.processes");
    for (field, value) in [("cpu", json!("x")), ("disk", json!(7)), ("gpu", json!("1")), ("open_files", json!(1))] {
        assert_eq!(
            server.patch(&path, patch(json!({field: value}))).await.fault(400),
            format!("resource_overrides.{field}")
        );
    }
    assert_eq!(server.get(&path).await.expect(StatusCode::OK)["resource_overrides"], shown);

    server.post(&format!("{path}/start"), json!({})).await.expect(StatusCode::ACCEPTED);
    let active = server.patch(&path, patch(json!({"memory": "1Gi"}))).await;
    assert_eq!(active.fault(409), "resource_overrides");
    server.patch(&path, patch(json!({"memory": "8192Mi"}))).await.expect(StatusCode::OK);
    let other = format!("/sessions/{}", none["id"].as_str().unwrap());
    server.patch(&other, patch(json!({"cpu": "2"}))).await.expect(StatusCode::OK);
    let cleared = server.patch(&other, patch(Value::Null)).await.expect(StatusCode::OK);
    assert_eq!(cleared["resource_overrides"], json!({}));
}

#[tokio::test]
async fn a_session_starts_stops_and_is_deleted_with_its_executions_named() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    let path = format!("/sessions/{id}");
    server.post(&format!("{path}/stop"), json!({})).await.error(409);

    let started = server.request(reqwest::Method::POST, &format!("{path}/start")).send().await.unwrap();
    assert_eq!(started.status(), StatusCode::ACCEPTED);
    assert_eq!(
        started.headers()["location"],
        format!("/api/ambient/v1/workflow_executions/session-start%2F{id}%2F1.1")
    );
    let operation_id = started.headers()["x-operation-id"].to_str().unwrap().to_owned();
    let operation = server.get(&format!("/operations/{operation_id}")).await.expect(StatusCode::OK);
    assert_eq!(
        (&operation["command"], &operation["principal"], &operation["entity_id"]),
        (&json!("start"), &json!("admin"), &json!(id))
    );
    let shown = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!((&shown["phase"], &shown["last_seq"]), (&json!("Pending"), &json!(2)));

    let stopping = server.post(&format!("{path}/stop"), json!({})).await;
    assert_eq!(stopping.header("location"), format!("/api/ambient/v1/workflow_executions/session-stop%2F{id}%2F1"));
    assert_eq!(stopping.expect(StatusCode::ACCEPTED)["phase"], "Stopping");
    let too_soon = server.post(&format!("{path}/start"), json!({})).await;
    too_soon.error(409);
    assert_eq!(too_soon.header("retry-after"), "1");
    server
        .fact(&id, ambient_domain::session::Fact::TornDown { evidence: vec!["looked".to_owned()], not_run: Vec::new() })
        .await;
    assert_eq!(server.post(&format!("{path}/stop"), json!({})).await.expect(StatusCode::OK)["phase"], "Stopped");

    server.delete(&path).await.expect(StatusCode::NO_CONTENT);
    server.get(&path).await.error(404);
    let history = server.operations(&format!("entity_id={id}&order=asc"), 5).await;
    let commands: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|o| o["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["create", "start", "stop", "fact_torn_down", "delete"]);
}

#[tokio::test]
async fn repositories_are_wanted_and_unwanted_at_any_time() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let added = server.post(&format!("/sessions/{id}/repos"), json!({"url": "https://h/o/tool"})).await;
    assert_eq!(added.header("location"), format!("/api/ambient/v1/workflow_executions/session-supervise%2F{id}%2F1"));
    assert_eq!(added.expect(StatusCode::ACCEPTED)["generation"], 2);
    let status = server.get(&format!("/sessions/{id}/repos/status")).await.expect(StatusCode::OK);
    assert_eq!(status["items"][1]["name"], "tool");
    assert_eq!(status["items"][1]["status"], "Wanted");
    server.delete(&format!("/sessions/{id}/repos/tool")).await.expect(StatusCode::ACCEPTED);
    server.delete(&format!("/sessions/{id}/repos/tool")).await.error(404);
    let resources = server.get(&format!("/sessions/{id}/resources")).await.expect(StatusCode::OK);
    assert_eq!(resources["items"][0]["status"], "Present");
}

#[tokio::test]
async fn lists_have_pages_orders_and_exact_filters() {
    let server = Server::start().await;
    server.project("demo").await;
    server.project("other").await;
    for i in 0..5 {
        let body = json!({"project_id": "demo", "name": format!("s{i}"), "labels": {"even": (i % 2 == 0).to_string()}});
        server.post("/sessions", body).await.expect(StatusCode::CREATED);
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    };
    let page = server.get("/sessions?page=2&size=2&order_by=name").await.expect(StatusCode::OK);
    assert_eq!(names(&page), ["s2", "s3"]);
    assert_eq!(
        (&page["kind"], &page["page"], &page["size"], &page["total"]),
        (&json!("SessionList"), &json!(2), &json!(2), &json!(5))
    );
    let descending = server.get("/sessions?orderBy=name+desc&size=1").await.expect(StatusCode::OK);
    assert_eq!(names(&descending), ["s4"]);
    let total = server.get("/sessions?size=0").await.expect(StatusCode::OK);
    assert_eq!((&total["size"], &total["total"]), (&json!(0), &json!(5)));
    let even =
        server.get("/sessions?project_id=demo&label=even%3Dtrue&phase=New&order_by=name").await.expect(StatusCode::OK);
    assert_eq!(names(&even), ["s0", "s2", "s4"]);
    let none = server.get("/sessions?label=even%3Dtrue&label=even%3Dfalse").await.expect(StatusCode::OK);
    assert_eq!(none["total"], 0, "all labels count");
    assert_eq!(server.get("/sessions?project_id=other").await.expect(StatusCode::OK)["total"], 0);
    assert_eq!(server.get("/projects?name=other").await.expect(StatusCode::OK)["items"][0]["name"], "other");
}

#[tokio::test]
async fn operations_are_read_on_from_a_cursor() {
    let server = Server::start().await;
    let project = server.project("demo").await;
    server.operations("project_id=demo", 3).await;
    let first = server.operations("project_id=demo&size=2", 2).await;
    let after = first["next"].as_str().unwrap();
    let second = server.get(&format!("/operations?project_id=demo&size=2&after={after}")).await.expect(StatusCode::OK);
    let versions = |list: &Value| -> Vec<i64> {
        list["items"].as_array().unwrap().iter().map(|o| o["version"].as_i64().unwrap()).collect()
    };
    assert_eq!((versions(&first), versions(&second)), (vec![3, 2], vec![1]));
    for (list, size) in [(&first, 2), (&second, 1)] {
        assert_eq!((&list["page"], &list["size"], &list["total"]), (&json!(1), &json!(size), &json!(3)));
    }
    assert_eq!(second.get("next"), None, "there is nothing more");
    let none = server.get("/operations?project_id=demo&size=0&command=create").await.expect(StatusCode::OK);
    assert_eq!((&none["items"], &none["total"]), (&json!([]), &json!(1)));
    assert_eq!(second["items"][0]["entity_id"], json!(project));
    assert_eq!(server.get("/operations?after=nonsense").await.fault(400), "after");
}

#[tokio::test]
async fn executions_of_a_project_are_its_own_and_its_sessions() {
    let server = Server::start().await;
    let project = server.project("demo").await;
    server.project("other").await;
    let session = server.running_session("demo").await;
    let list = server.get("/workflow_executions?project_id=demo").await.expect(StatusCode::OK);
    let ids: Vec<_> = list["items"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(list["total"], json!(ids.len()));
    assert!(ids.iter().all(|id| id.contains(&project) || id.contains(&session)), "{ids:?}");
    assert!(ids.contains(&format!("session-supervise/{session}/1")));
    let one = server.get(&format!("/workflow_executions?session_id={session}&size=1")).await.expect(StatusCode::OK);
    assert_eq!(one["size"], 1);
    let path = format!("/workflow_executions/session-supervise%2F{session}%2F1");
    server.post(&format!("{path}/signal"), json!({"signal": "wake"})).await.expect(StatusCode::ACCEPTED);
    assert_eq!(server.post(&format!("{path}/signal"), json!({"signal": ""})).await.fault(400), "signal");
    server.get("/workflow_executions/nope").await.error(404);
}

#[tokio::test]
async fn rows_are_verified_against_their_operations() {
    let server = Server::start().await;
    server.project("demo").await;
    server.session("demo").await;
    let report = server.post("/replay/verify", json!({})).await.expect(StatusCode::OK);
    assert_eq!((&report["entities"], &report["divergences"]), (&json!(2), &json!([])));
    sqlx::query("update ambient.sessions set agent_type = 'changed'").execute(server.database.pool()).await.unwrap();
    let report = server.post("/replay/verify", json!({"entity_kind": "session"})).await.expect(StatusCode::OK);
    assert_eq!((&report["entities"], &report["divergences"][0]["version"]), (&json!(1), &json!(1)));
}
