//! Appends: all or nothing per item, whatever the other items in its batch do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_domain::{
    Guard,
    project::{self, Project},
    session::{self, Session, SessionPatch},
};
use ambient_persistence::{
    AppendError, AppendItem, Current, Database, DatabaseOptions, IdempotencyKey, IdempotencyRecord, RecordedOutcome,
    StoreError, VerifyScope, new_id,
};
use ambient_tests::TestDatabase;
use support::*;

fn rename(name: &str) -> session::Command {
    session::Command::Patch(SessionPatch { display_name: Some(name.to_owned()), ..SessionPatch::default() })
}

#[tokio::test]
async fn several_servers_may_migrate_at_once_and_a_changed_migration_is_noticed() {
    let database = TestDatabase::empty().await;
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
    let at_once = futures::future::join_all((0..4).map(|_| db.migrate())).await;
    assert!(at_once.iter().all(Result::is_ok));
    sqlx::query("update ambient._migrations set checksum = '\\x00'").execute(db.pool()).await.unwrap();
    assert!(matches!(db.migrate().await, Err(StoreError::Migration(_))));
}

#[tokio::test]
async fn an_item_that_conflicts_leaves_the_others_of_its_batch_in() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let (a, b, c) = (new_session(&s.db, &project, true).await, new_session(&s.db, &project, true).await, new_id());
    apply::<Session>(&s.db, &b.id, &rename("changed meanwhile")).await;
    let active = Guard::ProjectActive { project_id: new_id() };
    let batch = vec![
        item(Some(&a), &message("hello"), &[]),
        item(Some(&b), &rename("too late"), &[]),
        item::<Project>(None, &create_project(&new_id(), "demo"), &[]),
        item::<Project>(None, &create_project(&new_id(), "other"), &[]),
        item::<Project>(None, &create_project(&new_id(), "other"), &[]),
        item::<Session>(None, &create_session(&c, &project.id, false), &[]),
        item(Some(&a), &rename("second of the batch"), &[]),
        AppendItem { guards: vec![active.clone()], ..item(Some(&b), &rename("never"), &[]) },
    ];
    let results = s.db.append(batch).await;
    assert_eq!(results[0].as_ref().unwrap().last_seq, Some(2));
    assert!(matches!(&results[1], Err(AppendError::Conflict { id, actual: 2, .. }) if *id == b.id), "{results:?}");
    assert!(matches!(&results[2], Err(AppendError::NameTaken { name, .. }) if name == "demo"));
    assert!(results[3].is_ok());
    assert!(matches!(&results[4], Err(AppendError::NameTaken { name, .. }) if name == "other"));
    assert!(results[5].is_ok());
    assert!(matches!(&results[6], Err(AppendError::Conflict { id, actual: 2, .. }) if *id == a.id));
    // The version comes first: only for a decision on the current state is it worth checking the conditions.
    assert!(matches!(&results[7], Err(AppendError::Conflict { .. })));
    let b_now = s.db.load_current::<Session>(&b.id).await.unwrap().unwrap();
    let guarded = AppendItem { guards: vec![active.clone()], ..item(Some(&b_now), &rename("never"), &[]) };
    assert!(matches!(append(&s.db, guarded).await, Err(AppendError::Guard(guard)) if guard == active));
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

#[tokio::test]
async fn a_long_spec_is_written_when_it_changes_and_not_by_a_fact() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    // What does not compress stands outside the row; no column shows a temperature.
    let noise: String = (0..10_000).map(|_| new_id()).collect();
    let spec = Box::new(session::Spec { prompt: Some(noise), ..spec() });
    let (session_id, project_id) = (new_id(), project.id.clone());
    let create = session::Command::Create { session_id: session_id.clone(), project_id, spec, start: false };
    let session = apply::<Session>(&s.db, &session_id, &create).await;
    let patch = SessionPatch { llm_temperature: Some(0.2), ..SessionPatch::default() };
    apply::<Session>(&s.db, &session.id, &session::Command::Patch(patch)).await;
    let outside = async || {
        let sql = "select pg_relation_size(reltoastrelid) from pg_class where oid = 'ambient.sessions'::regclass";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(s.db.pool()).await.unwrap()
    };
    let before = outside().await;
    assert!(before > 100_000, "{before}");
    apply::<Session>(&s.db, &session.id, &session::Command::Start { prompt: None }).await;
    apply::<Session>(&s.db, &session.id, &fact(session::Fact::Provisioning)).await;
    apply::<Session>(&s.db, &session.id, &message("hello")).await;
    assert_eq!(outside().await, before);
    let now = s.db.load::<Session>(&session.id).await.unwrap().unwrap();
    assert!((now.spec.llm_temperature - 0.2).abs() < 1e-9 && now.spec.prompt.unwrap().len() == 270_000);
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

#[tokio::test]
async fn a_key_that_was_used_leaves_the_others_of_its_batch_in() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let (a, b) = (new_session(&s.db, &project, true).await, new_session(&s.db, &project, true).await);
    let keyed = |session: &Current<Session>, key: &str| {
        let (part, after) = decided(Some(session), &message("hello"), &[]);
        let key = IdempotencyKey {
            principal: "alice".to_owned(),
            method: "POST".to_owned(),
            path: "/messages".to_owned(),
            key: key.to_owned(),
        };
        let record = IdempotencyRecord::new(key, vec![1], None, RecordedOutcome::Applied, &after.state).unwrap();
        AppendItem { parts: vec![part], idempotency: Some(record), ..AppendItem::default() }
    };
    // Both at once, the same key: one of them is in.
    let results = s.db.append(vec![keyed(&a, "k"), keyed(&b, "k")]).await;
    assert!(results[0].is_ok() && matches!(results[1], Err(AppendError::KeyUsed)), "{results:?}");
    let a = s.db.load_current::<Session>(&a.id).await.unwrap().unwrap();
    let results = s.db.append(vec![keyed(&a, "other"), keyed(&b, "k")]).await;
    assert!(results[0].is_ok() && matches!(results[1], Err(AppendError::KeyUsed)), "{results:?}");
    assert_eq!(s.db.current_version::<Session>(&b.id).await.unwrap(), Some(1));
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

/// Two servers write the same entities in batches, each decided on what it has read: whoever is overtaken is told so, nobody waits
/// for ever, and nothing is written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_write_batches_of_the_same_entities_neither_deadlock_nor_lose_anything() {
    const ENTITIES: usize = 24;
    const ROUNDS: usize = 12;
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let mut ids = Vec::new();
    for _ in 0..ENTITIES {
        ids.push(new_session(&s.db, &project, true).await.id.clone());
    }
    let servers = (0..2).map(|server| {
        let (url, mut ids) = (s.database.url(), ids.clone());
        tokio::spawn(async move {
            let db = Database::connect(&url, DatabaseOptions::default()).await.unwrap();
            if server == 1 {
                ids.reverse();
            }
            let mut written = 0;
            for _ in 0..ROUNDS {
                let mut batch = Vec::new();
                for id in &ids {
                    let before = db.load_current::<Session>(id).await.unwrap().unwrap();
                    batch.push(item(Some(&before), &message("hello"), &[]));
                }
                for result in db.append(batch).await {
                    match result {
                        Ok(_) => written += 1,
                        Err(AppendError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            written
        })
    });
    let servers: Vec<_> = servers.collect();
    let mut written = 0;
    for server in servers {
        written += server.await.unwrap();
    }
    let mut versions = 0;
    for id in &ids {
        versions += s.db.current_version::<Session>(id).await.unwrap().unwrap() - 1;
    }
    assert_eq!(versions, written);
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(s.db.pool()).await.unwrap(), 0);
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

#[tokio::test]
async fn an_item_over_two_entities_is_all_or_nothing() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let parts = |session: &Current<Session>| {
        vec![decided(Some(session), &stop(), &[]).0, decided(Some(&project), &project::Command::Delete, &[]).0]
    };
    apply::<Session>(&s.db, &session.id, &rename("changed meanwhile")).await;
    let stale = AppendItem { parts: parts(&session), ..AppendItem::default() };
    assert!(matches!(append(&s.db, stale).await, Err(AppendError::Conflict { kind: "session", .. })));
    assert_eq!(s.db.current_version::<Project>(&project.id).await.unwrap(), Some(1));
    let session = s.db.load_current::<Session>(&session.id).await.unwrap().unwrap();
    append(&s.db, AppendItem { parts: parts(&session), ..AppendItem::default() }).await.unwrap();
    assert_eq!(s.db.current_version::<Project>(&project.id).await.unwrap(), Some(2));
    assert_eq!(s.db.current_version::<Session>(&session.id).await.unwrap(), Some(3));
}

#[tokio::test]
async fn an_item_that_is_in_already_is_a_success_and_changes_nothing() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let send = item(Some(&session), &message("hello"), &[]);
    assert!(!append(&s.db, send.clone()).await.unwrap().repeated);
    apply::<Session>(&s.db, &session.id, &rename("later")).await;
    assert!(append(&s.db, send).await.unwrap().repeated);
    let create = item::<Project>(None, &create_project(&new_id(), "other"), &[]);
    assert!(!append(&s.db, create.clone()).await.unwrap().repeated);
    assert!(append(&s.db, create).await.unwrap().repeated);
    assert_eq!(s.db.last_seq(&session.id).await.unwrap(), 2);
}

#[tokio::test]
async fn seq_is_gapless_and_in_commit_order_under_sixteen_writers() {
    const WRITERS: usize = 16;
    const EACH: usize = 12;
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let session = new_session(&s.db, &project, true).await;
    let reader = tokio::spawn(follow(s.db.clone(), session.id.clone(), 1 + (WRITERS * EACH) as i64));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (db, id) = (s.db.clone(), session.id.clone());
        writers.push(tokio::spawn(async move {
            for n in 0..EACH {
                let text = format!("{writer}/{n}");
                loop {
                    let before = db.load_current::<Session>(&id).await.unwrap().unwrap();
                    let send = item(Some(&before), &message(&text), &[&text]);
                    match append(&db, send).await {
                        Ok(_) => break,
                        Err(AppendError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let texts = reader.await.unwrap();
    assert_eq!(texts.len(), WRITERS * EACH);
    for writer in 0..WRITERS {
        let mine: Vec<_> = texts.iter().filter(|t| t.starts_with(&format!("{writer}/"))).cloned().collect();
        let expected: Vec<_> = (0..EACH).map(|n| format!("{writer}/{n}")).collect();
        assert_eq!(mine, expected, "each writer's messages are in the order it wrote them, none twice");
    }
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

/// Reads while others write: a seq that was skipped would never be seen.
async fn follow(db: ambient_persistence::Database, id: String, last: i64) -> Vec<String> {
    let (mut after, mut texts) = (0, Vec::new());
    while after < last {
        for event in db.read_events(&id, after, 50).await.unwrap() {
            assert_eq!(event.seq, after + 1, "no gap, at any moment");
            after = event.seq;
            texts.extend(event.data.get("text").and_then(|t| t.as_str()).map(str::to_owned));
        }
    }
    texts
}

#[tokio::test]
async fn an_entity_can_be_read_as_it_was_at_any_version_and_time() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let first = new_session(&s.db, &project, false).await;
    let second = apply::<Session>(&s.db, &first.id, &rename("second")).await;
    let third = apply::<Session>(&s.db, &first.id, &session::Command::Delete).await;
    for state in [&first, &second, &third].map(|current| &current.state) {
        assert_eq!(s.db.load_at::<Session>(&first.id, state.version).await.unwrap().as_ref(), Some(state));
        assert_eq!(s.db.load_at_time::<Session>(&first.id, state.updated_at).await.unwrap().as_ref(), Some(state));
    }
    assert_eq!(s.db.load_at::<Session>(&first.id, 4).await.unwrap(), None);
    let before = first.created_at - chrono::Duration::seconds(1);
    assert_eq!(s.db.load_at_time::<Session>(&first.id, before).await.unwrap(), None);
}
