//! A database with the schema, actors on it, and the commands tests use most.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

use ambient_actors::{ActorOptions, Actors, CallError, Caller, IdempotencyKey, Reply, Request};
use ambient_domain::{
    Entity,
    project::{self, Project, ProjectSpec},
    session::{self, Fact, Session, Spec},
};
use ambient_persistence::{Database, DatabaseOptions, Hints, StoredEntity, VerifyScope, new_id};
use ambient_tests::TestDatabase;

pub struct World {
    pub database: TestDatabase,
    pub db: Database,
    pub hints: Hints,
    pub actors: Actors,
}

pub async fn world() -> World {
    world_with(ActorOptions::default()).await
}

pub async fn world_with(options: ActorOptions) -> World {
    let database = TestDatabase::new().await;
    let db = connect(&database.url()).await;
    db.migrate().await.unwrap();
    let hints = Hints::local();
    let actors = Actors::start(db.clone(), hints.clone(), options);
    World { database, db, hints, actors }
}

pub async fn connect(url: &str) -> Database {
    Database::connect(url, DatabaseOptions::default()).await.unwrap()
}

impl World {
    /// Another server on the same database.
    pub async fn second(&self) -> Actors {
        Actors::start(connect(&self.database.url()).await, Hints::local(), ActorOptions::default())
    }

    pub async fn verify_clean(&self) {
        let report = self.db.verify(&VerifyScope::default()).await.unwrap();
        assert!(report.is_clean(), "{:#?}", report.divergences);
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.db.pool()).await.unwrap()
    }
}

pub fn caller() -> Caller {
    Caller { principal: "alice".to_owned(), ..Caller::default() }
}

pub fn key(key: &str, body: &[u8]) -> IdempotencyKey {
    IdempotencyKey {
        method: "POST".to_owned(),
        path: "/x".to_owned(),
        key: key.to_owned(),
        request_hash: body.to_vec(),
    }
}

pub async fn ask<E: StoredEntity>(actors: &Actors, id: &str, command: E::Command) -> Result<Reply<E>, CallError> {
    actors.call::<E>(id, Request::new(command, caller())).await
}

pub fn create_project_command(id: &str, name: &str) -> <Project as Entity>::Command {
    project::Command::Create {
        project_id: id.to_owned(),
        name: name.to_owned(),
        spec: Box::new(ProjectSpec::default()),
        owner: "alice".to_owned(),
    }
}

pub async fn new_project(actors: &Actors, name: &str) -> String {
    let id = new_id();
    ask::<Project>(actors, &id, create_project_command(&id, name)).await.unwrap();
    id
}

pub fn spec() -> Spec {
    serde_json::from_value(serde_json::json!({
        "display_name": "test", "agent_type": "script", "interactive": true, "inactivity_timeout": 0,
        "llm_temperature": 0.7, "llm_max_tokens": 4000, "prompt": "say hello"
    }))
    .unwrap()
}

pub fn create_session_command(id: &str, project_id: &str, start: bool) -> session::Command {
    let (session_id, project_id) = (id.to_owned(), project_id.to_owned());
    session::Command::Create { session_id, project_id, spec: Box::new(spec()), start }
}

pub async fn new_session(actors: &Actors, project_id: &str, start: bool) -> String {
    let id = new_id();
    ask::<Session>(actors, &id, create_session_command(&id, project_id, start)).await.unwrap();
    id
}

pub fn fact(run: i64, attempt: i32, fact: Fact) -> session::Command {
    session::Command::Fact { run, attempt, fact }
}

pub fn stop() -> session::Command {
    session::Command::Stop { reason: session::StopReason::UserStopped, seen_seq: None, run: None, force: false }
}

pub fn start() -> session::Command {
    session::Command::Start { prompt: None }
}

pub fn torn_down(run: i64) -> session::Command {
    fact(run, 0, Fact::TornDown { evidence: vec!["looked".to_owned()], not_run: Vec::new() })
}
