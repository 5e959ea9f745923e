//! Effects are carried out in the order of their entity, by one server at a time, and never forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use ambient_domain::session::{self, Session, workflow_id};
use ambient_persistence::{Database, OutboxRow};
use support::*;

async fn drain(db: &Database) {
    while let rows @ [_, ..] = &db.claim_outbox(100).await.unwrap()[..] {
        for row in rows {
            db.complete_outbox(row.position).await.unwrap();
        }
    }
}

fn ids(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter().map(|row| row.effect.workflow_id()).collect()
}

#[tokio::test]
async fn a_row_is_given_out_only_when_no_earlier_one_of_its_entity_is_open() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    drain(&s.db).await;
    let (a, b) = (new_session(&s.db, &project, true).await, new_session(&s.db, &project, true).await);
    let first = s.db.claim_outbox(100).await.unwrap();
    let (supervise_a, supervise_b) = (workflow_id::supervise(&a.id, 1), workflow_id::supervise(&b.id, 1));
    assert_eq!(ids(&first), [&supervise_a, &supervise_b], "supervise before start");
    assert_eq!(s.db.claim_outbox(100).await.unwrap(), [], "claimed rows are not given out twice");
    s.db.complete_outbox(first[0].position).await.unwrap();
    let start_a = workflow_id::start(&a.id, 1, 1);
    assert!(s.db.outbox_pending_for(&start_a).await.unwrap());
    let second = s.db.claim_outbox(100).await.unwrap();
    assert_eq!(ids(&second), [&start_a], "b's first is still open");

    // A retry keeps its place: nothing of the entity overtakes it.
    s.db.retry_outbox(second[0].position, Duration::from_millis(50), "engine away").await.unwrap();
    apply::<Session>(&s.db, &a.id, &session::Command::Delete).await;
    assert_eq!(s.db.claim_outbox(100).await.unwrap(), []);
    let again = loop {
        let rows = s.db.claim_outbox(100).await.unwrap();
        if !rows.is_empty() {
            break rows;
        }
    };
    assert_eq!((ids(&again), again[0].attempts), (vec![start_a.as_str()], 2));

    // What cannot be carried out is set aside, and the entity's later effects go on.
    s.db.park_outbox(again[0].position, "unknown workflow type").await.unwrap();
    assert_eq!(s.db.outbox_parked_for(&start_a).await.unwrap().as_deref(), Some("unknown workflow type"));
    assert_eq!(ids(&s.db.claim_outbox(100).await.unwrap()), [&start_a], "the delete's cancel of session-start");
    let counts = s.db.outbox_counts().await.unwrap();
    assert_eq!((counts.open, counts.parked), (6, 1));
}

#[tokio::test]
async fn two_dispatchers_at_once_never_get_the_same_row_nor_break_the_order() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    for _ in 0..20 {
        let session = new_session(&s.db, &project, true).await;
        apply::<Session>(&s.db, &session.id, &stop()).await;
    }
    let dispatchers = (0..4).map(|_| {
        let db = s.db.clone();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while db.outbox_counts().await.unwrap().open > 0 {
                for row in db.claim_outbox(3).await.unwrap() {
                    db.complete_outbox(row.position).await.unwrap();
                    seen.push((std::time::Instant::now(), row));
                }
            }
            seen
        })
    });
    let mut all: Vec<_> = futures::future::join_all(dispatchers).await.into_iter().flat_map(Result::unwrap).collect();
    all.sort_by_key(|(at, _)| *at);
    assert_eq!(all.len(), 20 * 6 + 1);
    let mut last = std::collections::HashMap::new();
    for (_, row) in &all {
        assert_eq!(row.attempts, 1);
        let before = last.insert(row.entity_id.clone(), row.position).unwrap_or(0);
        assert!(before < row.position, "in order of the entity");
    }
}

#[tokio::test]
async fn a_claim_of_a_server_that_died_comes_back() {
    let s = store().await;
    new_project(&s.db, "demo").await;
    let row = s.db.claim_outbox(1).await.unwrap().remove(0);
    // The claim runs out on the database's clock; the test moves the claim, not the clock.
    sqlx::query("update ambient.outbox set claimed_until = now() - interval '1 second'")
        .execute(s.db.pool())
        .await
        .unwrap();
    let again = s.db.claim_outbox(1).await.unwrap().remove(0);
    assert_eq!((again.position, again.attempts), (row.position, 2));
    assert!(ids(&[again])[0].starts_with("project-provision/"));
}
