//! Bad input gets a clear answer that names the field, and changes nothing.

use ambient_tests::bad_input;
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{ADMIN, Answer, Server};

async fn send(
    server: &Server,
    method: Method,
    path: &str,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> Answer {
    let request = server.request(method, path).header("content-type", content_type).body(body);
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn every_wrong_field_of_a_body_is_named() {
    let server = Server::start().await;
    server.project("demo").await;
    for (body, field) in bad_input::sessions("demo", "https://example.invalid/a") {
        assert_eq!(server.post("/sessions", body.clone()).await.fault(400), field, "{body}");
    }
    for name in ["A", "a", "-a", "a_b", "kube-x", "default", "a\0b", &"a".repeat(64)] {
        assert_eq!(server.post("/projects", json!({"name": name})).await.fault(400), "name", "{name:?}");
    }
    for (field, value) in [
        ("display_name", json!("a\u{200e}b")),
        ("display_name", json!("..")),
        ("description", json!("see https://bot:ab/cd@host/x")),
        ("labels.-x", json!({"-x": "y"})),
        ("settings.llm_model", json!({"llm_model": "\u{3164}"})),
        ("settings", json!(["gpt"])),
    ] {
        let (name, _) = field.split_once('.').unwrap_or((field, ""));
        let (created, changed) = (json!({"name": "other", name: value}), json!({name: value}));
        assert_eq!(server.post("/projects", created).await.fault(400), field, "{value}");
        assert_eq!(server.patch("/projects/demo", changed).await.fault(400), field, "{value}");
    }
    let grant = json!({"subject_type": "user", "subject_name": "ali\u{200b}ce", "role": "view"});
    assert_eq!(server.post("/projects/demo/permissions", grant).await.fault(400), "subject_name");
    let session = server.session("demo").await;
    for (patch, field) in [
        (json!({"name": "\u{202e}x"}), "name"),
        (json!({"labels": {"a": "\u{7}"}}), "labels.a"),
        (json!({"labels": {"": null}}), "labels."),
        (json!({"annotations": {"a b": null}}), "annotations.a b"),
        (json!({"repos": [{"url": "https://bot:ab/cd@host/x"}]}), "repos[0].url"),
    ] {
        assert_eq!(server.patch(&format!("/sessions/{session}"), patch).await.fault(400), field);
    }
    assert_eq!(server.patch(&format!("/sessions/{session}"), json!({"phase": "Running"})).await.fault(400), "phase");
    assert_eq!(server.post(&format!("/sessions/{session}/start"), json!({"bogus": 1})).await.fault(400), "bogus");
    assert_eq!(server.get("/sessions?size=0").await.json()["total"], 1);
}

#[tokio::test]
async fn what_is_too_much_only_with_what_is_there_is_a_conflict() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    let path = format!("/sessions/{id}");
    let full: serde_json::Map<_, _> = (0..64).map(|i| (format!("k{i}"), json!("v"))).collect();
    let repos: Vec<_> = (0..32).map(|i| json!({"url": "https://example.invalid/a", "name": format!("r{i}")})).collect();
    let patch = json!({"labels": full, "annotations": full, "environment_variables": full, "repos": repos});
    server.patch(&path, patch).await.expect(StatusCode::OK);
    for field in ["labels", "annotations", "environment_variables"] {
        assert_eq!(server.patch(&path, json!({field: {"one_more": "v"}})).await.fault(409), field);
        server.patch(&path, json!({field: {"one_more": "v", "k0": null}})).await.expect(StatusCode::OK);
    }
    let repo = json!({"url": "https://example.invalid/a"});
    assert_eq!(server.post(&format!("{path}/repos"), repo).await.fault(409), "repos");
    assert_eq!(server.get(&path).await.expect(StatusCode::OK)["version"], 5);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_as_what_it_is() {
    let server = Server::start().await;
    let post = |content_type: &'static str, body: Vec<u8>| send(&server, Method::POST, "/projects", content_type, body);
    for (what, body) in bad_input::unreadable_bodies() {
        assert_eq!(post("application/json", body).await.fault(400), "body", "{what}");
    }
    assert_eq!(post("text/plain", b"{}".to_vec()).await.fault(415), "Content-Type");
    // Larger than what sockets hold: who is still sending must get the answer nevertheless.
    for size in [(1 << 20) + 1, 12 << 20] {
        assert_eq!(post("application/json", vec![b' '; size]).await.fault(413), "body");
    }
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096])).take(3_000);
    let unannounced = reqwest::Body::wrap_stream(chunks);
    assert_eq!(send(&server, Method::POST, "/projects", "application/json", unannounced).await.fault(413), "body");
    assert_eq!(server.get("/projects").await.expect(StatusCode::OK)["total"], 0);
}

#[tokio::test]
async fn every_wrong_query_parameter_is_named() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    for (path, field) in bad_input::queries(&id) {
        assert_eq!(server.get(&path).await.fault(400), field, "{path}");
    }
    // Also where there are none.
    let forced = server.request(Method::DELETE, &format!("/sessions/{id}?force=true")).send().await.unwrap();
    assert_eq!(Answer::of(forced).await.fault(400), "force");
    let unknown = server.get("/workflow_executions?project_id=demo&workflow=nope").await.error(400);
    assert!(unknown["reason"].as_str().unwrap().contains("session-start, session-stop"), "{unknown}");
    for path in
        ["/sessions?project_id=nope", &format!("/sessions/{id}?version=99"), "/workflow_executions?session_id=nope"]
    {
        server.get(path).await.error(404);
    }
}

#[tokio::test]
async fn ids_and_paths_that_cannot_be_are_refused() {
    let server = Server::start().await;
    for id in bad_input::UNKNOWN_IDS.into_iter().chain(["..", &*"x".repeat(5_000)]) {
        let answer = server.get(&format!("/sessions/{id}")).await;
        assert!(matches!(answer.status.as_u16(), 404), "{id}: {}", answer.text);
        answer.error(404);
    }
    assert_eq!(server.get("/sessions/a%ffb").await.fault(400), "path");
}

#[tokio::test]
async fn every_failure_has_the_envelope() {
    let server = Server::start().await;
    let text = |answer: &Answer| {
        let mut error = answer.json();
        error["operation_id"] = json!("[operation_id]");
        error
    };
    let unknown = server.get("/nope").await;
    unknown.error(404);
    insta::assert_json_snapshot!("unknown_route", text(&unknown));
    let wrong_method = send(&server, Method::PUT, "/projects", "application/json", "{}").await;
    wrong_method.error(405);
    assert_eq!(wrong_method.header("allow"), "GET,HEAD,POST");
    insta::assert_json_snapshot!("wrong_method", text(&wrong_method));
    let outside = Answer::of(server.http.get(format!("http://{}/nope", server.address)).send().await.unwrap()).await;
    outside.error(404);
    let invalid = server.post("/projects", json!({"name": "demo", "bogus": 1})).await;
    insta::assert_json_snapshot!("unknown_field", text(&invalid));
    server.get("/live").await.error(426);
    server.get("/metrics").await.error(404);
    for (method, path) in [
        (Method::PUT, "status"),
        (Method::POST, "spawn-content-pod"),
        (Method::GET, "content-pod-status"),
        (Method::DELETE, "content-pod"),
    ] {
        let gone = send(&server, method, &format!("/sessions/x/{path}"), "application/json", "{}").await;
        assert!(gone.error(410)["reason"].as_str().unwrap().contains("/sessions/{id}/"), "{path}");
    }
}

#[tokio::test]
async fn who_is_not_known_gets_401() {
    let server = Server::start().await;
    let url = server.url("/projects");
    for authorization in [None, Some("Bearer "), Some("Bearer nope"), Some("Basic eDp5"), Some("nope")] {
        let mut request = server.http.get(&url);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        answer.error(401);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let in_query = server.http.get(format!("{url}?token={ADMIN}")).send().await.unwrap();
    Answer::of(in_query).await.error(401);
}
