//! Activities, retries, timers, signals, queries, start policies, termination.

use std::{sync::atomic::Ordering, time::Duration};

use ambient_tests::TestDatabase;
use temporalio_client::{
    WorkflowDescribeOptions, WorkflowGetResultOptions, WorkflowQueryOptions, WorkflowSignalOptions,
    WorkflowTerminateOptions,
};

use crate::{
    flows,
    harness::{Host, eventually, kinds, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_activities_run_in_order_and_leave_a_temporal_history() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("w")).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx");
    let step = ["ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskCompleted"];
    let task = ["WorkflowTaskScheduled", "WorkflowTaskStarted", "WorkflowTaskCompleted"];
    let mut expected = vec!["WorkflowExecutionStarted"];
    for _ in 0..3 {
        expected.extend(task);
        expected.extend(step);
    }
    expected.extend(task);
    expected.push("WorkflowExecutionCompleted");
    assert_eq!(kinds(&host.history("w").await), expected);
    host.engine.readiness().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activity_is_retried_until_it_succeeds_and_only_the_last_attempt_is_in_the_history() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Retries::run, 3u32, options("w")).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 3);
    let starts = kinds(&host.history("w").await).iter().filter(|k| *k == "ActivityTaskStarted").count();
    assert_eq!(starts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn non_retryable_failure_fails_the_workflow_after_one_attempt() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Refused::run, (), options("w")).await.unwrap();
    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap_err();
    assert_eq!(host.probe.runs.load(Ordering::SeqCst), 1);
    assert_eq!(kinds(&host.history("w").await).last().unwrap(), "WorkflowExecutionFailed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_run_out_and_the_workflow_fails() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Retries::run, 9u32, options("w")).await.unwrap();
    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_passes_when_the_clock_is_moved() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Sleeper::run, 86_400u64, options("w")).await.unwrap();
    eventually("the timer", || async {
        kinds(&host.history("w").await).contains(&"TimerStarted".to_owned()).then_some(())
    })
    .await;
    host.engine.advance_clock(Duration::from_secs(86_401)).await.unwrap();
    let slept = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    assert!(slept >= 86_400, "{slept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_arrive_in_order_and_queries_see_them() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Inbox::run, 3usize, options("w")).await.unwrap();
    for word in ["a", "b"] {
        handle.signal(flows::Inbox::put, word.to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    }
    let seen = handle.query(flows::Inbox::list, (), WorkflowQueryOptions::default()).await.unwrap();
    assert_eq!(seen, ["a", "b"]);
    handle.signal(flows::Inbox::put, "c".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), ["a", "b", "c"]);
    let closed = handle.query(flows::Inbox::list, (), WorkflowQueryOptions::default()).await.unwrap();
    assert_eq!(closed, ["a", "b", "c"], "closed workflows answer queries too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminate_ends_the_run_at_once_and_for_good() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, options("w")).await.unwrap();
    handle.terminate(WorkflowTerminateOptions::default()).await.unwrap();
    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap_err();
    assert_eq!(kinds(&host.history("w").await).last().unwrap(), "WorkflowExecutionTerminated");
    handle.signal(flows::Inbox::put, "late".to_owned(), WorkflowSignalOptions::default()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_shows_the_pending_activity_with_its_last_failure_and_next_attempt() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::SlowRetries::run, (), options("w")).await.unwrap();
    let activity = eventually("the retry", || async {
        let raw = handle.describe(WorkflowDescribeOptions::default()).await.unwrap().into_raw();
        raw.pending_activities.into_iter().next().filter(|a| a.attempt == 2)
    })
    .await;
    assert!(activity.last_failure.unwrap().message.contains("attempt 1"));
    assert!(activity.next_attempt_schedule_time.is_some());
    assert_eq!(activity.current_retry_interval.unwrap().seconds, 3600);
    host.engine.advance_clock(Duration::from_secs(3601)).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_nobody_takes_times_out_and_is_not_retried() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Elsewhere::run, true, options("w")).await.unwrap();
    eventually("the activity", || async {
        kinds(&host.history("w").await).contains(&"ActivityTaskScheduled".to_owned()).then_some(())
    })
    .await;
    host.engine.advance_clock(Duration::from_secs(61)).await.unwrap();
    let said = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    assert!(said.contains("ScheduleToStart"), "{said}");
    assert!(!kinds(&host.history("w").await).contains(&"ActivityTaskStarted".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_may_end_with_an_activity_pending_and_nothing_is_left_behind() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Elsewhere::run, false, options("w")).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "left waiting");
    for table in ["runs", "activities", "timers", "children", "requests", "effects"] {
        let sql = sqlx::AssertSqlSafe(format!("select count(*) from engine.{table}"));
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&database.pool().await).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_activities_are_markers_in_one_workflow_task() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Local::run, "a".to_owned(), options("w")).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axx");
    let kinds = kinds(&host.history("w").await);
    assert_eq!(kinds.iter().filter(|k| *k == "MarkerRecorded").count(), 2);
    assert_eq!(kinds.iter().filter(|k| *k == "WorkflowTaskCompleted").count(), 1);
}
