//! Batches: conflicts, refusals, broken connections.
#![allow(clippy::disallowed_methods, reason = "nobody gives a test's transactions up")]

use std::time::Duration;

use ambient_tests::TestDatabase;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowType,
    history::v1::{WorkflowExecutionSignaledEventAttributes, history_event::Attributes},
    workflowservice::v1::StartWorkflowExecutionRequest,
};

use super::*;
use crate::{
    Engine,
    model::{Circumstances, StartPolicy, Target},
    options::EngineOptions,
    proto,
    rpc::start::new_run,
};

async fn engine(database: &TestDatabase) -> Engine {
    Engine::start(database.pool().await, EngineOptions::patient()).await.unwrap()
}

fn start(workflow_id: &str) -> Box<Start> {
    let request = StartWorkflowExecutionRequest {
        workflow_id: workflow_id.to_owned(),
        workflow_type: Some(WorkflowType { name: "any".to_owned() }),
        task_queue: Some(proto::queue("q")),
        ..Default::default()
    };
    let now = chrono::Utc::now();
    Box::new(Start::new(new_run(request, None).unwrap(), StartPolicy::Reuse(Default::default()), now, now))
}

/// A signal to an open run, decided on what is stored.
async fn signal(engine: &Engine, workflow_id: &str, request_id: Option<&str>) -> Transition {
    let target = Target::Current(workflow_id.to_owned());
    let loaded = engine.inner.store.load(&target).await.unwrap().unwrap();
    let circumstances = Circumstances { process: engine.inner.lease.process(), sticky_alive: false };
    let mut t = Transition::new(loaded, circumstances);
    t.request_id = request_id.map(str::to_owned);
    let attributes = WorkflowExecutionSignaledEventAttributes { signal_name: "s".to_owned(), ..Default::default() };
    t.arrive(Attributes::WorkflowExecutionSignaledEventAttributes(attributes));
    t
}

/// Writes these in one batch and says how each fared.
async fn together(engine: &Engine, changes: Vec<Transition>) -> Vec<Outcome> {
    let writer = Arc::clone(&engine.inner.store.writer);
    let count = changes.len();
    let held = hold(&writer).await;
    let mut asked = Vec::new();
    for (position, change) in changes.into_iter().enumerate() {
        let writer = Arc::clone(&writer);
        asked.push(tokio::spawn(async move { writer.change(Box::new(change)).await.1 }));
        until(|| engine.inner.store.writer.waiting() > position).await;
    }
    assert_eq!(writer.waiting(), count);
    drop(held);
    let mut outcomes = Vec::new();
    for one in asked {
        outcomes.push(one.await.unwrap());
    }
    outcomes
}

/// Whoever wrote last may still be leading when it has answered.
async fn hold(writer: &Arc<Writer>) -> Lead {
    let mut held = None;
    until(|| {
        held = writer.hold();
        held.is_some()
    })
    .await;
    held.unwrap()
}

async fn until(mut reached: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(std::time::Instant::now() < deadline, "did not come");
        tokio::task::yield_now().await;
    }
}

/// Signals in the stored history; ids must be dense.
async fn signals(engine: &Engine, workflow_id: &str) -> usize {
    let run = engine.inner.store.resolve(workflow_id, None).await.unwrap();
    let events = proto::events(&engine.inner.store.history(run, 0, 1000).await.unwrap()).unwrap();
    for (position, event) in events.iter().enumerate() {
        assert_eq!(event.event_id, i64::try_from(position).unwrap() + 1);
    }
    let is_signal = |a: &Attributes| matches!(a, Attributes::WorkflowExecutionSignaledEventAttributes(_));
    events.iter().filter(|e| e.attributes.as_ref().is_some_and(is_signal)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_in_a_batch_leaves_its_neighbours_alone() {
    let database = TestDatabase::new().await;
    let engine = engine(&database).await;
    for id in ["a", "b", "c"] {
        engine.inner.store.start_run(start(id)).await.unwrap();
    }
    let stale = signal(&engine, "b", None).await;
    engine.inner.store.writer.change(Box::new(signal(&engine, "b", None).await)).await.1.unwrap();
    let outcomes =
        together(&engine, vec![signal(&engine, "a", None).await, stale, signal(&engine, "c", None).await]).await;
    assert!(matches!(outcomes[..], [Ok(()), Err(CommitError::Conflict), Ok(())]), "{outcomes:?}");
    for id in ["a", "b", "c"] {
        assert_eq!(signals(&engine, id).await, 1, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_the_database_refuses_fails_alone() {
    let database = TestDatabase::new().await;
    let engine = engine(&database).await;
    for id in ["a", "b", "c"] {
        engine.inner.store.start_run(start(id)).await.unwrap();
    }
    engine.inner.store.writer.change(Box::new(signal(&engine, "b", Some("r")).await)).await.1.unwrap();
    let again = signal(&engine, "b", Some("r")).await;
    // A secondary row that is not as expected: the timer does not exist.
    let mut missing = signal(&engine, "c", None).await;
    missing.ended_timers.push("never started".to_owned());
    let outcomes = together(&engine, vec![signal(&engine, "a", Some("r")).await, again, missing]).await;
    let expected = matches!(outcomes[..], [Ok(()), Err(CommitError::Duplicate), Err(CommitError::Conflict)]);
    assert!(expected, "{outcomes:?}");
    assert_eq!((signals(&engine, "a").await, signals(&engine, "b").await, signals(&engine, "c").await), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_of_one_workflow_id_and_two_changes_of_one_run_never_share_a_batch() {
    let database = TestDatabase::new().await;
    let engine = engine(&database).await;
    let writer = Arc::clone(&engine.inner.store.writer);
    let held = hold(&writer).await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        let writer = Arc::clone(&writer);
        asked.push(tokio::spawn(async move { writer.start(start("same")).await.unwrap().1 }));
    }
    until(|| writer.waiting() == 3).await;
    drop(held);
    let mut started = 0;
    for one in asked {
        started += usize::from(one.await.unwrap());
    }
    assert_eq!(started, 1);
    let twice = vec![signal(&engine, "same", None).await, signal(&engine, "same", None).await];
    let outcomes = together(&engine, twice).await;
    assert!(matches!(outcomes[..], [Ok(()), Err(CommitError::Conflict)]), "{outcomes:?}");
    assert_eq!(signals(&engine, "same").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_of_a_batch_writes_nothing_and_tells_everybody() {
    let database = TestDatabase::new().await;
    let engine = engine(&database).await;
    for id in ["a", "b"] {
        engine.inner.store.start_run(start(id)).await.unwrap();
    }
    let pool = database.pool().await;
    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("select 1 from engine.runs where workflow_id = 'b' for update").execute(&mut *blocker).await.unwrap();
    let changes = vec![signal(&engine, "a", None).await, signal(&engine, "b", None).await];
    let cut = async {
        // The batch has started to write and waits for the locked row.
        let killed = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                      where datname = current_database() and wait_event_type = 'Lock'";
        loop {
            let count: i64 = sqlx::query_scalar(killed).fetch_one(&pool).await.unwrap();
            if count > 0 {
                break;
            }
        }
    };
    let (outcomes, ()) = tokio::join!(together(&engine, changes), cut);
    assert!(matches!(outcomes[..], [Err(CommitError::Db(_)), Err(CommitError::Db(_))]), "{outcomes:?}");
    blocker.rollback().await.unwrap();
    assert_eq!((signals(&engine, "a").await, signals(&engine, "b").await), (0, 0));
    let outcomes = together(&engine, vec![signal(&engine, "a", None).await, signal(&engine, "b", None).await]).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}
