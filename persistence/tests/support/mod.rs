//! A database with the schema, and the shortest way from a command to an append item.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use std::time::Duration;

use ambient_domain::{
    Context, Decision, Defaults, Entity,
    project::{self, Project, ProjectSpec},
    session::{self, Fact, Message, Session, Spec},
};
use ambient_persistence::{
    AppendError, AppendItem, AppendPart, Appended, Change, Current, Database, DatabaseOptions, Metadata, RunnerBatch,
    RunnerLease, RunnerRecord, StoredEntity, TurnChanges, new_id, to_micros,
};
use ambient_tests::TestDatabase;
use chrono::Utc;
use serde_json::json;

pub struct Store {
    pub database: TestDatabase,
    pub db: Database,
}

pub async fn store() -> Store {
    let database = TestDatabase::new().await;
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    Store { database, db }
}

pub fn context() -> Context {
    Context {
        now: to_micros(Utc::now()),
        operation_id: new_id(),
        principal: "alice".to_owned(),
        defaults: Defaults::default(),
    }
}

/// What a command leads to.
pub fn decided<E: StoredEntity>(
    before: Option<&Current<E>>,
    command: &E::Command,
    bodies: &[&str],
) -> (AppendPart, Current<E>) {
    let (context, state) = (context(), before.map(|before| &before.state));
    let Decision::Events(events) = E::decide(state, command, &context).unwrap() else { panic!("nothing to do") };
    let mut after = events.iter().fold(state.cloned(), |s, e| Some(E::apply(s, e, context.now))).unwrap();
    after.set_version(state.map_or(0, E::version) + 1, context.now);
    let metadata = Metadata { correlation_id: "test".to_owned(), ..Metadata::default() };
    let bodies: Vec<String> = bodies.iter().map(|&body| body.to_owned()).collect();
    let (events, context, metadata, bodies) = (&events[..], &context, &metadata, &bodies[..]);
    let part = AppendPart::new(&Change { before, after: &after, command, events, context, metadata, bodies }).unwrap();
    let last_hash = part.hash();
    (part, Current { state: after, last_hash })
}

pub fn item<E: StoredEntity>(before: Option<&Current<E>>, command: &E::Command, bodies: &[&str]) -> AppendItem {
    let guards = E::guards(before.map(|before| &before.state), command);
    AppendItem { parts: vec![decided(before, command, bodies).0], guards, ..AppendItem::default() }
}

pub async fn append(db: &Database, item: AppendItem) -> Result<Appended, AppendError> {
    db.append(vec![item]).await.pop().unwrap()
}

/// Appends a command to the entity as it is in its row.
pub async fn apply<E: StoredEntity>(db: &Database, id: &str, command: &E::Command) -> Current<E> {
    let before = db.load_current::<E>(id).await.unwrap();
    let (part, after) = decided(before.as_ref(), command, &[]);
    let guards = E::guards(before.as_deref(), command);
    append(db, AppendItem { parts: vec![part], guards, ..AppendItem::default() }).await.unwrap();
    after
}

pub fn create_project(id: &str, name: &str) -> <Project as Entity>::Command {
    project::Command::Create {
        project_id: id.to_owned(),
        name: name.to_owned(),
        spec: Box::new(ProjectSpec::default()),
        owner: "alice".to_owned(),
    }
}

pub async fn new_project(db: &Database, name: &str) -> Current<Project> {
    let id = new_id();
    apply::<Project>(db, &id, &create_project(&id, name)).await
}

pub fn spec() -> Spec {
    serde_json::from_value(serde_json::json!({
        "display_name": "test", "agent_type": "script", "interactive": true, "inactivity_timeout": 0,
        "llm_temperature": 0.7, "llm_max_tokens": 4000
    }))
    .unwrap()
}

pub fn create_session(id: &str, project_id: &str, start: bool) -> session::Command {
    let (session_id, project_id) = (id.to_owned(), project_id.to_owned());
    session::Command::Create { session_id, project_id, spec: Box::new(spec()), start }
}

pub async fn new_session(db: &Database, project: &Project, start: bool) -> Current<Session> {
    let id = new_id();
    apply::<Session>(db, &id, &create_session(&id, &project.id, start)).await
}

pub fn fact(fact: Fact) -> session::Command {
    session::Command::Fact { run: 1, attempt: 1, fact }
}

pub fn message(text: &str) -> session::Command {
    session::Command::SendMessage { message: Message::of(text), start: false }
}

pub fn stop() -> session::Command {
    session::Command::Stop { reason: session::StopReason::UserStopped, seen_seq: None, run: None, force: false }
}

/// Records of a runner after others.
pub fn batch(session: &Session, lease: &RunnerLease, cursor_before: i64, count: i64) -> RunnerBatch {
    let record = |n| RunnerRecord {
        n,
        at: Utc::now(),
        event_type: "agent.text".to_owned(),
        data: json!({"type": "agent.text", "message_id": "m", "text": format!("{n}")}),
    };
    RunnerBatch {
        session_id: session.id.clone(),
        run: 1,
        epoch: lease.epoch,
        log_id: "log-1".to_owned(),
        cursor_before,
        changes: TurnChanges::default(),
        records: (cursor_before + 1..=cursor_before + count).map(record).collect(),
    }
}

/// The right to read its log.
pub async fn lease(db: &Database, session: &Session, holder: &str) -> Option<RunnerLease> {
    db.acquire_runner_lease(&session.id, 1, holder, Duration::from_secs(30)).await.unwrap()
}
