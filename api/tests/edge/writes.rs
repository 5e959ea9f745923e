//! Conditional and repeated requests, and two that arrive at once.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN, ALICE, Answer, Server};

async fn post_with(server: &Server, path: &str, key: &str, body: Value) -> Answer {
    let request = server.request(Method::POST, path).header("Idempotency-Key", key).json(&body);
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_repeated_request_is_answered_as_the_first_was() {
    let server = Server::start().await;
    server.project("demo").await;
    let body = || json!({"project_id": "demo", "name": "once"});
    let first = post_with(&server, "/sessions", "key-1", body()).await;
    let again = post_with(&server, "/sessions", "key-1", body()).await;
    assert_eq!(first.expect(StatusCode::CREATED), again.expect(StatusCode::CREATED));
    assert_eq!(first.header("x-operation-id"), again.header("x-operation-id"));
    assert_eq!(server.get("/sessions?size=0").await.expect(StatusCode::OK)["total"], 1);
    let other = json!({"project_id": "demo", "name": "twice"});
    assert_eq!(post_with(&server, "/sessions", "key-1", other).await.fault(422), "Idempotency-Key");

    let path = format!("/sessions/{}/start", first.json()["id"].as_str().unwrap());
    let start = post_with(&server, &path, "key-2", json!({})).await;
    assert_eq!(
        start.expect(StatusCode::ACCEPTED),
        post_with(&server, &path, "key-2", json!({})).await.expect(StatusCode::ACCEPTED)
    );
    // Without the key it is a second start.
    server.post(&path, json!({})).await.error(409);
}

#[tokio::test]
async fn a_key_counts_for_its_caller_method_and_path() {
    let server = Server::start().await;
    server.project("demo").await;
    let (one, other) = (server.session("demo").await, server.session("demo").await);
    // The same key and body on another path is another request; so it is by another method, and of another caller.
    for id in [&one, &other] {
        let started = post_with(&server, &format!("/sessions/{id}/start"), "key", json!({})).await;
        assert_eq!(started.expect(StatusCode::ACCEPTED)["id"], json!(id));
    }
    let project = |token: &'static str| {
        let request = server.request_as(token, Method::POST, "/sessions").header("Idempotency-Key", "key");
        let request = request.json(&json!({"project_id": "demo"}));
        async { Answer::of(request.send().await.unwrap()).await.expect(StatusCode::CREATED)["id"].clone() }
    };
    let (admins, alices) = (project(ADMIN).await, project(ALICE).await);
    assert_ne!(admins, alices);
    assert_eq!((project(ADMIN).await, project(ALICE).await), (admins, alices));
    let patch = server.request(Method::PATCH, &format!("/sessions/{one}")).header("Idempotency-Key", "key");
    Answer::of(patch.json(&json!({"name": "x"})).send().await.unwrap()).await.expect(StatusCode::OK);
    let misused = post_with(&server, &format!("/sessions/{one}/start"), "key", json!({"prompt": "x"})).await;
    assert_eq!(misused.fault(422), "Idempotency-Key");
}

#[tokio::test]
async fn a_route_that_has_no_version_refuses_a_condition_on_one() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    for (path, body) in [
        ("/live/tickets".to_owned(), json!({})),
        ("/replay/verify".to_owned(), json!({})),
        (format!("/sessions/{id}/git/push"), json!({})),
        // What is to be made has none yet.
        ("/projects".to_owned(), json!({"name": "other"})),
        ("/sessions".to_owned(), json!({"project_id": "demo"})),
    ] {
        let request = server.request(Method::POST, &path).header("If-Match", "1").json(&body);
        assert_eq!(Answer::of(request.send().await.unwrap()).await.fault(400), "If-Match", "{path}");
    }
}

#[tokio::test]
async fn a_key_must_be_visible_ascii() {
    let server = Server::start().await;
    for key in ["", "a b", "a\tb", "ä", &"k".repeat(256)] {
        let name = json!({"name": "demo"});
        let request = server.request(Method::POST, "/projects").header("Idempotency-Key", key.as_bytes()).json(&name);
        assert_eq!(Answer::of(request.send().await.unwrap()).await.fault(400), "Idempotency-Key", "{key:?}");
    }
}

#[tokio::test]
async fn a_write_with_a_stale_version_changes_nothing() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    let patch = |version: &str, name: &str| {
        let request = server.request(Method::PATCH, &format!("/sessions/{id}")).header("If-Match", version);
        let request = request.json(&json!({"name": name}));
        async { Answer::of(request.send().await.unwrap()).await }
    };
    patch("\"1\"", "first").await.expect(StatusCode::OK);
    let stale = patch("\"1\"", "second").await;
    assert_eq!(stale.fault(412), "If-Match");
    assert_eq!(stale.json()["reason"], "the current version is 2");
    patch("2", "third").await.expect(StatusCode::OK);
    patch("*", "fourth").await.expect(StatusCode::OK);
    for bad in ["", "x", "W/\"4\"", "\"4\", \"5\"", "-1", "+4", "\"+4\"", "0000000000000000004"] {
        assert_eq!(patch(bad, "bad").await.fault(400), "If-Match", "{bad}");
    }
    assert_eq!(server.get(&format!("/sessions/{id}")).await.json()["name"], "fourth");
}

#[tokio::test]
async fn of_two_starts_at_once_one_is_accepted() {
    let server = Server::start().await;
    server.project("demo").await;
    for _ in 0..5 {
        let path = format!("/sessions/{}/start", server.session("demo").await);
        let (a, b) = tokio::join!(server.post(&path, json!({})), server.post(&path, json!({})));
        let (won, lost) = if a.status == StatusCode::ACCEPTED { (a, b) } else { (b, a) };
        assert_eq!(won.expect(StatusCode::ACCEPTED)["run"], 1);
        let reason = lost.error(409)["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("the Session is Pending already"), "{reason}");
    }
}

#[tokio::test]
async fn stop_during_start_and_delete_during_anything_are_accepted() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    server.post(&format!("/sessions/{id}/start"), json!({})).await.expect(StatusCode::ACCEPTED);
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(StatusCode::ACCEPTED);
    let (stop, delete) = (format!("/sessions/{id}/stop"), format!("/sessions/{id}"));
    let (stop, delete) = tokio::join!(server.post(&stop, json!({})), server.delete(&delete));
    delete.expect(StatusCode::NO_CONTENT);
    assert!(matches!(stop.status.as_u16(), 202 | 404), "{}", stop.text);
    server.get(&format!("/sessions/{id}")).await.error(404);
}

#[tokio::test]
async fn one_correlation_id_goes_from_the_request_to_its_operations() {
    let server = Server::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let request =
        server.request(Method::POST, "/projects").header("traceparent", parent).json(&json!({"name": "demo"}));
    Answer::of(request.send().await.unwrap()).await.expect(StatusCode::CREATED);
    assert_eq!(server.operations(&format!("correlation_id={trace}"), 1).await["size"], 1);
}
