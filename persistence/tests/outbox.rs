//! Effects are carried out in the order of their entity, by one server at a time, and never forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use ambient_domain::session::{self, Session, workflow_id};
use ambient_persistence::{Database, EngineChoice, OutboxRow};
use support::*;

/// Longer than any test runs, however slow the machine: a claim or a wait ends here because it is done, or because the test ends it.
const CLAIM: Duration = Duration::from_secs(3600);

async fn drain(db: &Database) {
    while let chains @ [_, ..] = &db.claim_outbox(100, None, CLAIM).await.unwrap()[..] {
        let positions: Vec<i64> = chains.iter().flatten().map(|row| row.position).collect();
        db.complete_outbox(&positions).await.unwrap();
    }
}

/// What is due, entity by entity.
async fn claim(db: &Database, entities: i64) -> Vec<Vec<OutboxRow>> {
    db.claim_outbox(entities, None, CLAIM).await.unwrap()
}

fn ids(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter().map(|row| row.effect.workflow_id()).collect()
}

#[tokio::test]
async fn the_effects_of_an_entity_are_given_out_together_and_in_order_and_to_nobody_else() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    drain(&s.db).await;
    let (a, b) = (new_session(&s.db, &project, true).await, new_session(&s.db, &project, true).await);
    let (supervise_a, start_a) = (workflow_id::supervise(&a.id, 1), workflow_id::start(&a.id, 1, 1));
    let (supervise_b, start_b) = (workflow_id::supervise(&b.id, 1), workflow_id::start(&b.id, 1, 1));
    let first = claim(&s.db, 100).await;
    assert_eq!(
        first.iter().map(|chain| ids(chain)).collect::<Vec<_>>(),
        [[&start_a, &supervise_a], [&start_b, &supervise_b]]
    );
    assert!(claim(&s.db, 100).await.is_empty(), "claimed ones are not given out twice");
    s.db.complete_outbox(&[first[0][0].position]).await.unwrap();
    assert!(s.db.outbox_pending_for(&supervise_a).await.unwrap());
    let second = claim(&s.db, 100).await;
    assert_eq!((second.len(), ids(&second[0])), (1, vec![supervise_a.as_str()]), "b's first is still open");

    // A retry keeps its place: nothing of the entity overtakes it.
    s.db.retry_outbox(second[0][0].position, CLAIM, "engine away").await.unwrap();
    apply::<Session>(&s.db, &a.id, &session::Command::Delete).await;
    assert!(claim(&s.db, 100).await.is_empty());
    s.db.retry_outbox(second[0][0].position, Duration::ZERO, "engine away").await.unwrap();
    let again = claim(&s.db, 100).await;
    assert_eq!((ids(&again[0])[0], again[0][0].attempts, again[0].len()), (supervise_a.as_str(), 2, 5));

    // What cannot be carried out is set aside, and the entity's later effects go on.
    s.db.park_outbox(again[0][0].position, "unknown workflow type").await.unwrap();
    assert_eq!(s.db.outbox_parked_for(&supervise_a).await.unwrap().as_deref(), Some("unknown workflow type"));
    assert_eq!(ids(&claim(&s.db, 100).await[0])[0], start_a, "the delete's cancel of session-start");
    let counts = s.db.outbox_counts().await.unwrap();
    assert_eq!((counts.open, counts.parked), (6, 1));
}

#[tokio::test]
async fn nothing_is_given_out_for_another_engine_than_the_chosen_one() {
    let s = store().await;
    new_project(&s.db, "demo").await;
    let chosen = s.db.engine_choice("embedded", "").await.unwrap();
    let other = EngineChoice { engine: "temporal".to_owned(), ..chosen.clone() };
    assert!(s.db.claim_outbox(100, Some(&other), CLAIM).await.unwrap().is_empty());
    assert!(s.db.claim_outbox(100, None, CLAIM).await.unwrap().is_empty());
    assert_eq!(s.db.claim_outbox(100, Some(&chosen), CLAIM).await.unwrap().len(), 1);
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
                let rows: Vec<OutboxRow> = claim(&db, 3).await.into_iter().flatten().collect();
                let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
                db.complete_outbox(&positions).await.unwrap();
                seen.extend(rows.into_iter().map(|row| (std::time::Instant::now(), row)));
            }
            seen
        })
    });
    let mut all: Vec<_> = futures::future::join_all(dispatchers).await.into_iter().flat_map(Result::unwrap).collect();
    all.sort_by_key(|(at, _)| *at);
    assert_eq!(all.len(), 20 * 6 + 1);
    let mut last = std::collections::HashMap::new();
    for (_, row) in &all {
        assert!(row.attempts <= 1);
        let before = last.insert(row.entity_id.clone(), row.position).unwrap_or(0);
        assert!(before < row.position, "in order of the entity");
    }
}

#[tokio::test]
async fn a_claim_of_a_server_that_died_comes_back_and_one_that_is_renewed_does_not() {
    let s = store().await;
    new_project(&s.db, "demo").await;
    let row = claim(&s.db, 1).await.remove(0).remove(0);
    // The claim runs out on the database's clock; the test moves the claim, not the clock.
    let elapse = async || {
        sqlx::query("update ambient.outbox set claimed_until = now() - interval '1 second'")
            .execute(s.db.pool())
            .await
            .unwrap();
    };
    elapse().await;
    s.db.renew_claims(&[row.position], CLAIM).await.unwrap();
    assert!(claim(&s.db, 1).await.is_empty());
    elapse().await;
    let again = claim(&s.db, 1).await.remove(0).remove(0);
    assert_eq!((again.position, again.attempts), (row.position, 2));
    assert!(ids(&[again])[0].starts_with("project-provision/"));
    // One that lasts a moment ends by itself.
    s.db.renew_claims(&[row.position], Duration::from_millis(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(claim(&s.db, 1).await[0][0].attempts, 3);
}
