//! A server for tests: answers as instructed, cuts connections, and records its requests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use ambient_wire::live::{ClientFrame, Event, SUBPROTOCOL, ServerFrame};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// `GET /api/ambient/v1/sessions?size=1`, without the API's base.
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// Earlier requests with the same line.
    pub(crate) before: usize,
}

/// What a live channel sends to a subscriber with a cursor, and whether it stays open afterwards.
type Script = Box<dyn Fn(Option<i64>) -> (Vec<ServerFrame>, bool) + Send>;

/// How to answer.
pub(crate) enum Reply {
    /// Status, extra headers, body.
    Http(u16, &'static str, String),
    /// No answer: the connection is closed.
    Cut,
    /// A live channel: frames for the requested cursor, and whether the connection stays open after them.
    Live(Script),
}

/// A success.
pub(crate) fn ok(body: &Value) -> Reply {
    Reply::Http(200, "", body.to_string())
}

/// A refusal.
pub(crate) fn refused(status: u16, reason: &str) -> Reply {
    let body =
        json!({"kind": "Error", "id": "1", "href": "", "code": "ambient-1", "reason": reason, "operation_id": "op1"});
    Reply::Http(status, "", body.to_string())
}

/// A frame with an event.
pub(crate) fn event(seq: i64, event_type: &str, data: Value) -> ServerFrame {
    let at = chrono::DateTime::from_timestamp_millis(seq * 100).unwrap();
    ServerFrame::Event { id: "1".to_owned(), event: Event { seq, event_type: event_type.to_owned(), data, at } }
}

/// A phase.
pub(crate) fn phase(seq: i64, phase: &str, reason: &str) -> ServerFrame {
    event(seq, "session.phase", json!({"phase": phase, "reason": reason, "message": "", "run": 1, "attempt": 1}))
}

/// A session as the API shows it.
pub(crate) fn session(changes: &Value) -> Value {
    let mut session = json!({
        "kind": "Session", "id": SESSION, "href": "", "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z",
        "version": 1, "project_id": PROJECT, "name": "demo", "prompt": null, "repos": [], "agent_id": null, "agent_type": "script",
        "interactive": false, "stop_on_run_finished": false, "timeout": 300, "inactivity_timeout": 0, "llm_model": null,
        "llm_temperature": 0.7, "llm_max_tokens": 4000, "parent_session_id": null, "labels": {}, "annotations": {},
        "created_by_user_id": "admin", "phase": null, "run": 0, "attempt": 0, "sdk_restart_count": 0, "generation": 1,
        "observed_generation": 1, "start_time": null, "completion_time": null, "outcome": null, "conditions": [],
        "status_detail": null, "reconciled_repos": [],
    });
    for (field, value) in changes.as_object().unwrap() {
        session[field] = value.clone();
    }
    session
}

/// Id of [`session`].
pub(crate) const SESSION: &str = "2PzyKuGf4Pp1cYCmLvjkxyDiEBD";
/// Id of its project.
pub(crate) const PROJECT: &str = "2PzyKuGf4Pp1cYCmLvjkxyDiEBC";

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

/// The server; ends with the test's runtime.
pub(crate) struct Stub {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Received>>>,
    cursors: Arc<Mutex<Vec<Option<i64>>>>,
}

impl Stub {
    pub(crate) async fn start(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, cursors) = (Arc::default(), Arc::default());
        let stub = Self { url, requests: Arc::clone(&requests), cursors: Arc::clone(&cursors) };
        let handler: Arc<Handler> = Arc::new(handler);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, handler.clone(), requests.clone(), cursors.clone()));
            }
        });
        stub
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }

    /// Their request lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }

    /// Cursors of the subscriptions so far.
    pub(crate) fn cursors(&self) -> Vec<Option<i64>> {
        self.cursors.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    handler: Arc<Handler>,
    requests: Arc<Mutex<Vec<Received>>>,
    cursors: Arc<Mutex<Vec<Option<i64>>>>,
) {
    let Some(mut request) = read(&mut stream).await else { return };
    {
        let mut requests = requests.lock().unwrap();
        request.before = requests.iter().filter(|earlier| earlier.line == request.line).count();
        requests.push(request.clone());
    }
    match handler(&request) {
        Reply::Cut => {}
        Reply::Http(status, headers, body) => {
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap_or_default();
        }
        Reply::Live(frames) => live(stream, &request, frames, &cursors).await,
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").replace(ambient_wire::BASE, "");
    let headers: BTreeMap<_, _> =
        lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received { line, headers, body: String::from_utf8(body).unwrap(), before: 0 })
}

async fn live(mut stream: TcpStream, request: &Received, frames: Script, cursors: &Mutex<Vec<Option<i64>>>) {
    assert_eq!(request.headers["sec-websocket-protocol"], SUBPROTOCOL);
    let accept = derive_accept_key(request.headers["sec-websocket-key"].as_bytes());
    let answer = format!(
        "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\
         sec-websocket-protocol: {SUBPROTOCOL}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let Some(Ok(Message::Text(text))) = socket.next().await else { return };
    let ClientFrame::Subscribe { after_seq, channel, .. } = serde_json::from_str(&text).unwrap() else { return };
    assert_eq!(channel, format!("session:{SESSION}"));
    cursors.lock().unwrap().push(after_seq);
    let (frames, stays) = frames(after_seq);
    for frame in frames {
        if socket.send(Message::text(serde_json::to_string(&frame).unwrap())).await.is_err() {
            return;
        }
    }
    // Without a closing handshake, as when a server is killed.
    while stays && socket.next().await.is_some_and(|message| message.is_ok()) {}
}
