//! Whatever is changed behind the operations' back is found and named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::session::{self, Fact, Session, SessionPatch};
use ambient_persistence::VerifyScope;
use sqlx::AssertSqlSafe;
use support::*;

#[tokio::test]
async fn a_changed_byte_is_found_and_named() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let other = new_session(&s.db, &project, true).await;
    for command in [fact(Fact::Provisioning), fact(Fact::MarkRunning), message("hi"), stop()] {
        apply::<Session>(&s.db, &session.id, &command).await;
    }
    let clean = s.db.verify(&VerifyScope::default()).await.unwrap();
    assert!(clean.is_clean(), "{:?}", clean.divergences);
    assert_eq!((clean.operations, clean.entities["project"], clean.entities["session"]), (7, 1, 2));

    let op = |set: &str, version: i64| {
        format!("update ambient.operations set {set} where entity_id = '{}' and version = {version}", session.id)
    };
    let row = |set: &str| format!("update ambient.sessions set {set} where id = '{}'", session.id);
    let flip = |column: &str| format!("{column} = set_byte({column}, 20, get_byte({column}, 20) # 1)");
    let delete = format!("delete from ambient.operations where entity_id = '{}' and version = ", session.id);
    let cases = [
        (op(&flip("events"), 2), 2, "does not match its hash"),
        (op(&flip("input"), 3), 3, "does not match its hash"),
        (op(&flip("context"), 1), 1, "does not match its hash"),
        (op("principal = 'mallory'", 4), 4, "does not match its hash"),
        (op("occurred_at = occurred_at + interval '1 microsecond'", 4), 4, "does not match its hash"),
        (op(&flip("hash"), 3), 3, "does not match its hash"),
        (format!("{delete} 3"), 3, "version 3 is missing"),
        (format!("{delete} 5"), 5, "version 5 is missing"),
        (row("phase = 'Running'"), 5, "phase is \"Running\", its operations give \"Stopping\""),
        (row("state = jsonb_set(state, '{lifecycle,run,attempt}', '2')"), 5, "state.lifecycle.run.attempt is 2"),
        (row("state = state || '{\"extra\": 1}'"), 5, "state.extra is 1"),
        (row("labels = '{\"a\": \"b\"}'"), 5, "labels.a is \"b\""),
        (row("updated_at = updated_at + interval '1 microsecond'"), 5, "updated_at is"),
        (row("last_hash = '\\x00'"), 5, "last_hash is"),
        (format!("delete from ambient.sessions where id = '{}'", session.id), 5, "there is no row"),
    ];
    for (sql, version, words) in cases {
        let undo = tamper(&s, &sql).await;
        let report = s.db.verify(&VerifyScope::default()).await.unwrap();
        let [found] = &report.divergences[..] else { panic!("{sql}: {:?}", report.divergences) };
        assert_eq!((found.kind, &found.id, found.version), ("session", &session.id, version), "{sql}: {found}");
        assert!(found.to_string().contains(words), "{sql}: {found}");
        undo.restore(&s).await;
    }
    let untouched = VerifyScope { entity_id: Some(other.id.clone()), ..VerifyScope::default() };
    assert_eq!(s.db.verify(&untouched).await.unwrap().operations, 1);
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

/// Copies of the tables as they were.
struct Undo;

async fn tamper(s: &Store, sql: &str) -> Undo {
    let sql = format!(
        "create table saved_operations as select * from ambient.operations;
         create table saved_sessions as select * from ambient.sessions;
         alter table ambient.operations disable trigger operations_append_only;
         {sql}"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(s.db.pool()).await.unwrap();
    Undo
}

impl Undo {
    async fn restore(self, s: &Store) {
        let sql = "delete from ambient.operations;
                   insert into ambient.operations overriding system value select * from saved_operations;
                   delete from ambient.sessions;
                   insert into ambient.sessions select * from saved_sessions;
                   alter table ambient.operations enable trigger operations_append_only;
                   drop table saved_operations, saved_sessions";
        sqlx::raw_sql(sql).execute(s.db.pool()).await.unwrap();
    }
}

#[tokio::test]
async fn operations_cannot_be_changed_by_accident() {
    let s = store().await;
    new_project(&s.db, "demo").await;
    for sql in [
        "update ambient.operations set principal = 'x'",
        "delete from ambient.operations",
        "truncate ambient.operations",
    ] {
        let error = sqlx::query(sql).execute(s.db.pool()).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn a_message_body_is_in_the_live_log_and_never_in_an_operation() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let send = item(Some(&session), &message("canary-5d1f"), &["something else", "canary-5d1f"]);
    append(&s.db, send).await.unwrap();
    let event = s.db.read_events(&session.id, 1, 10).await.unwrap().remove(0);
    assert_eq!((event.data["text"].as_str(), event.run), (Some("canary-5d1f"), Some(1)));
    let found: i64 = sqlx::query_scalar(
        "select count(*) from ambient.operations
         where position(convert_to('canary-5d1f', 'UTF8') in input || events || context) > 0",
    )
    .fetch_one(s.db.pool())
    .await
    .unwrap();
    assert_eq!(found, 0);
    let patch = SessionPatch { display_name: Some("x".to_owned()), ..SessionPatch::default() };
    apply::<Session>(&s.db, &session.id, &session::Command::Patch(patch)).await;
    assert_eq!(s.db.last_seq(&session.id).await.unwrap(), 2, "a change that nobody follows leaves no event");
}
