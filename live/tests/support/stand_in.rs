//! A runner whose log a test writes: the routes that a reader uses, on a real socket. It closes a request as a runner does: recorded first,
//! then handed to the agent, and once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ambient_domain::session::Session;
use ambient_runner_protocol::{
    Accepted, AnswerTaken, CONTRACT_VERSION, DeliverMessage, Health, PermissionPolicy, ReaderHello, Record,
    RunnerError, RunnerFrame,
};
use ambient_wire::permission::InterruptAnswer;
use axum::{
    Json, Router,
    extract::{
        Path, Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

use super::uuid;

/// What it does with an answer besides taking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails before anything is recorded.
    Before,
    /// It fails when everything is recorded, so that nobody is told.
    After,
}

struct Shared {
    session_id: String,
    log_id: String,
    log: watch::Sender<Vec<Record>>,
    /// What it was told, in order.
    told: Mutex<Vec<String>>,
    /// What agents were given.
    given: Mutex<Vec<String>>,
    faults: Mutex<Vec<Fault>>,
    /// Requests of which it knows nothing.
    forgets: Mutex<Vec<String>>,
    /// What it gives for packs, by their ids.
    packs: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// The runner.
pub struct StandIn {
    directory: TempDir,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl StandIn {
    pub fn of(session: &Session) -> Self {
        let directory = tempfile::Builder::new().prefix("as").tempdir().unwrap();
        let shared = Arc::new(Shared {
            session_id: session.id.clone(),
            log_id: uuid(),
            log: watch::Sender::new(Vec::new()),
            told: Mutex::default(),
            given: Mutex::default(),
            faults: Mutex::default(),
            forgets: Mutex::default(),
            packs: Mutex::default(),
        });
        let listener = tokio::net::UnixListener::bind(directory.path().join("s.sock")).unwrap();
        let router = Router::new()
            .route("/health", get(health))
            .route("/events", any(events))
            .route("/messages", post(message))
            .route("/interrupts/{id}", post(answer))
            .route("/policy", put(policy))
            .route("/packs/{id}", get(pack).delete(settle))
            .with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let stand_in = Self { directory, shared, serving };
        stand_in.begin_attempt(1);
        stand_in
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("s.sock")
    }

    pub fn begin_attempt(&self, attempt: i32) {
        let value = json!({ "log_id": self.shared.log_id, "attempt": attempt, "resumed": attempt > 1 });
        self.record(json!({ "type": "CUSTOM", "name": "ambient.attempt_started", "value": value }));
    }

    pub fn record(&self, event: Value) {
        self.shared.record(event);
    }

    /// The agent asks.
    pub fn ask(&self, id: &str, command: &str) {
        self.record(json!({
            "type": "permission.requested", "interrupt_id": id, "turn_id": "t", "tool_call_id": "c", "title": format!("Run {command}"),
            "kind": "execute", "command": command, "fingerprint": command, "answers": ["once", "always", "reject"]
        }));
    }

    /// The next answers meet with this, the last first.
    pub fn fail(&self, faults: &[Fault]) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Offers a pack.
    pub fn offer(&self, id: &str, content: &[u8]) {
        self.shared.packs.lock().unwrap().insert(id.to_owned(), content.to_vec());
    }

    pub fn forget(&self, id: &str) {
        self.shared.forgets.lock().unwrap().push(id.to_owned());
    }

    pub fn told(&self) -> Vec<String> {
        self.shared.told.lock().unwrap().clone()
    }

    pub fn given(&self) -> Vec<String> {
        self.shared.given.lock().unwrap().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn record(&self, event: Value) {
        self.log.send_modify(|log| {
            let n = i64::try_from(log.len()).unwrap() + 1;
            log.push(Record { n, at: chrono::Utc::now(), event });
        });
    }

    fn has(&self, event_type: &str, id: &str) -> bool {
        let is_it = |record: &Record| record.event["type"] == event_type && record.event["interrupt_id"] == id;
        self.log.borrow().iter().any(is_it)
    }
}

async fn health(State(shared): State<Arc<Shared>>) -> Json<Health> {
    Json(Health {
        version: CONTRACT_VERSION,
        session_id: shared.session_id.clone(),
        run: 1,
        attempt: 1,
        log_id: shared.log_id.clone(),
        state: "working".to_owned(),
    })
}

async fn pack(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match shared.packs.lock().unwrap().get(&id) {
        Some(content) => content.clone().into_response(),
        None => {
            let error = RunnerError { code: "not_found".to_owned(), reason: "no such pack".to_owned(), field: None };
            (StatusCode::NOT_FOUND, Json(error)).into_response()
        }
    }
}

async fn settle(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> StatusCode {
    shared.told.lock().unwrap().push(format!("{} {id}", query["end"]));
    StatusCode::NO_CONTENT
}

async fn message(State(shared): State<Arc<Shared>>, Json(message): Json<DeliverMessage>) -> Json<Accepted> {
    shared.told.lock().unwrap().push(format!("message {}", message.text));
    Json(Accepted { id: message.id, new: true })
}

async fn policy(State(shared): State<Arc<Shared>>, Json(policy): Json<PermissionPolicy>) -> StatusCode {
    shared.told.lock().unwrap().push(format!("policy of {} rules", policy.rules.len()));
    StatusCode::NO_CONTENT
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Json(answer): Json<InterruptAnswer>,
) -> Response {
    let refuse = |status: StatusCode| {
        let error = RunnerError { code: "x".to_owned(), reason: "x".to_owned(), field: None };
        (status, Json(error)).into_response()
    };
    shared.told.lock().unwrap().push(format!("answer {id}"));
    let fault = shared.faults.lock().unwrap().pop();
    if fault == Some(Fault::Before) {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR);
    }
    if !shared.has("permission.requested", &id) || shared.forgets.lock().unwrap().contains(&id) {
        return refuse(StatusCode::NOT_FOUND);
    }
    let taken = !shared.has("permission.closed", &id);
    if taken {
        let event =
            json!({ "type": "permission.closed", "interrupt_id": id, "outcome": "answered", "answer": answer.answer });
        shared.record(event);
        shared.given.lock().unwrap().push(format!("{id} {:?}", answer.answer));
    }
    if fault == Some(Fault::After) {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR);
    }
    Json(AnswerTaken { interrupt_id: id, taken }).into_response()
}

async fn events(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| serve(shared, socket))
}

async fn serve(shared: Arc<Shared>, mut socket: WebSocket) {
    let Some(Ok(Message::Text(hello))) = socket.recv().await else { return };
    let hello: ReaderHello = serde_json::from_str(&hello).unwrap();
    let mut log = shared.log.subscribe();
    let mut sent = if hello.log_id == shared.log_id { hello.after } else { 0 };
    let last = i64::try_from(log.borrow().len()).unwrap();
    let welcome = RunnerFrame::Welcome { log_id: shared.log_id.clone(), last };
    if socket.send(frame(&welcome)).await.is_err() {
        return;
    }
    loop {
        let records: Vec<Record> = log.borrow_and_update().iter().filter(|record| record.n > sent).cloned().collect();
        if let Some(last) = records.last() {
            sent = last.n;
            if socket.send(frame(&RunnerFrame::Records { records })).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = log.changed() => if changed.is_err() { return },
            received = socket.recv() => if !matches!(received, Some(Ok(_))) { return },
        }
    }
}

fn frame(frame: &RunnerFrame) -> Message {
    Message::Text(serde_json::to_string(frame).unwrap().into())
}
