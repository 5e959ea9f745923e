//! Tasks without a poll: the first one comes with the response to the start; activities that someone else completes.

use ambient_tests::TestDatabase;
use temporalio_client::{ActivityIdentifier, WorkflowGetResultOptions, WorkflowStartOptions, grpc::WorkflowService};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payloads, WorkflowExecution},
    history::v1::history_event::Attributes,
    workflowservice::v1::{
        RecordActivityTaskHeartbeatByIdRequest, ResetStickyTaskQueueRequest, RespondActivityTaskCompletedByIdRequest,
        RespondActivityTaskFailedByIdRequest,
    },
};
use tonic::{Code, IntoRequest};

use crate::{
    flows,
    harness::{Host, QUEUE, attributes, eventually, kinds, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_task_comes_with_the_answer_to_the_start() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    // A worker is known to its client once it polls.
    let handle = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("warm")).await.unwrap();
    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    let eager = WorkflowStartOptions::new(QUEUE, "w").enable_eager_workflow_start(true).build();
    let handle = host.client.start_workflow(flows::Three::run, "a".to_owned(), eager).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx");
    let events = host.history("w").await;
    let Attributes::WorkflowExecutionStartedEventAttributes(started) = attributes(&events)[0] else { panic!() };
    assert!(started.eager_execution_accepted);
    assert!(!kinds(&events).contains(&"WorkflowTaskTimedOut".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_is_completed_failed_and_kept_alive_by_its_id() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let mut service = host.engine.connection().await.unwrap();
    let (namespace, workflow_id) = ("default".to_owned(), "w".to_owned());
    let activity_id = "1".to_owned();
    let handle = host.client.start_workflow(flows::Deferred::run, None, options("w")).await.unwrap();
    host.probe.started.notified().await;
    let beat = RecordActivityTaskHeartbeatByIdRequest {
        namespace: namespace.clone(),
        workflow_id: workflow_id.clone(),
        activity_id: activity_id.clone(),
        details: Some(Payloads::default()),
        ..Default::default()
    };
    assert!(
        !service.record_activity_task_heartbeat_by_id(beat.into_request()).await.unwrap().into_inner().cancel_requested
    );
    // The first attempt fails, the second one succeeds.
    let fail = RespondActivityTaskFailedByIdRequest {
        namespace: namespace.clone(),
        workflow_id: workflow_id.clone(),
        activity_id: activity_id.clone(),
        ..Default::default()
    };
    service.respond_activity_task_failed_by_id(fail.clone().into_request()).await.unwrap();
    host.probe.started.notified().await;
    let identifier = ActivityIdentifier::by_id_workflow("w", "", "1");
    let activity = host.client.get_async_activity_handle(identifier);
    activity.complete(Some("done".to_owned()), Default::default()).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "done");
    let gone = service.respond_activity_task_failed_by_id(fail.into_request()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);

    // Nobody has taken this one.
    let queue = Some("nobody".to_owned());
    let handle = host.client.start_workflow(flows::Deferred::run, queue, options("v")).await.unwrap();
    eventually("the activity", || async {
        kinds(&host.history("v").await).contains(&"ActivityTaskScheduled".to_owned()).then_some(())
    })
    .await;
    let mut complete = RespondActivityTaskCompletedByIdRequest {
        namespace,
        workflow_id: "v".into(),
        activity_id: "2".into(),
        ..Default::default()
    };
    let status = service.respond_activity_task_completed_by_id(complete.clone().into_request()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    complete.activity_id = activity_id;
    service.respond_activity_task_completed_by_id(complete.into_request()).await.unwrap();
    let _ = handle.get_result(WorkflowGetResultOptions::default()).await;
    let kinds = kinds(&host.history("v").await);
    assert!(kinds.contains(&"ActivityTaskStarted".to_owned()) && kinds.contains(&"ActivityTaskCompleted".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_gives_up_what_it_has_cached() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, options("w")).await.unwrap();
    eventually("the first task", || async {
        kinds(&host.history("w").await).contains(&"WorkflowTaskCompleted".to_owned()).then_some(())
    })
    .await;
    let mut service = host.engine.connection().await.unwrap();
    let execution = Some(WorkflowExecution { workflow_id: "w".into(), run_id: String::new() });
    let reset = ResetStickyTaskQueueRequest { namespace: "default".into(), execution };
    service.reset_sticky_task_queue(reset.into_request()).await.unwrap();
    handle.signal(flows::Inbox::put, "a".to_owned(), Default::default()).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), ["a"]);
}
