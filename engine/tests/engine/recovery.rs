//! Dead workers, dead processes, several processes.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ambient_tests::TestDatabase;
use futures::future::join_all;
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions};

use crate::{
    flows,
    harness::{Host, eventually, kinds, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_that_stops_heartbeating_is_tried_again() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Hangs::run, 30u64, options("w")).await.unwrap();
    host.probe.started.notified().await;
    host.engine.advance_clock(Duration::from_secs(31)).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 2);
    host.probe.release.notify_waiters();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_for_a_worker_that_left_goes_to_the_next_one() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let first = host.worker();
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, options("w")).await.unwrap();
    eventually("the first task", || async {
        kinds(&host.history("w").await).contains(&"WorkflowTaskCompleted".to_owned()).then_some(())
    })
    .await;
    first.stop();
    handle.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    let began = Instant::now();
    let _second = host.worker();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), ["a"]);
    assert!(began.elapsed() < Duration::from_secs(4), "no waiting for the sticky timeout: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_the_work_and_wake_each_other() {
    let database = TestDatabase::new().await;
    let (one, two) = (Host::on(&database).await, Host::on(&database).await);
    let _worker = two.worker();
    // Started and awaited at the process without a worker.
    let began = Instant::now();
    let mut handles = Vec::new();
    for n in 0..20 {
        let id = format!("w{n}");
        handles.push(one.client.start_workflow(flows::Three::run, "a".to_owned(), options(&id)).await.unwrap());
    }
    for handle in handles {
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "hints arrive: {:?}", began.elapsed());
    let inbox = one.client.start_workflow(flows::Inbox::run, 1usize, options("q")).await.unwrap();
    let empty: Vec<String> = Vec::new();
    assert_eq!(inbox.query(flows::Inbox::list, (), Default::default()).await.unwrap(), empty);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_a_dead_process_is_free_in_about_three_seconds() {
    let database = TestDatabase::new().await;
    let (dead, alive) = (Host::on(&database).await, Host::on(&database).await);
    let worker = dead.worker();
    let handle = alive.client.start_workflow(flows::Hangs::run, 0u64, options("w")).await.unwrap();
    dead.probe.started.notified().await;
    // No heartbeat timeout, start-to-close an hour: only the lease can free this activity.
    dead.engine.abandon_lease();
    let began = Instant::now();
    let _successor = alive.worker();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 2);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(dead.engine.readiness().is_err());
    dead.probe.release.notify_waiters();
    dead.probe.release.notify_one();
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_from_two_processes_to_one_run_all_arrive_once() {
    let database = TestDatabase::new().await;
    let (one, two) = (Host::on(&database).await, Host::on(&database).await);
    let (_first, _second) = (one.worker(), two.worker());
    let handle = one.client.start_workflow(flows::Inbox::run, 200usize, options("w")).await.unwrap();
    let other = two.client.get_workflow_handle::<flows::Inbox>("w");
    let signal = WorkflowSignalOptions::default;
    let ours = (0..100).map(|n| handle.signal(flows::Inbox::put, format!("a{n}"), signal()));
    let theirs = (0..100).map(|n| other.signal(flows::Inbox::put, format!("b{n}"), signal()));
    let (ours, theirs) = tokio::join!(join_all(ours), join_all(theirs));
    ours.into_iter().for_each(|sent| sent.unwrap());
    theirs.into_iter().for_each(|sent| sent.unwrap());
    let mut got = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 200);
    let kinds = kinds(&one.history("w").await);
    assert_eq!(kinds.iter().filter(|k| *k == "WorkflowExecutionSignaled").count(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_hands_over_at_once() {
    let database = TestDatabase::new().await;
    let (leaving, staying) = (Host::on(&database).await, Host::on(&database).await);
    let worker = leaving.worker();
    let handle = staying.client.start_workflow(flows::Hangs::run, 0u64, options("w")).await.unwrap();
    leaving.probe.started.notified().await;
    let began = Instant::now();
    leaving.engine.shutdown().await;
    let _successor = staying.worker();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 2);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    leaving.probe.release.notify_one();
    drop(worker);
    assert_eq!(leaving.probe.runs.load(Ordering::SeqCst), 1);
}
