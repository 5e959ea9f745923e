//! Activities that are started ahead of their pollers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use ambient_tests::TestDatabase;
use futures::future::join_all;
use temporalio_common::protos::temporal::api::{
    command::v1::{Command, command::Attributes as C},
    workflowservice::v1 as ws,
};

use super::*;
use crate::{
    options::EngineOptions,
    testing::{NAMESPACE, activity, begun, call},
};

async fn poll_activity(engine: Engine) -> ws::PollActivityTaskQueueResponse {
    let task_queue = Some(proto::queue("q"));
    let request = ws::PollActivityTaskQueueRequest { namespace: NAMESPACE.into(), task_queue, ..Default::default() };
    call(&engine, "PollActivityTaskQueue", request).await.unwrap()
}

async fn start(database: &TestDatabase) -> Engine {
    Engine::start(database.pool().await, EngineOptions::patient()).await.unwrap()
}

/// Answers the task with activities: their ids, and milliseconds from start to close.
async fn schedule(engine: &Engine, task_token: Vec<u8>, activities: &[(&str, i64)]) {
    let command = |&(id, timeout_ms): &(&str, i64)| {
        let attributes = C::ScheduleActivityTaskCommandAttributes(activity(id, timeout_ms));
        Command { attributes: Some(attributes), ..Default::default() }
    };
    let request = ws::RespondWorkflowTaskCompletedRequest {
        namespace: NAMESPACE.into(),
        task_token,
        commands: activities.iter().map(command).collect(),
        ..Default::default()
    };
    let _: ws::RespondWorkflowTaskCompletedResponse =
        call(engine, "RespondWorkflowTaskCompleted", request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activities_started_for_pollers_that_do_not_come_back_are_done_by_another_process() {
    let database = TestDatabase::new().await;
    let (one, two) = (start(&database).await, start(&database).await);
    let task = begun(&one).await;
    // The only poller of the first process, for the first of three.
    let first = tokio::spawn(poll_activity(one.clone()));
    while !one.inner.matching.is_awaited(Kind::Activity, "q") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = std::time::Instant::now();
    schedule(&one, task, &["a", "b", "c"].map(|id| (id, 3_600_000))).await;
    let mut taken = vec![first.await.unwrap()];
    for _ in 0..2 {
        let next = tokio::time::timeout(Duration::from_secs(10), poll_activity(two.clone())).await;
        taken.push(next.expect("it is offered to the other process"));
    }
    assert!(began.elapsed() >= MOMENT, "they have lain ready at the first one: {:?}", began.elapsed());
    // Nobody has started them before.
    assert_eq!(taken.iter().map(|task| task.attempt).collect::<Vec<_>>(), [1, 1, 1]);
    let mut ids: Vec<_> = taken.into_iter().map(|task| task.activity_id).collect();
    ids.sort();
    assert_eq!(ids, ["a", "b", "c"]);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_waiting_activities_those_with_little_time_are_started_one_by_one() {
    let database = TestDatabase::new().await;
    let engine = start(&database).await;
    let task = begun(&engine).await;
    let long = ["long 1", "long 2"].map(|id| (id, LEAST_MS));
    let short = ["short 1", "short 2"].map(|id| (id, LEAST_MS - 1));
    schedule(&engine, task, &[long, short].concat()).await;
    let (store, process) = (&engine.inner.store, engine.inner.lease.process());
    let mut started = Vec::new();
    while started.len() < 4 {
        let claimed = store.claim_activities("q", process, "me", 10, LEAST_MS).await.unwrap();
        let short = claimed.iter().filter(|activity| activity.activity_id.starts_with("short")).count();
        assert!(!claimed.is_empty() && short <= 1, "{claimed:?}");
        started.extend(claimed);
    }
    assert_eq!(started.len(), 4);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_activities_that_one_poll_starts_reach_the_other_pollers() {
    let database = TestDatabase::new().await;
    let engine = start(&database).await;
    let task = begun(&engine).await;
    schedule(&engine, task, &["a", "b", "c", "d"].map(|id| (id, 3_600_000))).await;
    let taken = join_all((0..4).map(|_| poll_activity(engine.clone()))).await;
    assert_eq!(taken.iter().map(|task| task.attempt).collect::<Vec<_>>(), [1, 1, 1, 1]);
    let mut ids: Vec<_> = taken.into_iter().map(|task| task.activity_id).collect();
    ids.sort();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    engine.shutdown().await;
}
