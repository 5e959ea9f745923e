//! Cancellation, children, continue-as-new, id policies, signals between workflows.

use std::{sync::atomic::Ordering, time::Duration};

use ambient_tests::TestDatabase;
use temporalio_client::{
    WorkflowCancelOptions, WorkflowDescribeOptions, WorkflowGetResultOptions, WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy, WorkflowSignalOptions, WorkflowStartOptions, errors::WorkflowStartError,
};
use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowExecutionStatus, history::v1::history_event::Attributes,
};

use crate::{
    flows::{self, Policy},
    harness::{Host, QUEUE, attributes, eventually, kinds, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_reaches_the_activity_by_heartbeat_and_the_detached_scope_cleans_up() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::CleansUp::run, (), options("w")).await.unwrap();
    host.probe.started.notified().await;
    handle.cancel(WorkflowCancelOptions::default()).await.unwrap();
    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap_err();
    assert_eq!(host.probe.cancelled.load(Ordering::SeqCst), 1, "the activity was told");
    assert_eq!(host.probe.refunds.load(Ordering::SeqCst), 1, "the clean-up ran");
    let kinds = kinds(&host.history("w").await);
    assert!(kinds.contains(&"ActivityTaskCanceled".to_owned()), "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "WorkflowExecutionCanceled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_per_run_over_three_continued_runs() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Chain::run, 2u32, options("w")).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "p0xxx");
    let events = host.history("w").await;
    let Attributes::WorkflowExecutionStartedEventAttributes(started) = attributes(&events)[0] else { panic!() };
    assert!(!started.continued_execution_run_id.is_empty());
    assert_ne!(started.first_execution_run_id, started.original_execution_run_id);
    for kind in
        ["StartChildWorkflowExecutionInitiated", "ChildWorkflowExecutionStarted", "ChildWorkflowExecutionCompleted"]
    {
        assert!(kinds(&events).contains(&kind.to_owned()), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_and_termination_of_a_child_reach_the_parent() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let input = ("c1".to_owned(), "refused".to_owned());
    let failed = host.client.start_workflow(flows::Watcher::run, input, options("w1")).await.unwrap();
    failed.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    assert!(kinds(&host.history("w1").await).contains(&"ChildWorkflowExecutionFailed".to_owned()));

    let input = ("c2".to_owned(), "inbox".to_owned());
    let parent = host.client.start_workflow(flows::Watcher::run, input, options("w2")).await.unwrap();
    let child = host.client.get_workflow_handle::<flows::Inbox>("c2");
    eventually("the child", || async { child.terminate(Default::default()).await.ok() }).await;
    parent.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    assert!(kinds(&host.history("w2").await).contains(&"ChildWorkflowExecutionTerminated".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_whose_id_is_taken_fails_to_start() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    host.client.start_workflow(flows::Inbox::run, 1usize, options("taken")).await.unwrap();
    let input = ("taken".to_owned(), "inbox".to_owned());
    let parent = host.client.start_workflow(flows::Watcher::run, input, options("w")).await.unwrap();
    let said = parent.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    assert!(said.starts_with("not started"), "{said}");
    assert!(kinds(&host.history("w").await).contains(&"StartChildWorkflowExecutionFailed".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parent_close_policies_are_applied() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    for (policy, status) in [
        (Policy::Terminate, WorkflowExecutionStatus::Terminated),
        (Policy::Abandon, WorkflowExecutionStatus::Running),
        (Policy::RequestCancel, WorkflowExecutionStatus::Failed),
    ] {
        let id = format!("{policy:?}");
        let parent = host.client.start_workflow(flows::Guardian::run, policy, options(&id)).await.unwrap();
        eventually("the child's start", || async {
            kinds(&host.history(&id).await).contains(&"ChildWorkflowExecutionStarted".to_owned()).then_some(())
        })
        .await;
        parent.signal(flows::Guardian::end, (), WorkflowSignalOptions::default()).await.unwrap();
        parent.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let child = host.client.get_workflow_handle::<flows::Inbox>(format!("{id}-child"));
        let found = eventually("the child's end", || async {
            let info = child.describe(WorkflowDescribeOptions::default()).await.unwrap().into_raw();
            let info = info.workflow_execution_info.unwrap();
            let done = info.status() == status
                || policy == Policy::RequestCancel && info.status() != WorkflowExecutionStatus::Running;
            done.then_some(info)
        })
        .await;
        if policy == Policy::RequestCancel {
            let kinds = kinds(&host.history(&format!("{id}-child")).await);
            assert!(kinds.contains(&"WorkflowExecutionCancelRequested".to_owned()), "{kinds:?}");
        }
        assert_eq!(found.parent_execution.unwrap().workflow_id, id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn id_policies_decide_about_a_second_start() {
    use WorkflowIdReusePolicy as Reuse;
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let with = |reuse: Reuse| WorkflowStartOptions::new(QUEUE, "w").id_reuse_policy(reuse).build();
    let start = async |o: WorkflowStartOptions| host.client.start_workflow(flows::Three::run, "a".to_owned(), o).await;

    let open = host.client.start_workflow(flows::Inbox::run, 1usize, options("open")).await.unwrap();
    let twice = host.client.start_workflow(flows::Inbox::run, 1usize, options("open")).await;
    assert!(matches!(twice, Err(WorkflowStartError::AlreadyStarted { .. })));
    let existing = WorkflowStartOptions::new(QUEUE, "open").id_conflict_policy(WorkflowIdConflictPolicy::UseExisting);
    let same = host.client.start_workflow(flows::Inbox::run, 1usize, existing.build()).await.unwrap();
    assert_eq!(same.info().run_id, open.info().run_id);

    start(with(Reuse::RejectDuplicate)).await.unwrap().get_result(Default::default()).await.unwrap();
    for refused in [Reuse::RejectDuplicate, Reuse::AllowDuplicateFailedOnly] {
        let error = start(with(refused)).await.err().unwrap();
        assert!(matches!(error, WorkflowStartError::AlreadyStarted { .. }), "{error:?}");
    }
    start(with(Reuse::AllowDuplicate)).await.unwrap().get_result(Default::default()).await.unwrap();

    let failed = WorkflowStartOptions::new(QUEUE, "f").id_reuse_policy(Reuse::AllowDuplicateFailedOnly).build();
    let first = host.client.start_workflow(flows::Refused::run, (), failed.clone()).await.unwrap();
    first.get_result(Default::default()).await.unwrap_err();
    host.client.start_workflow(flows::Refused::run, (), failed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_signals_and_cancels_another() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let inbox = host.client.start_workflow(flows::Inbox::run, 5usize, options("other")).await.unwrap();
    let input = ("other".to_owned(), "hello".to_owned());
    let caller = host.client.start_workflow(flows::Caller::run, input, options("w")).await.unwrap();
    assert_eq!(caller.get_result(Default::default()).await.unwrap(), [true, true]);
    inbox.get_result(Default::default()).await.unwrap_err();
    let seen = kinds(&host.history("other").await);
    assert_eq!(seen.iter().filter(|k| *k == "WorkflowExecutionSignaled").count(), 1);
    assert!(seen.contains(&"WorkflowExecutionCancelRequested".to_owned()));

    let input = ("nobody".to_owned(), "hello".to_owned());
    let caller = host.client.start_workflow(flows::Caller::run, input, options("w2")).await.unwrap();
    assert_eq!(caller.get_result(Default::default()).await.unwrap(), [false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_timeout_ends_the_run() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let timed = WorkflowStartOptions::new(QUEUE, "w").run_timeout(Duration::from_secs(600)).build();
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, timed).await.unwrap();
    host.engine.advance_clock(Duration::from_secs(601)).await.unwrap();
    handle.get_result(Default::default()).await.unwrap_err();
    assert_eq!(kinds(&host.history("w").await).last().unwrap(), "WorkflowExecutionTimedOut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_and_cancelled_timers() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Patched::run, (), options("w")).await.unwrap();
    assert_eq!(handle.get_result(Default::default()).await.unwrap(), "loudx");
    assert!(kinds(&host.history("w").await).contains(&"MarkerRecorded".to_owned()));
}
