//! Requests that no route ever sees are answered with the envelope too.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{ADMIN, BASE, Server};

const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that is answered to these bytes until the server closes.
async fn answers(server: &Server, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    timeout(PATIENCE, async {
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    })
    .await
    .unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

#[track_caller]
fn assert_envelope(what: &str, answer: &str, status: u16) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    assert_eq!(header(head, "content-type"), "application/json", "{head}");
    assert_eq!(header(head, "connection"), "close");
    assert_eq!(header(head, "content-length"), body.len().to_string());
    let error: Value = serde_json::from_str(body).unwrap();
    assert_eq!(error["kind"], "Error");
    assert_eq!(error["code"], format!("ambient-{}", error["id"].as_str().unwrap()));
    assert_eq!(error["href"], format!("{BASE}/errors/{}", error["id"].as_str().unwrap()));
    assert_eq!(error["operation_id"], header(head, "x-operation-id"));
    assert!(!error["reason"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_as_a_request_is_answered_with_the_envelope() {
    let server = Server::start().await;
    let many: String = (0..200).map(|i| format!("X-{i}: y\r\n")).collect();
    for (what, bytes, status) in [
        ("no HTTP", b"\x16\x03\x01\x02\r\n\r\n".to_vec(), 400),
        ("a bad target", b"GET /a b c HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        ("a bad version", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_vec(), 400),
        ("a bad header", b"GET /livez HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n".to_vec(), 400),
        (
            "two lengths",
            b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nContent-Length: 3\r\n\r\n{}".to_vec(),
            400,
        ),
        ("a large header", format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(600_000)).into_bytes(), 431),
        ("many headers", format!("GET /livez HTTP/1.1\r\n{many}\r\n").into_bytes(), 431),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(70_000)).into_bytes(), 414),
    ] {
        assert_envelope(what, &answers(&server, &bytes).await, status);
    }
}

#[tokio::test]
async fn what_cannot_be_read_behind_good_requests_leaves_their_answers_as_they_are() {
    let server = Server::start().await;
    server.project("demo").await;
    let get = |path: &str, method: &str| {
        format!("{method} {BASE}{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN}\r\n\r\n")
    };
    let good = [get("/projects/demo", "GET"), get("/projects", "HEAD"), get("/nope", "GET"), get("/errors", "GET")];
    let all = answers(&server, (good.concat() + "BAD\r\n\r\n").as_bytes()).await;
    let last = all.rfind("HTTP/1.1 ").unwrap();
    assert_envelope("after good requests", &all[last..], 400);
    let before = &all[..last];
    assert_eq!(before.matches("HTTP/1.1 200 OK").count(), 3, "{before}");
    assert_eq!(before.matches("HTTP/1.1 404 ").count(), 1, "{before}");
    assert!(before.ends_with('}') && before.contains("\"ErrorKindList\""), "{before}");
}
