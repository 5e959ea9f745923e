//! Permission requests: the inbox, answers and permissions.

use ambient_domain::{
    permission::{Answer, ToolKind},
    session::{Fact, InterruptOutcome, PermissionRequest, Session},
};
use ambient_wire::{
    live::{ClientFrame, ServerFrame},
    runner_event::PermissionAnswer,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    live::Socket,
    support::{ADMIN, ALICE, Answer as Response, NOBODY, Server, VERA},
};

fn raised(id: &str, command: &str) -> Fact {
    Fact::InterruptRaised {
        request: Box::new(PermissionRequest {
            interrupt_id: id.to_owned(),
            turn_id: "turn".to_owned(),
            tool_call_id: "call".to_owned(),
            title: format!("Run {command}"),
            kind: ToolKind::Execute,
            command: Some(command.to_owned()),
            paths: Vec::new(),
            fingerprint: command.to_owned(),
            answers: vec![Answer::Once, Answer::Always, Answer::Reject],
        }),
    }
}

async fn asking(server: &Server, project: &str, requests: &[&str]) -> String {
    let id = server.running_session(project).await;
    for (n, command) in requests.iter().enumerate() {
        server.fact(&id, raised(&format!("1-1-{n}"), command)).await;
    }
    id
}

async fn as_whom(server: &Server, token: &str, method: Method, path: &str, body: Option<Value>) -> Response {
    let request = server.request_as(token, method, path);
    let request = if let Some(body) = body { request.json(&body) } else { request };
    Response::of(request.send().await.unwrap()).await
}

async fn answer_as(server: &Server, token: &str, session: &str, request: &str, body: Value) -> Response {
    as_whom(server, token, Method::POST, &format!("/sessions/{session}/interrupts/{request}"), Some(body)).await
}

#[tokio::test]
async fn a_request_is_answered_once_by_whoever_may_send_messages_and_by_no_agent() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = asking(&server, "demo", &["make", "make; rm x"]).await;
    let once = json!({"answer": "once"});
    answer_as(&server, VERA, &id, "1-1-0", once.clone()).await.error(403);
    answer_as(&server, NOBODY, &id, "1-1-0", once.clone()).await.error(404);
    let agent = server.tokens.runner_to_server(&id, 1, 1, 0);
    answer_as(&server, &agent, &id, "1-1-0", once.clone()).await.error(403);
    let permissive = json!({"permissions": {"otherwise": "allow"}});
    as_whom(&server, &agent, Method::PATCH, &format!("/sessions/{id}"), Some(permissive)).await.error(403);

    let answered = answer_as(&server, ALICE, &id, "1-1-0", once.clone()).await.expect(StatusCode::OK);
    assert_eq!((&answered["status"], &answered["answer"]["by"]), (&json!("answered"), &json!("alice")));
    answer_as(&server, ALICE, &id, "1-1-0", once.clone()).await.expect(StatusCode::OK);
    let other = answer_as(&server, ADMIN, &id, "1-1-0", json!({"answer": "reject"})).await.error(409);
    assert!(other["reason"].as_str().unwrap().contains("once, by alice"), "{other}");
    answer_as(&server, ADMIN, &id, "1-1-9", once.clone()).await.error(404);
    assert_eq!(answer_as(&server, ADMIN, &id, "1-1-1", json!({"answer": "always"})).await.fault(400), "answer");
    assert_eq!(answer_as(&server, ADMIN, &id, "1-1-1", json!({"answer": "no"})).await.fault(400), "answer");
    let blank = json!({"answer": "reject", "message": " "});
    assert_eq!(answer_as(&server, ADMIN, &id, "1-1-1", blank).await.fault(400), "message");

    let closed = Fact::InterruptClosed {
        interrupt_id: "1-1-1".to_owned(),
        outcome: InterruptOutcome::Expired,
        answer: Some(Answer::Reject),
    };
    server.fact(&id, closed).await;
    answer_as(&server, ADMIN, &id, "1-1-1", once).await.error(409);
    let listed = server.get(&format!("/sessions/{id}/interrupts")).await.expect(StatusCode::OK);
    let seen: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|i| (&i["id"], &i["status"], &i["outcome"])).collect();
    let (answered, closed) = (json!("answered"), json!("closed"));
    assert_eq!(seen, [(&json!("1-1-0"), &answered, &Value::Null), (&json!("1-1-1"), &closed, &json!("expired"))]);
    let operations = server.operations(&format!("entity_id={id}&command=answer_interrupt"), 1).await;
    assert_eq!(operations["items"][0]["principal"], "alice");
}

#[tokio::test]
async fn a_repeated_request_is_one_answer_and_one_message() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = asking(&server, "demo", &["make"]).await;
    let reject = json!({"answer": "reject", "message": "use ninja"});
    let path = format!("/sessions/{id}/interrupts/1-1-0");
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = server.request(Method::POST, &path).header("Idempotency-Key", "k1").json(&reject);
        answers.push(Response::of(request.send().await.unwrap()).await.expect(StatusCode::OK));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0]["answer"]["message_id"].is_string(), "{}", answers[0]);
    let misused = server.request(Method::POST, &path).header("Idempotency-Key", "k1").json(&json!({"answer": "once"}));
    Response::of(misused.send().await.unwrap()).await.error(422);
    let messages = server.get(&format!("/sessions/{id}/messages")).await.expect(StatusCode::OK);
    let texts: Vec<_> = messages["items"].as_array().unwrap().iter().map(|m| &m["text"]).collect();
    assert_eq!(texts, ["use ninja"]);
}

#[tokio::test]
async fn the_inbox_has_what_waits_for_the_caller_where_it_may_act_the_oldest_first() {
    let server = Server::start().await;
    let (demo, other) = (server.project("demo").await, server.post("/projects", json!({"name": "other"})).await);
    other.expect(StatusCode::CREATED);
    let first = asking(&server, "demo", &["make", "make test"]).await;
    let second = asking(&server, "other", &["ls"]).await;
    let inbox = |token: &'static str, query: &'static str| {
        let server = &server;
        async move { as_whom(server, token, Method::GET, &format!("/inbox{query}"), None).await }
    };
    let ids = |list: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| (text(&item["session_id"]), text(&item["interrupt"]["id"]))).collect()
    };
    let of = |session: &String, n: i32| (session.clone(), format!("1-1-{n}"));
    let all = inbox(ADMIN, "").await.expect(StatusCode::OK);
    assert_eq!((ids(&all), &all["total"]), (vec![of(&first, 0), of(&first, 1), of(&second, 0)], &json!(3)));
    let item = &all["items"][0];
    assert_eq!((&item["project_name"], &item["interrupt"]["rule"]["command"]), (&json!("demo"), &json!("make")));
    assert_eq!(ids(&inbox(ADMIN, "?page=2&size=2").await.expect(StatusCode::OK)), [of(&second, 0)]);
    assert_eq!(ids(&inbox(ADMIN, "?project_id=other").await.expect(StatusCode::OK)), [of(&second, 0)]);
    assert_eq!(ids(&inbox(ALICE, "").await.expect(StatusCode::OK)), [of(&first, 0), of(&first, 1)]);
    for looks_only in [VERA, NOBODY, "token-of-a-viewer"] {
        assert_eq!(inbox(looks_only, "").await.expect(StatusCode::OK)["total"], 0, "{looks_only}");
    }
    inbox(ALICE, "?project_id=other").await.error(404);
    assert_eq!(inbox(ADMIN, "?size=1001").await.fault(400), "size");

    answer_as(&server, ALICE, &first, "1-1-0", json!({"answer": "once"})).await.expect(StatusCode::OK);
    assert_eq!(ids(&inbox(ALICE, "").await.expect(StatusCode::OK)), [of(&first, 1)]);
    server.session("demo").await;
    let order = format!("/sessions?project_id={demo}&order_by=waiting%20desc");
    let listed = server.get(&order).await.expect(StatusCode::OK);
    assert_eq!(listed["items"][0]["id"], first.as_str());
    server.post(&format!("/sessions/{first}/stop"), json!({})).await.expect(StatusCode::ACCEPTED);
    assert_eq!(inbox(ALICE, "").await.expect(StatusCode::OK)["total"], 0, "who is stopping waits for nobody");
}

#[tokio::test]
async fn answers_go_over_a_socket_too_in_order_with_messages_and_once() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = asking(&server, "demo", &["make", "make test"]).await;
    let mut socket = Socket::open(&server, Some(ALICE), &format!("/sessions/{id}/ws")).await.unwrap();
    let answer = |key: &str, request: &str, answer: PermissionAnswer, message: Option<&str>| ClientFrame::Answer {
        id: key.to_owned(),
        session: id.clone(),
        interrupt_id: request.to_owned(),
        answer,
        message: message.map(str::to_owned),
    };
    let once = answer("a1", "1-1-0", PermissionAnswer::Once, None);
    socket.send(&once).await;
    socket.send(&ClientFrame::Send { id: "m1".to_owned(), session: id.clone(), text: "hello".to_owned() }).await;
    socket.send(&answer("a2", "1-1-1", PermissionAnswer::Reject, Some("use ninja"))).await;
    assert_eq!(socket.next().await, ServerFrame::Ack { id: "a1".to_owned(), message_id: None });
    for key in ["m1", "a2"] {
        let acked = socket.next().await;
        assert!(matches!(&acked, ServerFrame::Ack { id, message_id: Some(_) } if id == key), "{acked:?}");
    }
    socket.send(&once).await;
    assert_eq!(socket.next().await, ServerFrame::Ack { id: "a1".to_owned(), message_id: None });
    socket.send(&answer("a3", "1-1-0", PermissionAnswer::Reject, None)).await;
    let refused = socket.next().await;
    assert!(matches!(&refused, ServerFrame::Error { code, .. } if code == "refused"), "{refused:?}");
    let messages = server.get(&format!("/sessions/{id}/messages")).await.expect(StatusCode::OK);
    let texts: Vec<_> = messages["items"].as_array().unwrap().iter().map(|m| &m["text"]).collect();
    assert_eq!(texts, ["hello", "use ninja"]);
    let session = server.database.load::<Session>(&id).await.unwrap().unwrap();
    assert_eq!(session.answered_interrupts().count(), 2);
}

#[tokio::test]
async fn permissions_are_set_at_any_time_of_sessions_agents_and_projects_and_faults_name_their_field() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let rules = json!({"rules": [{"effect": "allow", "tool": "execute", "command": "make *"}], "timeout": 60});
    let patched = server.patch(&format!("/sessions/{id}"), json!({"permissions": rules})).await.expect(StatusCode::OK);
    assert_eq!(patched["permissions"], rules);
    let always = asking(&server, "demo", &["make test"]).await;
    answer_as(&server, ALICE, &always, "1-1-0", json!({"answer": "always"})).await.expect(StatusCode::OK);
    let shown = server.get(&format!("/sessions/{always}")).await.expect(StatusCode::OK);
    assert_eq!(shown["permissions"]["rules"], json!([{"effect": "allow", "tool": "execute", "command": "make test"}]));
    let cleared = server.patch(&format!("/sessions/{id}"), json!({"permissions": null})).await.expect(StatusCode::OK);
    assert_eq!(cleared["permissions"], json!({}));

    let agent = json!({"project_id": "demo", "name": "tester", "permissions": rules});
    let agent = server.post("/agents", agent).await.expect(StatusCode::CREATED);
    assert_eq!(agent["permissions"], rules);
    let agent_path = agent["href"].as_str().unwrap();
    let cleared = server.patch(agent_path, json!({"permissions": null})).await.expect(StatusCode::OK);
    assert_eq!(cleared["permissions"], json!({}));
    let settings = json!({"settings": {"permissions": rules}});
    let project = server.patch("/projects/demo", settings).await.expect(StatusCode::OK);
    assert_eq!(project["settings"]["permissions"], rules);

    for (wrong, field) in [
        (json!({"rules": [{"effect": "maybe"}]}), "permissions.rules[0].effect"),
        (json!({"rules": [{"effect": "allow", "tool": "shell"}]}), "permissions.rules[0].tool"),
        (json!({"rules": [{"effect": "allow", "command": " "}]}), "permissions.rules[0].command"),
        (json!({"rules": [{"effect": "allow", "command": "curl https://a:b@h/"}]}), "permissions.rules[0].command"),
        (json!({"rules": [{"effect": "allow", "what": 1}]}), "permissions.rules[0].what"),
        (json!({"rules": vec![json!({"effect": "ask"}); 101]}), "permissions.rules"),
        (json!({"timeout": -1}), "permissions.timeout"),
        (json!({"other": 1}), "permissions.other"),
        (json!([]), "permissions"),
    ] {
        let create = json!({"project_id": "demo", "permissions": wrong});
        assert_eq!(server.post("/sessions", create).await.fault(400), field, "{wrong}");
        let fault = server.patch(&format!("/sessions/{id}"), json!({"permissions": wrong})).await.fault(400);
        assert_eq!(fault, field, "{wrong}");
        assert_eq!(server.patch(agent_path, json!({"permissions": wrong})).await.fault(400), field, "{wrong}");
        let settings = json!({"settings": {"permissions": wrong}});
        assert_eq!(server.patch("/projects/demo", settings).await.fault(400), format!("settings.{field}"), "{wrong}");
    }
}
