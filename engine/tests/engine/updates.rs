//! Workflow updates, with the real client and worker, and by hand.

use std::time::Duration;

use ambient_tests::TestDatabase;
use futures::future::join_all;
use prost::Message;
use temporalio_client::{
    Client, UntypedWorkflow, WorkflowExecuteUpdateOptions, WorkflowGetResultOptions, WorkflowHandle,
    WorkflowSignalOptions, WorkflowStartOptions, WorkflowStartUpdateOptions, callback_based::GrpcRequest,
    errors::WorkflowUpdateError, grpc::WorkflowService,
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payloads, WorkflowExecution},
    enums::v1::UpdateWorkflowExecutionLifecycleStage as Stage,
    taskqueue::v1::TaskQueue,
    update::v1::{Input, Meta, Request, UpdateRef, WaitPolicy},
    workflowservice::v1::{
        PollWorkflowExecutionUpdateRequest, PollWorkflowTaskQueueRequest, RespondWorkflowTaskCompletedRequest,
        UpdateWorkflowExecutionRequest,
    },
};
use tonic::{Code, IntoRequest};

use crate::{
    flows,
    harness::{Host, QUEUE, eventually, kinds, options},
};

type Handle = WorkflowHandle<Client, flows::Ledger>;

/// Starts the workflow `w`; the handle means whichever run is open.
async fn start(host: &Host, again: u32) -> Handle {
    host.client.start_workflow(flows::Ledger::run, again, options("w")).await.unwrap();
    host.client.get_workflow_handle("w")
}

fn with_id(id: &str) -> WorkflowExecuteUpdateOptions {
    WorkflowExecuteUpdateOptions::builder().update_id(id.to_owned()).build()
}

async fn add(handle: &Handle, n: i64) -> Result<i64, WorkflowUpdateError> {
    handle.execute_update(flows::Ledger::add, n, WorkflowExecuteUpdateOptions::default()).await
}

async fn finish(handle: &Handle) -> i64 {
    handle.signal(flows::Ledger::finish, (), WorkflowSignalOptions::default()).await.unwrap();
    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap()
}

fn count(kinds: &[String], kind: &str) -> usize {
    kinds.iter().filter(|k| *k == kind).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_in_the_history_and_a_rejected_one_is_not() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = start(&host, 0).await;
    assert_eq!(add(&handle, 5).await.unwrap(), 5);
    let before = host.history("w").await;
    for _ in 0..3 {
        let refused = add(&handle, -1).await.unwrap_err();
        assert!(
            matches!(&refused, WorkflowUpdateError::Failed(f) if f.message.contains("not a positive")),
            "{refused:?}"
        );
    }
    assert_eq!(host.history("w").await, before, "no trace");
    assert_eq!(add(&handle, 6).await.unwrap(), 11, "what follows a task that left no trace");
    let failed =
        handle.execute_update(flows::Ledger::overdraw, 1, WorkflowExecuteUpdateOptions::default()).await.unwrap_err();
    assert!(matches!(&failed, WorkflowUpdateError::Failed(f) if f.message.contains("not enough")), "{failed:?}");
    let noted = handle.execute_update(flows::Ledger::note, "a".to_owned(), Default::default()).await.unwrap();
    assert_eq!(noted, "ax");
    assert_eq!(finish(&handle).await, 11);
    let kinds = kinds(&host.history("w").await);
    assert_eq!(count(&kinds, "WorkflowExecutionUpdateAccepted"), 4);
    assert_eq!(count(&kinds, "WorkflowExecutionUpdateCompleted"), 4);
    let gone = add(&handle, 1).await.unwrap_err();
    assert!(
        matches!(&gone, WorkflowUpdateError::Rpc(s) | WorkflowUpdateError::NotFound(s) if s.code() == Code::NotFound),
        "{gone:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_is_one_update_also_after_the_end() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = start(&host, 0).await;
    let twins = (0..6).map(|_| handle.execute_update(flows::Ledger::add, 5, with_id("one")));
    assert!(join_all(twins).await.into_iter().all(|total| total.unwrap() == 5));
    handle.execute_update(flows::Ledger::add, -1, with_id("two")).await.unwrap_err();
    assert_eq!(handle.execute_update(flows::Ledger::add, 2, with_id("two")).await.unwrap(), 7, "was rejected, is free");
    assert_eq!(finish(&handle).await, 7);
    assert_eq!(handle.execute_update(flows::Ledger::add, 9, with_id("one")).await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_pass_between_processes_and_survive_the_one_that_took_them_in() {
    let database = TestDatabase::new().await;
    let (asking, working) = (Host::on(&database).await, Host::on(&database).await);
    let handle = start(&asking, 0).await;
    let third = Host::on(&database).await;
    let lost = third.client.get_workflow_handle::<flows::Ledger>("w");
    let orphan = tokio::spawn(async move {
        let _ = lost.execute_update(flows::Ledger::add, 40, with_id("orphan")).await;
    });
    eventually("the admission", || async { third.in_flight("w").await.eq(&1).then_some(()) }).await;
    orphan.abort();
    third.engine.abandon_lease();
    let worker = working.worker();
    let all = (0..8).map(|_| add(&handle, 1));
    assert_eq!(join_all(all).await.into_iter().map(Result::unwrap).max(), Some(48));
    add(&handle, -1).await.unwrap_err();
    assert_eq!(handle.execute_update(flows::Ledger::add, 0, with_id("orphan")).await.unwrap(), 40);
    assert_eq!(finish(&handle).await, 48);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_update_can_be_waited_for_later_and_fails_when_its_workflow_ends() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = start(&host, 0).await;
    let wait_for = |total: i64| handle.start_update(flows::Ledger::wait, total, WorkflowStartUpdateOptions::default());
    let (soon, never) = (wait_for(3).await.unwrap(), wait_for(1000).await.unwrap());
    assert!(!kinds(&host.history("w").await).contains(&"WorkflowExecutionUpdateCompleted".to_owned()));
    assert_eq!(add(&handle, 3).await.unwrap(), 3);
    assert_eq!(soon.get_result(Default::default()).await.unwrap(), 3);
    finish(&handle).await;
    let failed = never.get_result(Default::default()).await.unwrap_err();
    assert!(
        matches!(&failed, WorkflowUpdateError::Failed(f) if f.message.contains("completed before the Update")),
        "{failed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_follows_the_chain_of_runs() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let handle = start(&host, 1).await;
    // The first run ends with its first task: before it can take the update in.
    handle.signal(flows::Ledger::finish, (), WorkflowSignalOptions::default()).await.unwrap();
    let update = tokio::spawn(async move { add(&handle, 4).await });
    eventually("the admission", || async { host.in_flight("w").await.eq(&1).then_some(()) }).await;
    let _worker = host.worker();
    assert_eq!(update.await.unwrap().unwrap(), 4);
}

fn request(update_id: &str) -> UpdateWorkflowExecutionRequest {
    UpdateWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_execution: Some(WorkflowExecution { workflow_id: "w".into(), run_id: String::new() }),
        wait_policy: Some(WaitPolicy { lifecycle_stage: Stage::Completed as i32 }),
        request: Some(Request {
            meta: Some(Meta { update_id: update_id.into(), identity: "me".into() }),
            input: Some(Input { name: "add".into(), args: Some(Payloads::default()), header: None }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_refusals_and_a_worker_that_knows_no_updates() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    start(&host, 0).await;
    let service = host.engine.connection().await.unwrap();
    let waiting: Vec<_> = (0..10)
        .map(|n| {
            let mut service = service.clone();
            tokio::spawn(
                async move { service.update_workflow_execution(request(&format!("u{n}")).into_request()).await },
            )
        })
        .collect();
    eventually("ten admissions", || async { host.in_flight("w").await.eq(&10).then_some(()) }).await;
    let mut service = service.clone();
    // Not through the client: it would try again for a while.
    let eleventh = GrpcRequest {
        service: "temporal.api.workflowservice.v1.WorkflowService".into(),
        rpc: "UpdateWorkflowExecution".into(),
        headers: Default::default(),
        proto: request("u10").encode_to_vec().into(),
    };
    let refused = (host.engine.service().callback)(eleventh).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let mut bad = request("u11");
    bad.wait_policy = Some(WaitPolicy { lifecycle_stage: Stage::Admitted as i32 });
    assert_eq!(service.update_workflow_execution(bad.into_request()).await.unwrap_err().code(), Code::PermissionDenied);
    let unknown = PollWorkflowExecutionUpdateRequest {
        namespace: "default".into(),
        update_ref: Some(UpdateRef {
            workflow_execution: Some(WorkflowExecution { workflow_id: "w".into(), run_id: String::new() }),
            update_id: "u10".into(),
        }),
        ..Default::default()
    };
    let status = service.poll_workflow_execution_update(unknown.into_request()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");

    let poll = PollWorkflowTaskQueueRequest {
        namespace: "default".into(),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        identity: "by hand".into(),
        ..Default::default()
    };
    let task = service.poll_workflow_task_queue(poll.clone().into_request()).await.unwrap().into_inner();
    assert_eq!(task.messages.len(), 10);
    let complete = |token: Vec<u8>| RespondWorkflowTaskCompletedRequest {
        namespace: "default".into(),
        task_token: token,
        ..Default::default()
    };
    service.respond_workflow_task_completed(complete(task.task_token).into_request()).await.unwrap();
    for update in waiting {
        let outcome = update.await.unwrap().unwrap().into_inner().outcome.unwrap();
        assert!(format!("{outcome:?}").contains("UnprocessedUpdate"), "{outcome:?}");
    }
    let before = kinds(&host.history("w").await);
    // A speculative task: ids are reserved, nothing is written when it comes to nothing.
    let update = tokio::spawn({
        let mut service = service.clone();
        async move { service.update_workflow_execution(request("late").into_request()).await }
    });
    let task = service.poll_workflow_task_queue(poll.into_request()).await.unwrap().into_inner();
    assert_eq!(task.messages[0].protocol_instance_id, "late");
    assert_eq!(task.started_event_id, before.len() as i64 + 2);
    let done = service.respond_workflow_task_completed(complete(task.task_token).into_request()).await.unwrap();
    assert_eq!(done.into_inner().reset_history_event_id, task.previous_started_event_id);
    update.await.unwrap().unwrap();
    assert_eq!(kinds(&host.history("w").await), before);
    let describe = host.client.get_workflow_handle::<UntypedWorkflow>("w").describe(Default::default()).await.unwrap();
    assert!(describe.into_raw().pending_workflow_task.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_and_queries_from_many_sides_are_all_answered() {
    let database = TestDatabase::new().await;
    let (one, two) = (Host::on(&database).await, Host::on(&database).await);
    let (_first, _second) = (one.worker(), two.worker());
    let handle = start(&one, 0).await;
    let other = two.client.get_workflow_handle::<flows::Ledger>("w");
    let rounds = async |handle: &Handle| {
        for n in 0..40i64 {
            if n % 4 == 3 {
                add(handle, -n).await.unwrap_err();
            } else {
                add(handle, 1).await.unwrap();
            }
            if n % 8 == 0 {
                let total = handle.query(flows::Ledger::total, (), Default::default()).await.unwrap();
                assert!(total > 0, "what was acknowledged before is seen");
            }
        }
    };
    tokio::join!(rounds(&handle), rounds(&other), rounds(&handle));
    assert_eq!(handle.query(flows::Ledger::total, (), Default::default()).await.unwrap(), 90);
    assert_eq!(finish(&handle).await, 90);
    let kinds = kinds(&one.history("w").await);
    assert_eq!(count(&kinds, "WorkflowExecutionUpdateCompleted"), 90);
    assert_eq!(count(&kinds, "WorkflowTaskTimedOut"), 0, "{kinds:?}");
    tokio::time::timeout(Duration::from_secs(5), one.engine.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_reaches_a_worker_that_is_at_a_local_activity() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    // The worker reports every 1.6 s that it is still at it.
    let patient = WorkflowStartOptions::new(QUEUE, "w").task_timeout(Duration::from_secs(2)).build();
    let handle = host.client.start_workflow(flows::Naps::run, 4000u64, patient).await.unwrap();
    eventually("the first report", || async {
        kinds(&host.history("w").await).contains(&"WorkflowTaskCompleted".to_owned()).then_some(())
    })
    .await;
    let knocks = (0..3).map(|_| handle.execute_update(flows::Naps::knock, (), Default::default()));
    assert_eq!(join_all(knocks).await.into_iter().map(Result::unwrap).max(), Some(3));
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 3);
    let kinds = kinds(&host.history("w").await);
    assert_eq!(count(&kinds, "WorkflowExecutionUpdateCompleted"), 3);
    assert_eq!(count(&kinds, "WorkflowTaskTimedOut") + count(&kinds, "WorkflowTaskFailed"), 0, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_with_an_update_in_hand_does_not_take_it_along() {
    let database = TestDatabase::new().await;
    let (dead, alive) = (Host::on(&database).await, Host::on(&database).await);
    let handle = start(&alive, 0).await;
    {
        let _worker = alive.worker();
        assert_eq!(add(&handle, 1).await.unwrap(), 1);
    }
    let update = tokio::spawn(async move { add(&handle, 2).await });
    eventually("the admission", || async { alive.in_flight("w").await.eq(&1).then_some(()) }).await;
    let mut service = dead.engine.connection().await.unwrap();
    let poll = PollWorkflowTaskQueueRequest {
        namespace: "default".into(),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        identity: "by hand".into(),
        ..Default::default()
    };
    let task = service.poll_workflow_task_queue(poll.into_request()).await.unwrap().into_inner();
    assert_eq!(task.messages.len(), 1);
    dead.engine.abandon_lease();
    let _worker = alive.worker();
    assert_eq!(update.await.unwrap().unwrap(), 3);
    let kinds = kinds(&alive.history("w").await);
    assert_eq!(count(&kinds, "WorkflowTaskTimedOut"), 1, "{kinds:?}");
}
