//! What was removed is told wherever it is missed; who may see and do what.

use ambient_domain::session::Fact;
use ambient_wire::live::ServerFrame;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    live::Socket,
    support::{ADMIN, ALICE, Answer, NOBODY, Server, VERA},
};

async fn sql(server: &Server, text: &'static str, id: &str) {
    sqlx::query(text).bind(id).execute(server.database.pool()).await.unwrap();
}

/// A session that has ended, of which retention has removed everything up to a seq.
async fn shortened(server: &Server, project: &str) -> (String, i64, i64) {
    let id = server.running_session(project).await;
    for n in 0..3 {
        let text = json!({"text": format!("message {n}")});
        server.post(&format!("/sessions/{id}/messages"), text).await.expect(StatusCode::CREATED);
    }
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(StatusCode::ACCEPTED);
    let covers = ambient_live::snapshot::compact(&server.database, &id).await.unwrap();
    server.fact(&id, Fact::TornDown { evidence: vec!["gone".to_owned()], not_run: Vec::new() }).await;
    sql(server, "update ambient.snapshots set created_at = now() - interval '9 days' where session_id = $1", &id).await;
    let removed = server.database.remove_old_events(&id, 7, 1_000).await.unwrap().unwrap();
    assert_eq!(removed.events, covers);
    (id.clone(), covers, server.database.last_seq(&id).await.unwrap())
}

async fn as_whom(server: &Server, token: &str, method: Method, path: &str) -> Answer {
    Answer::of(server.request_as(token, method, path).send().await.unwrap()).await
}

#[tokio::test]
async fn who_is_behind_is_told_with_the_oldest_event_and_a_snapshot_to_start_from() {
    let server = Server::start().await;
    server.project("demo").await;
    let (id, covers, last) = shortened(&server, "demo").await;
    let path = format!("/sessions/{id}");
    for route in [
        "events?after_seq=1",
        "messages?after_seq=1",
        "agui/runs?after_seq=1",
        "events/stream?after_seq=1",
        "events/stream?after_seq=0",
        "agui/events?after_seq=1.1",
        "agui/events?after_seq=0",
    ] {
        let gone = server.get(&format!("{path}/{route}")).await.expect(StatusCode::GONE);
        assert_eq!((&gone["oldest"], &gone["covers_seq"]), (&json!(covers + 1), &json!(covers)), "{route}: {gone}");
        assert!(gone["reason"].as_str().unwrap().contains("snapshot"), "{gone}");
    }
    for route in ["events", "events?after_seq=0", "messages", "agui/runs"] {
        let page = server.get(&format!("{path}/{route}")).await.expect(StatusCode::OK);
        assert_eq!(page["oldest"], covers + 1, "{route}: {page}");
    }
    let page = server.get(&format!("{path}/events?after_seq={covers}")).await.expect(StatusCode::OK);
    assert_eq!(page["items"].as_array().unwrap().len(), usize::try_from(last - covers).unwrap());
    let history = server.get(&format!("{path}/agui/history")).await.expect(StatusCode::OK);
    let said: Vec<_> = history["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["message 0", "message 1", "message 2"], "the conversation is kept");

    let mut socket = Socket::open(&server, Some(VERA), "/live").await.unwrap();
    for after in [0, 1] {
        match socket.subscribe("late", &id, Some(after)).await {
            ServerFrame::Error { code, oldest, covers_seq, .. } => {
                assert_eq!((code.as_str(), oldest, covers_seq), ("too_old", Some(covers + 1), Some(covers)));
            }
            other => panic!("{other:?}"),
        }
    }
    let begun = socket.subscribe("new", &id, None).await;
    assert!(matches!(&begun, ServerFrame::Snapshot { covers_seq, .. } if *covers_seq == covers), "{begun:?}");

    let session = server.get(&path).await.expect(StatusCode::OK);
    let told = &session["retention"];
    assert_eq!((&told["retained_from_seq"], &told["events_removed"]), (&json!(covers + 1), &json!(covers)));
    assert!(told["events_removed_at"].is_string() && told["workspace_removed_at"].is_null(), "{told}");
    let answered = json!({"threadId": "t", "runId": "r", "messages": [], "tools": [], "context": [], "state": null, "forwardedProps": null,
        "resume": [{"interruptId": "1-1-1", "status": "resolved", "payload": {"answer": "once"}}]});
    let gone = server.post(&format!("{path}/agui"), answered).await;
    assert_eq!(gone.status, StatusCode::GONE, "{}", gone.text);
}

#[tokio::test]
async fn a_workspace_that_is_gone_says_when_and_what_to_do() {
    let server = Server::start().await;
    server.project("demo").await;
    let (id, ..) = shortened(&server, "demo").await;
    let files = format!("/sessions/{id}/workspace");
    let plain = server.get(&files).await.expect(StatusCode::CONFLICT);
    assert!(!plain["reason"].as_str().unwrap().contains("retention"), "{plain}");
    let project = server.get("/projects/demo").await.expect(StatusCode::OK)["id"].as_str().unwrap().to_owned();
    server.database.place_session(&id, "test").await.unwrap();
    sql(
        &server,
        "update ambient.session_runtime set last_activity_at = now() - interval '9 days' where session_id = $1",
        &id,
    )
    .await;
    assert_eq!(server.database.give_up_workspaces(&project, 7, 10).await.unwrap(), 1);
    for path in [files, format!("/sessions/{id}/git/status?repo=demo")] {
        let told = server.get(&path).await.expect(StatusCode::CONFLICT);
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.contains("removed by retention on 20") && reason.contains("/start"), "{reason}");
    }
    let shown = server.get(&format!("/sessions/{id}")).await.expect(StatusCode::OK);
    assert_eq!(shown["retention"]["workspace_removed_after_run"], 1);
    let repos = server.get(&format!("/sessions/{id}/repos/status")).await.expect(StatusCode::OK);
    assert_eq!((&repos["items"][0]["status"], &repos["total"]), (&json!("Wanted"), &json!(1)), "{repos}");
}

#[tokio::test]
async fn who_may_look_sees_what_would_go_and_who_may_edit_has_it_removed() {
    let server = Server::start().await;
    let project = server.project("demo").await;
    let (id, _, _) = shortened(&server, "demo").await;
    let other = server.running_session("demo").await;
    let path = format!("/projects/{project}/retention");
    let nothing = as_whom(&server, VERA, Method::GET, &path).await.expect(StatusCode::OK);
    assert_eq!((&nothing["in_force"]["event_days"], &nothing["due"]["sessions"]), (&json!(0), &json!(0)), "{nothing}");
    let kept = as_whom(&server, ALICE, Method::POST, &path).await.expect(StatusCode::CONFLICT);
    assert!(kept["reason"].as_str().unwrap().contains("for ever"), "{kept}");
    as_whom(&server, NOBODY, Method::GET, &path).await.expect(StatusCode::NOT_FOUND);
    as_whom(&server, NOBODY, Method::POST, &path).await.expect(StatusCode::NOT_FOUND);
    as_whom(&server, VERA, Method::POST, &path).await.expect(StatusCode::FORBIDDEN);

    for (days, problem) in [(1, "at least 2 days"), (99_999, "36500")] {
        let patch = json!({"settings": {"retention": {"event_days": days}}});
        let refused = server.patch(&format!("/projects/{project}"), patch).await.expect(StatusCode::BAD_REQUEST);
        assert_eq!(refused["details"][0]["field"], "settings.retention.event_days", "{refused}");
        assert!(refused["reason"].as_str().unwrap().contains(problem), "{refused}");
    }
    let bad = server.get(&format!("{path}?event_days=-1")).await.expect(StatusCode::BAD_REQUEST);
    assert_eq!(bad["details"][0]["field"], "event_days", "{bad}");
    let patch = json!({"settings": {"retention": {"event_days": 5, "workspace_days": 0}}});
    let patched = server.patch(&format!("/projects/{project}"), patch).await.expect(StatusCode::OK);
    assert_eq!(patched["settings"]["retention"], json!({"event_days": 5, "workspace_days": 0}));

    server.database.place_session(&id, "test").await.unwrap();
    sql(
        &server,
        "update ambient.session_runtime set last_activity_at = now() - interval '9 days' where session_id = $1",
        &id,
    )
    .await;
    let asked = as_whom(&server, VERA, Method::GET, &format!("{path}?workspace_days=7")).await.expect(StatusCode::OK);
    assert_eq!(asked["policy"], json!({"event_days": 5, "workspace_days": 7}));
    assert_eq!((&asked["due"]["workspaces"], &asked["due"]["events"]), (&json!(1), &json!(0)), "{asked}");
    assert_eq!((&asked["sessions"][0]["id"], &asked["sessions"][0]["host"]), (&json!(id), &json!("test")));
    assert!(!asked["sessions"].as_array().unwrap().iter().any(|session| session["id"] == *other));
    let request = as_whom(&server, ALICE, Method::POST, &path).await.expect(StatusCode::ACCEPTED);
    assert_eq!((&request["requested_by"], &request["done_at"]), (&json!("alice"), &Value::Null));
    let shown = as_whom(&server, VERA, Method::GET, &path).await.expect(StatusCode::OK);
    assert_eq!(shown["request"], request);
    assert_eq!((&shown["min_days"], &shown["max_days"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn an_agent_does_not_decide_how_long_its_session_is_kept() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let token = server.tokens.runner_to_server(&id, 1, 1, 0);
    let patch = async |token: &str, labels: Value| {
        let request = server.request_as(token, Method::PATCH, &format!("/sessions/{id}"));
        Answer::of(request.json(&json!({"labels": labels})).send().await.unwrap()).await
    };
    patch(&token, json!({"retention": "keep"})).await.expect(StatusCode::FORBIDDEN);
    patch(&token, json!({"other": "label"})).await.expect(StatusCode::OK);
    patch(ADMIN, json!({"retention": "keep"})).await.expect(StatusCode::OK);
    patch(&token, json!({"retention": null})).await.expect(StatusCode::FORBIDDEN);
}
