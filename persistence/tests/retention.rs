//! Retention removes what a snapshot covers of sessions that are over, once, and says so; and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use ambient_domain::{
    project::Project,
    retention::KeptDays,
    session::{Command, Fact, Session, SessionPatch, StopReason},
};
use ambient_persistence::{Current, Database, RemovedEvents, RunnerBatch, RunnerRecord, TurnChanges, VerifyScope};
use chrono::Utc;
use serde_json::json;
use support::*;

const EVENTS: i64 = 20;

fn torn_down() -> Command {
    fact(Fact::TornDown { evidence: vec!["nothing is left".to_owned()], not_run: Vec::new() })
}

/// A session with a runner's log, which is Stopping.
async fn stopping(db: &Database, project: &Current<Project>) -> String {
    let id = new_session(db, project, true).await.id.clone();
    apply::<Session>(db, &id, &fact(Fact::Provisioning)).await;
    db.place_session(&id, "here").await.unwrap();
    let lease = db.acquire_runner_lease(&id, 1, "me", Duration::from_secs(30)).await.unwrap().unwrap();
    let record = |n| RunnerRecord {
        n,
        at: Utc::now(),
        event_type: "agent.text".to_owned(),
        data: json!({"type": "agent.text", "message_id": "m", "text": format!("{n}")}),
    };
    let batch = RunnerBatch {
        session_id: id.clone(),
        run: 1,
        epoch: lease.epoch,
        log_id: "log-1".to_owned(),
        cursor_before: 0,
        changes: TurnChanges::default(),
        records: (1..=EVENTS).map(record).collect(),
    };
    db.append_runner_events(batch).await.unwrap();
    db.release_runner_lease(&lease).await.unwrap();
    apply::<Session>(db, &id, &stop()).await;
    id
}

/// Compacts, as the end of a run does; the seq it covers.
async fn covered(db: &Database, id: &str) -> i64 {
    let last = db.last_seq(id).await.unwrap();
    db.put_snapshot(id, last, &json!({"messages": []})).await.unwrap();
    last
}

/// A session that ended so many days ago; the seq that its snapshot covers.
async fn over(db: &Database, project: &Current<Project>, days: i32) -> (String, i64) {
    let id = stopping(db, project).await;
    let covers = covered(db, &id).await;
    apply::<Session>(db, &id, &torn_down()).await;
    age(db, &id, days).await;
    (id, covers)
}

async fn age(db: &Database, id: &str, days: i32) {
    let snapshot = "update ambient.snapshots set created_at = now() - make_interval(days => $2) where session_id = $1";
    let activity =
        "update ambient.session_runtime set last_activity_at = now() - make_interval(days => $2) where session_id = $1";
    for sql in [snapshot, activity] {
        sqlx::query(sql).bind(id).bind(days).execute(db.pool()).await.unwrap();
    }
}

async fn seqs(db: &Database, id: &str) -> Vec<i64> {
    db.read_events(id, 0, 1_000).await.unwrap().iter().map(|event| event.seq).collect()
}

async fn label(db: &Database, id: &str, value: Option<&str>) {
    let labels = BTreeMap::from([("retention".to_owned(), value.map(str::to_owned))]);
    apply::<Session>(db, id, &Command::Patch(SessionPatch { labels: Some(labels), ..SessionPatch::default() })).await;
}

#[tokio::test]
async fn events_below_the_snapshot_go_in_batches_and_what_went_is_known_at_every_moment() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let (id, covers) = over(&s.db, &project, 30).await;
    let last = s.db.last_seq(&id).await.unwrap();
    assert!(last > covers, "the end of the run comes after its snapshot");
    let preview = KeptDays { events: 30, workspaces: 30, snapshots: 0 };
    let due = s.db.retention_preview(&project.id, preview, 10).await.unwrap();
    assert_eq!((due.len(), due[0].events, due[0].workspace, due[0].all_events), (1, covers, true, covers));
    assert!(due[0].event_bytes >= covers * 20, "{due:?}");
    assert_eq!(s.db.sessions_with_old_events(&project.id, 30, 10).await.unwrap(), [&*id]);
    assert_eq!(s.db.sessions_with_old_events(&project.id, 31, 10).await.unwrap(), [""; 0]);
    assert_eq!(s.db.remove_old_events(&id, 31, 7).await.unwrap(), None);

    let mut removed = 0;
    loop {
        let RemovedEvents { events, bytes, more } = s.db.remove_old_events(&id, 30, 7).await.unwrap().unwrap();
        assert!(bytes > 0 || events == 0);
        removed += events;
        let known = s.db.removed(&id).await.unwrap().unwrap();
        assert_eq!((known.events_removed, known.retained_from_seq), (removed, removed + 1));
        assert_eq!(seqs(&s.db, &id).await, (removed + 1..=last).collect::<Vec<_>>());
        if !more {
            break;
        }
    }
    assert_eq!(removed, covers);
    assert_eq!(s.db.latest_snapshot(&id).await.unwrap().unwrap().covers_seq, covers);
    assert_eq!(s.db.sessions_with_old_events(&project.id, 30, 10).await.unwrap(), [""; 0]);
    let again = s.db.remove_old_events(&id, 30, 7).await.unwrap();
    assert!(again.is_none_or(|again| again.events == 0), "{again:?}");
    assert_eq!(s.db.retention_preview(&project.id, KeptDays { workspaces: 0, ..preview }, 10).await.unwrap(), []);
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

#[tokio::test]
async fn nothing_goes_of_what_runs_is_wanted_is_not_drained_or_has_no_snapshot() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    // Stopping: it has a snapshot, but is not proven to be over.
    let stopping_one = stopping(&s.db, &project).await;
    let (kept, _) = over(&s.db, &project, 30).await;
    label(&s.db, &kept, Some("keep")).await;
    let (again, _) = over(&s.db, &project, 30).await;
    apply::<Session>(&s.db, &again, &Command::Start { prompt: None }).await;
    // By force: nobody knows whether its log is whole.
    let forced = stopping(&s.db, &project).await;
    let force = Command::Stop { reason: StopReason::UserStopped, seen_seq: None, run: None, force: true };
    apply::<Session>(&s.db, &forced, &force).await;
    let without = stopping(&s.db, &project).await;
    apply::<Session>(&s.db, &without, &torn_down()).await;
    let (read, _) = over(&s.db, &project, 30).await;
    s.db.acquire_runner_lease(&read, 1, "a reader", Duration::from_secs(30)).await.unwrap().unwrap();
    for id in [&stopping_one, &forced] {
        covered(&s.db, id).await;
    }
    let all = [&stopping_one, &kept, &again, &forced, &without, &read];
    for id in all {
        age(&s.db, id, 30).await;
    }
    let (fresh, _) = over(&s.db, &project, 0).await;
    for id in all.into_iter().chain([&fresh]) {
        let before = seqs(&s.db, id).await;
        assert_eq!(s.db.remove_old_events(id, 1, 1_000).await.unwrap(), None, "{id}");
        assert_eq!((seqs(&s.db, id).await, s.db.removed(id).await.unwrap()), (before, None));
    }
    assert_eq!(s.db.sessions_with_old_events(&project.id, 1, 10).await.unwrap(), [""; 0]);
    let due =
        s.db.retention_preview(&project.id, KeptDays { events: 1, workspaces: 1, snapshots: 1 }, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| &due.id).collect::<Vec<_>>(), [&without], "it has a workspace");
    assert_eq!(s.db.give_up_workspaces(&project.id, 1, 10).await.unwrap(), 1);
    // They may go when that has changed.
    label(&s.db, &kept, None).await;
    apply::<Session>(&s.db, &forced, &torn_down()).await;
    for id in [&kept, &forced] {
        assert!(s.db.remove_old_events(id, 1, 1_000).await.unwrap().unwrap().events > 0);
    }
}

#[tokio::test]
async fn two_servers_at_once_remove_every_event_once_and_a_start_comes_before_or_after() {
    let s = store().await;
    let other = Database::connect(&s.database.url(), ambient_persistence::DatabaseOptions::default()).await.unwrap();
    let project = new_project(&s.db, "demo").await;
    let (id, covers) = over(&s.db, &project, 30).await;
    let remove = async |db: &Database| {
        let mut removed = 0;
        for _ in 0..200 {
            removed += db.remove_old_events(&id, 30, 2).await.unwrap().unwrap_or_default().events;
        }
        removed
    };
    let (one, two) = tokio::join!(remove(&s.db), remove(&other));
    assert_eq!(one + two, covers);
    assert_eq!(s.db.removed(&id).await.unwrap().unwrap().events_removed, covers);

    let (held, _) = over(&s.db, &project, 30).await;
    let mut tx = s.db.pool().acquire().await.unwrap();
    sqlx::query("begin").execute(&mut *tx).await.unwrap();
    // As an append that has not committed yet.
    sqlx::query("select from ambient.sessions where id = $1 for no key update")
        .bind(&held)
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(s.db.remove_old_events(&held, 30, 100).await.unwrap(), None);
    assert_eq!(s.db.give_up_workspaces(&project.id, 30, 100).await.unwrap(), 1, "only the other one");
    sqlx::query("rollback").execute(&mut *tx).await.unwrap();
    assert_eq!(s.db.give_up_workspaces(&project.id, 30, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn a_workspace_is_given_up_once_per_run_and_whoever_begins_the_next_run_is_told() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let (id, _) = over(&s.db, &project, 30).await;
    assert_eq!(s.db.give_up_workspaces(&project.id, 31, 10).await.unwrap(), 0);
    assert_eq!(s.db.give_up_workspaces(&project.id, 30, 10).await.unwrap(), 1);
    assert_eq!(s.db.give_up_workspaces(&project.id, 30, 10).await.unwrap(), 0);
    assert_eq!(s.db.unwanted_workspaces("elsewhere", "", 10).await.unwrap(), []);
    let unwanted = s.db.unwanted_workspaces("here", "", 10).await.unwrap();
    assert_eq!((unwanted.len(), &unwanted[0].session_id, unwanted[0].run), (1, &id, 1));
    let (workspace, is_gone) = s.db.given_up_before(&id, 2).await.unwrap().unwrap();
    assert_eq!((&workspace, is_gone), (&unwanted[0], false));
    let later = s.db.given_up_before(&id, 3).await.unwrap();
    assert_eq!(later, Some((workspace, false)), "run 2 was ended before it saw to it");
    assert!(s.db.workspace_gone(&id, 1, Some(7)).await.unwrap());
    assert!(!s.db.workspace_gone(&id, 1, Some(7)).await.unwrap(), "it is told once");
    assert_eq!(s.db.unwanted_workspaces("here", "", 10).await.unwrap(), []);
    assert!(s.db.given_up_before(&id, 2).await.unwrap().unwrap().1);
    assert_eq!(s.db.given_up_before(&id, 1).await.unwrap(), None);
    assert_eq!(s.db.given_up_before(&id, 3).await.unwrap(), None);
}

#[tokio::test]
async fn a_request_is_done_unless_it_was_repeated_meanwhile() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let first = s.db.request_retention(&project.id, "ada").await.unwrap();
    let open = s.db.open_retention_requests().await.unwrap();
    assert_eq!((open.len(), &open[0].0, open[0].1.given().is_empty()), (1, &first, true));
    let second = s.db.request_retention(&project.id, "bob").await.unwrap();
    s.db.retention_done(&first).await.unwrap();
    assert_eq!(s.db.retention_request(&project.id).await.unwrap(), Some(second.clone()));
    s.db.retention_done(&second).await.unwrap();
    assert!(s.db.retention_request(&project.id).await.unwrap().unwrap().done_at.is_some());
    assert_eq!(s.db.open_retention_requests().await.unwrap(), []);
}

#[tokio::test]
async fn expired_records_go_in_batches_and_others_stay() {
    let s = store().await;
    let sql = "insert into ambient.idempotency (principal, method, path, key, request_hash, outcome, entity_kind, entity_id, version, created_at)
               select 'a', 'POST', '/p', n::text, '', 'already', 'project', 'x', 1, now() - case when n <= 25 then interval '25 hours' else interval '23 hours' end
               from generate_series(1, 30) n";
    sqlx::query(sql).execute(s.db.pool()).await.unwrap();
    assert_eq!(s.db.purge_expired(10, 2).await.unwrap(), 20);
    let (one, two) = tokio::join!(s.db.purge_expired(10, 5), s.db.purge_expired(10, 5));
    assert_eq!(one.unwrap() + two.unwrap(), 5);
    let left: i64 =
        sqlx::query_scalar("select count(*) from ambient.idempotency").fetch_one(s.db.pool()).await.unwrap();
    assert_eq!(left, 5);
}
