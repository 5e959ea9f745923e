//! Feedback of people on what agents say and do.

use ambient_wire::live::FeedbackEvent;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{ALICE, Answer as Response, NOBODY, Server, VERA};

async fn give(server: &Server, token: &str, session: &str, body: &Value, key: &str) -> Response {
    let path = format!("/sessions/{session}/agui/feedback");
    let request = server.request_as(token, Method::POST, &path).header("Idempotency-Key", key).json(body);
    Response::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn feedback_is_an_operation_and_in_the_log_once_whatever_phase_the_session_is_in() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.session("demo").await;
    let down = json!({
        "type": "META", "metaType": "thumbs_down", "threadId": "t",
        "payload": { "messageId": "m-1", "reason": "wrong", "comment": "It broke\nthe build.", "userId": "somebody else" },
    });
    for _ in 0..2 {
        give(&server, ALICE, &id, &down, "k").await.expect(StatusCode::NO_CONTENT);
    }
    give(&server, ALICE, &id, &json!({ "metaType": "thumbs_up" }), "l").await.expect(StatusCode::NO_CONTENT);
    let log = server.get(&format!("/sessions/{id}/events")).await.expect(StatusCode::OK);
    let events = log["items"].as_array().unwrap().iter().filter(|event| event["type"] == "user.feedback");
    let told: Vec<FeedbackEvent> = events.map(|event| serde_json::from_value(event["data"].clone()).unwrap()).collect();
    assert_eq!(told.len(), 2, "{log}");
    assert_eq!(
        (told[0].comment.as_deref(), told[0].message_id.as_deref()),
        (Some("It broke\nthe build."), Some("m-1"))
    );
    assert_eq!(told[1].comment, None);
    let operations = server.operations(&format!("entity_id={id}&command=give_feedback"), 2).await;
    assert_eq!(operations["total"], 2);
    assert_eq!(operations["items"][0]["principal"], told[0].by.as_str(), "{operations}");

    give(&server, VERA, &id, &down, "v").await.error(403);
    give(&server, NOBODY, &id, &down, "n").await.error(404);
    let payload = |payload: Value| json!({ "metaType": "thumbs_up", "payload": payload });
    for (body, field) in [
        (json!({ "metaType": "sideways" }), "metaType"),
        (json!({ "payload": {} }), "metaType"),
        (payload(json!({ "messageId": "a\nb" })), "payload.messageId"),
        (payload(json!({ "reason": "x".repeat(2000) })), "payload.reason"),
        (payload(json!({ "comment": "x".repeat(20_000) })), "payload.comment"),
        (payload(json!({ "comment": 5 })), "payload.comment"),
    ] {
        assert_eq!(give(&server, ALICE, &id, &body, field).await.fault(400), field, "{body}");
    }
}
