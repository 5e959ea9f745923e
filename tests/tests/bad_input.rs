//! Bad input over the real edge: a clear error that names the field, nothing lost, nobody else affected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use ambient_tests::{TestDatabase, bad_input};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Answer, Origin, Server, live::Channel, script};

/// The error envelope with this status; the fields it names.
fn fields(answer: &Answer, status: u16, what: &str) -> Vec<String> {
    let error = &answer.json;
    assert_eq!(answer.status, status, "{what}: {error}");
    assert_eq!(error["kind"], "Error", "{what}: {error}");
    for text in ["id", "href", "code", "reason", "operation_id"] {
        assert!(error[text].as_str().is_some_and(|text| !text.is_empty()), "{what}: {text} of {error}");
    }
    let details = error["details"].as_array().into_iter().flatten();
    details.map(|detail| detail["field"].as_str().unwrap().to_owned()).collect()
}

fn refused(answer: &Answer, field: &str, what: &str) {
    assert!(fields(answer, 400, what).iter().any(|named| named == field), "{what}: not {field}: {}", answer.json);
}

/// A server with a session that is at work and another that may be looked into.
struct Scene {
    _database: TestDatabase,
    server: Server,
    origin: Origin,
    worker: String,
    open: String,
}

impl Scene {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let server = Server::start(&database, "one").await;
        let origin = Origin::new();
        server.project("bad").await;
        let prompt = script("for i in $(seq 1 2000); do echo \"tick $i;\"; sleep 0.1; done");
        let worker = server.session(json!({"project_id": "bad", "prompt": prompt})).await;
        let prompt = script(
            "ln -s /etc/passwd out.txt; ln -s /etc outdir; ln -s .. up; mkdir in; echo inside > in/a.txt; echo made",
        );
        let open = server.session(json!({"project_id": "bad", "prompt": prompt})).await;
        server.printed(&open, "made").await;
        server.printed(&worker, "tick 1;").await;
        Self { _database: database, server, origin, worker, open }
    }

    async fn sessions(&self) -> Value {
        self.server.get("/sessions?size=0").await.expect(200)["total"].clone()
    }

    /// The other session has not stopped working: something new comes.
    async fn nobody_else_is_affected(&self) {
        let ticks = |events: &[Value]| events.iter().filter_map(support::runner::output).count();
        let before = ticks(&self.server.events(&self.worker).await);
        support::eventually("the other session goes on", async || {
            (ticks(&self.server.events(&self.worker).await) > before).then_some(())
        })
        .await;
        let worker = self.server.get(&format!("/sessions/{}", self.worker)).await.expect(200);
        assert_eq!((&worker["phase"], &worker["attempt"]), (&json!("Running"), &json!(1)));
        self.server.verified().await;
    }

    async fn raw(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.server.request(Method::POST, path).header("content-type", content_type).body(body);
        self.server.send(request).await
    }
}

#[tokio::test]
async fn bad_bodies_name_the_field_and_change_nothing() {
    let scene = Scene::new().await;
    let server = &scene.server;
    let before = scene.sessions().await;
    for (body, field) in bad_input::sessions("bad", &scene.origin.url()) {
        let answer = server.post("/sessions", body.clone()).await;
        refused(&answer, field, &body.to_string());
        assert!(!answer.json.to_string().contains("secret"), "credentials are not repeated: {}", answer.json);
    }
    for (what, body) in bad_input::unreadable_bodies() {
        refused(&scene.raw("/sessions", "application/json", body).await, "body", what);
    }
    let text = scene.raw("/sessions", "text/plain", "{}").await;
    assert_eq!(fields(&text, 415, "text/plain"), ["Content-Type"]);
    let oversize = scene.raw("/sessions", "application/json", vec![b' '; (1 << 20) + 1]).await;
    assert_eq!(fields(&oversize, 413, "oversize"), ["body"]);
    let path = format!("/sessions/{}/messages", scene.open);
    refused(&server.post(&path, json!({"text": "a\0b"})).await, "text", "NUL in a message");
    refused(&server.post(&path, json!({"text": 7})).await, "text", "a number as a message");
    refused(&server.post(&format!("/sessions/{}/repos", scene.open), json!({"url": "ext::x"})).await, "url", "repos");
    assert_eq!(scene.sessions().await, before, "nothing was created");
    scene.nobody_else_is_affected().await;
}

#[tokio::test]
async fn no_path_leads_out_of_the_workspace() {
    let scene = Scene::new().await;
    let server = &scene.server;
    let root = format!("/sessions/{}/workspace", scene.open);
    let inside = server.get(&format!("{root}/in/a.txt")).await;
    assert_eq!((inside.status, inside.json.as_str()), (200, Some("inside\n")));
    let files = [
        "..%2f..%2fetc%2fpasswd",
        "in/%2e%2e%2f%2e%2e/x",
        "%2fetc%2fpasswd",
        "out.txt",
        "outdir/passwd",
        "up/fence.json",
    ];
    for path in files {
        let answer = server.get(&format!("{root}/{path}")).await;
        refused(&answer, "path", path);
        assert!(!answer.json.to_string().contains("root:"));
    }
    for path in ["..", "in/../..", "/etc", "outdir", "up", "a%00b"] {
        refused(&server.get(&format!("{root}?path={path}")).await, "path", path);
    }
    refused(&server.get(&format!("{root}/%ff")).await, "path", "not UTF-8");
    fields(&server.get(&format!("{root}/nope")).await, 404, "a file that is not there");
    for path in ["git/status?repo=..%2f..", "git/diff?repo=%2fetc"] {
        let answer = server.get(&format!("/sessions/{}/{path}", scene.open)).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.json);
        fields(&answer, answer.status, path);
    }
    scene.nobody_else_is_affected().await;
}

#[tokio::test]
async fn what_cannot_be_read_in_a_workspace_is_told_as_what_it_is_and_never_a_failure_of_the_runner() {
    let scene = Scene::new().await;
    let server = &scene.server;
    let prompt = script(
        "echo x > shut.txt; mkdir shut half; touch half/a; mkfifo pipe; echo x > $'n\\xff'; chmod 000 shut.txt shut; \
         chmod 444 half; echo made",
    );
    let id = server.session(json!({"project_id": "bad", "prompt": prompt})).await;
    server.printed(&id, "made").await;
    let root = format!("/sessions/{id}/workspace");
    let long = "x".repeat(300);
    // A runner with a user of its own reads what its agent has closed.
    for (path, open) in [("/shut.txt", 200), ("/shut/a", 404), ("/half/a", 200), ("?path=shut", 200)] {
        let answer = server.get(&format!("{root}{path}")).await;
        assert!([409, open].contains(&answer.status), "{path}: {}", answer.json);
    }
    for (path, status) in [
        ("/half", 400),
        ("/pipe", 400),
        ("/shut.txt/a", 409),
        ("?path=shut.txt", 409),
        ("/n%ff", 400),
        (&format!("/{long}"), 404),
        (&format!("?path={}", "x/".repeat(3_000)), 400),
        ("/gone", 404),
        ("?path=gone", 404),
        ("/n%EF%BF%BD", 404),
    ] {
        let answer = server.get(&format!("{root}{path}")).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.json);
        assert_eq!(fields(&answer, status, path), if status == 400 { vec!["path"] } else { vec![] }, "{path}");
    }
    // What can be listed but not looked into is there nevertheless.
    let half = server.get(&format!("{root}?path=half")).await.expect(200);
    assert_eq!((&half["entries"][0]["name"], &half["entries"][0]["kind"]), (&json!("a"), &json!("file")));
    let names = server.get(&root).await.expect(200)["entries"].as_array().unwrap().len();
    assert_eq!(names, 5);
}

#[tokio::test]
async fn bad_filters_cursors_and_ids_are_named() {
    let scene = Scene::new().await;
    let server = &scene.server;
    let events = format!("/sessions/{}/events", scene.open);
    for (path, field) in bad_input::queries(&scene.open) {
        refused(&server.get(&path).await, field, &path);
    }
    for id in bad_input::UNKNOWN_IDS.into_iter().chain([&*"x".repeat(4_000)]) {
        fields(&server.get(&format!("/sessions/{id}")).await, 404, id);
        fields(&server.delete(&format!("/sessions/{id}")).await, 404, id);
        fields(&server.post(&format!("/sessions/{id}/start"), json!({})).await, 404, id);
    }
    for id in ["nope", "session-start%2Fnope%2F1.1", "%2e%2e%2f"] {
        fields(&server.get(&format!("/workflow_executions/{id}")).await, 404, id);
    }
    let endless = format!("/workflow_executions/{}", "x".repeat(4_000));
    refused(&server.get(&endless).await, "execution_id", "an endless execution id");
    let stale = server.request(Method::PATCH, &format!("/sessions/{}", scene.open)).header("if-match", "1");
    fields(&server.send(stale.json(&json!({"name": "x"}))).await, 412, "a stale version");
    let stream =
        server.request(Method::GET, &events).header("accept", "text/event-stream").header("last-event-id", "x");
    refused(&server.send(stream).await, "Last-Event-ID", "a cursor that is no number");
    let mut nobody = Channel::open(server, "nope", 0).await.unwrap();
    let frame = nobody.next().await.unwrap();
    assert_eq!((&frame["op"], &frame["code"]), (&json!("error"), &json!("not_found")));
    scene.nobody_else_is_affected().await;
}

#[tokio::test]
async fn a_connection_that_speaks_no_http_disturbs_nobody() {
    let scene = Scene::new().await;
    let noise: [&[u8]; 4] = [
        b"\x00\xff\x16\x03\x01\r\n\r\n",
        b"GET /api/ambient/v1/sessions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"POST /api/ambient/v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\nContent-Length: 3\r\n\r\n{}",
        b"GET /api/ambient/v1/sessions/..\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for bytes in noise {
        let mut socket = TcpStream::connect(scene.server.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = [0; 12];
        let read = socket.read(&mut answer).unwrap_or(0);
        assert!(read == 0 || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    scene.nobody_else_is_affected().await;
}

#[tokio::test]
async fn a_repository_below_a_closed_folder_is_refused_with_the_folder_and_how_to_open_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: sessions have the rights of whoever started the server");
        return;
    }
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    server.project("closed").await;
    let origin = Origin::new();
    let closed = origin.path().parent().unwrap().to_owned();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let id = server.session(json!({"project_id": "closed", "repos": [{"url": origin.url()}]})).await;
    let session = server.phase(&id, "Failed").await;
    let told = session["outcome"]["message"].as_str().unwrap();
    assert!(told.contains(&format!("`chmod o+x {}`", closed.display())), "{told}");
}
