//! Whether what earlier releases have stored is still what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ambient_domain::{
    Context, Decision, Defaults, Entity,
    session::{Command, Session},
};
use ambient_tests::TestDatabase;
use serde_json::json;
use sqlx::PgPool;

use super::*;
use crate::{
    AppendItem, AppendPart, Change, Concerned, DatabaseOptions, EntityReplay, Metadata, canonical::sha256_hex, new_id,
    to_micros,
};

/// A session, changed once.
async fn session(db: &Database) -> String {
    session_with(db, json!([])).await
}

async fn session_with(db: &Database, repos: Value) -> String {
    let (id, project_id) = (new_id(), new_id());
    let spec = json!({"display_name": "test", "agent_type": "script", "interactive": true, "inactivity_timeout": 0,
        "llm_temperature": 0.7, "llm_max_tokens": 4000, "annotations": {"agent": "kept"},
        "repos": repos});
    let spec = Box::new(serde_json::from_value(spec).unwrap());
    let create = Command::Create { session_id: id.clone(), project_id, spec, start: false };
    let patch: Command = serde_json::from_value(json!({"command": "patch", "display_name": "changed"})).unwrap();
    for command in [create, patch] {
        let before = db.load_current::<Session>(&id).await.unwrap();
        let (operation_id, principal) = (new_id(), "alice".to_owned());
        let now = to_micros(chrono::Utc::now());
        let context = Context { now, operation_id, principal, defaults: Defaults::default() };
        let state = before.as_ref().map(|before| &before.state);
        let decided = Session::decide(state, &command, &context).unwrap();
        let Decision::Events(events) = decided else { panic!("nothing to do") };
        let mut after = events.iter().fold(state.cloned(), |s, e| Some(Session::apply(s, e, now))).unwrap();
        after.set_version(state.map_or(0, Session::version) + 1, now);
        let part = AppendPart::new(&Change {
            before: before.as_ref(),
            after: &after,
            command: &command,
            events: &events,
            context: &context,
            metadata: &Metadata::default(),
            bodies: &[],
        });
        db.append(vec![AppendItem { parts: vec![part.unwrap()], ..AppendItem::default() }])
            .await
            .pop()
            .unwrap()
            .unwrap();
    }
    id
}

/// Turns a session into what a release stored that called the agent type `agent` (schema version 1).
async fn under_the_former_name(pool: &PgPool, id: &str) {
    sqlx::raw_sql("alter table ambient.operations disable trigger operations_append_only").execute(pool).await.unwrap();
    let mut previous = GENESIS;
    for version in 1..=2_i64 {
        let sql = "update ambient.operations set schema_version = 1, previous_hash = $3,
                       input = convert_to(replace(convert_from(input, 'utf8'), '\"agent_type\"', '\"agent\"'), 'utf8'),
                       events = convert_to(replace(convert_from(events, 'utf8'), '\"agent_type\"', '\"agent\"'), 'utf8')
                   where entity_id = $1 and version = $2 returning *";
        let row = sqlx::query(sql).bind(id).bind(version).bind(&previous[..]).fetch_one(pool).await.unwrap();
        previous = hash_of(&row).unwrap();
        let sql = "update ambient.operations set hash = $3 where entity_id = $1 and version = $2";
        sqlx::query(sql).bind(id).bind(version).bind(&previous[..]).execute(pool).await.unwrap();
    }
    let sql = "update ambient.sessions set schema_version = 1, last_hash = $2,
                   spec = (spec - 'agent_type') || jsonb_build_object('agent', spec -> 'agent_type') where id = $1";
    sqlx::query(sql).bind(id).bind(&previous[..]).execute(pool).await.unwrap();
    let undone = "alter table ambient.operations enable trigger operations_append_only;
                  drop index ambient.sessions_of_agent;
                  alter table ambient.sessions drop column agent_id;
                  alter table ambient.sessions rename column agent_type to agent;
                  delete from ambient._migrations where version = 7";
    sqlx::raw_sql(undone).execute(pool).await.unwrap();
}

/// Turns a session into what a release stored that knew a branch to push to and no other output (schema version 2).
async fn under_a_branch_to_push_to(pool: &PgPool, id: &str) {
    const NOW: &str =
        r#"{"auto_push":true,"name":"r","output":{"push_to":"same","target_branch":"out"},"url":"file:///r"}"#;
    const THEN: &str = r#"{"name":"r","push_to":"out","url":"file:///r"}"#;
    sqlx::raw_sql("alter table ambient.operations disable trigger operations_append_only").execute(pool).await.unwrap();
    let mut previous = GENESIS;
    for version in 1..=2_i64 {
        let sql = "update ambient.operations set schema_version = 2, previous_hash = $3,
                       input = convert_to(replace(convert_from(input, 'utf8'), $4, $5), 'utf8'),
                       events = convert_to(replace(convert_from(events, 'utf8'), $4, $5), 'utf8')
                   where entity_id = $1 and version = $2 returning *";
        let query = sqlx::query(sql).bind(id).bind(version).bind(&previous[..]).bind(NOW).bind(THEN);
        previous = hash_of(&query.fetch_one(pool).await.unwrap()).unwrap();
        let sql = "update ambient.operations set hash = $3 where entity_id = $1 and version = $2";
        sqlx::query(sql).bind(id).bind(version).bind(&previous[..]).execute(pool).await.unwrap();
    }
    let sql = "update ambient.sessions set schema_version = 2, last_hash = $2,
                   spec = jsonb_set(spec, '{repos,0}', $3::jsonb) where id = $1";
    sqlx::query(sql).bind(id).bind(&previous[..]).bind(THEN).execute(pool).await.unwrap();
    let undone = "alter table ambient.operations enable trigger operations_append_only;
                  drop table ambient.session_runs;
                  delete from ambient._migrations where version = 16";
    sqlx::raw_sql(undone).execute(pool).await.unwrap();
}

/// Turns the database into what the release before migration 5 had: the spec in the state, no message count.
async fn before_the_spec_stood_apart(pool: &PgPool) {
    let undone = "update ambient.sessions set state = state || jsonb_build_object('spec', spec);
                  alter table ambient.sessions drop column spec;
                  alter table ambient.projects drop column spec;
                  alter table ambient.session_streams drop column messages;
                  alter table ambient.idempotency add column state jsonb;
                  drop index ambient.session_events_of_runner;
                  alter table ambient.session_events add unique (session_id, log_id, runner_seq);
                  drop function ambient.expect;
                  delete from ambient._migrations where version = 5";
    sqlx::raw_sql(undone).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_session_whose_spec_stood_in_its_state_is_what_it_was_and_its_messages_are_counted() {
    let database = TestDatabase::new().await;
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    let id = session(&db).await;
    let now = db.load::<Session>(&id).await.unwrap().unwrap();
    let said = "insert into ambient.session_events (session_id, seq, at, type, data)
                select $1, n, now(), case n % 2 when 0 then 'user.message' else 'TEXT_MESSAGE_CONTENT' end, '{}'
                from generate_series(1, 5) n";
    sqlx::query(said).bind(&id).execute(db.pool()).await.unwrap();
    before_the_spec_stood_apart(db.pool()).await;

    db.migrate().await.unwrap();
    let report = db.verify(&VerifyScope::default()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!((report.operations, db.load::<Session>(&id).await.unwrap().unwrap()), (2, now));
    assert_eq!(db.count_messages(&id).await.unwrap(), 2);
}

#[tokio::test]
async fn a_session_whose_agent_type_was_called_agent_is_what_it_was() {
    let database = TestDatabase::new().await;
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    let id = session(&db).await;
    let now = db.load::<Session>(&id).await.unwrap().unwrap();
    under_the_former_name(db.pool(), &id).await;
    let bytes = async || {
        let sql = "select input || events from ambient.operations where entity_id = $1 order by version";
        let all: Vec<Vec<u8>> = sqlx::query_scalar(sql).bind(&id).fetch_all(db.pool()).await.unwrap();
        all.iter().map(|one| sha256_hex(one)).collect::<Vec<_>>()
    };
    let stored = bytes().await;

    db.migrate().await.unwrap();
    assert_eq!(bytes().await, stored, "operations are never rewritten");
    let report = db.verify(&VerifyScope::default()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!(report.operations, 2);
    assert_eq!(db.load::<Session>(&id).await.unwrap().unwrap(), now);
    assert_eq!(db.load_at::<Session>(&id, 2).await.unwrap().unwrap(), now);
    let history = Concerned { entity_kind: "session".to_owned(), entity_id: id.clone(), from: 1, to: 2 };
    let mut folded = EntityReplay::of_kind("session").unwrap();
    for operation in db.logged_operations(&history, 0).await.unwrap() {
        assert!(operation.input.to_string().contains("\"agent\"") || operation.command == "patch");
        assert_eq!(folded.next(&operation, true), Ok(None));
    }
}

#[tokio::test]
async fn a_session_that_was_pushed_to_a_branch_is_what_it_was_with_that_branch_as_its_output() {
    let database = TestDatabase::new().await;
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    let repos = json!([
        {"name": "r", "url": "file:///r", "output": {"target_branch": "out"}, "auto_push": true},
        {"name": "s", "url": "file:///s", "branch": "main"},
    ]);
    let id = session_with(&db, repos).await;
    let now = db.load::<Session>(&id).await.unwrap().unwrap();
    assert_eq!(now.spec.repos[0].output.target_branch.as_deref(), Some("out"));
    under_a_branch_to_push_to(db.pool(), &id).await;

    db.migrate().await.unwrap();
    let report = db.verify(&VerifyScope::default()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!(db.load::<Session>(&id).await.unwrap().unwrap(), now);
    assert_eq!(db.load_at::<Session>(&id, 1).await.unwrap().unwrap().spec.repos, now.spec.repos);
    let history = Concerned { entity_kind: "session".to_owned(), entity_id: id.clone(), from: 1, to: 2 };
    let mut folded = EntityReplay::of_kind("session").unwrap();
    let operations = db.logged_operations(&history, 0).await.unwrap();
    assert!(operations.iter().all(|operation| operation.events.to_string().contains(r#""push_to":"out""#)));
    for operation in operations {
        assert_eq!(folded.next(&operation, true), Ok(None));
    }
}
