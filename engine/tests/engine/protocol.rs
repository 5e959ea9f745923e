//! The wire as a worker sees it: tokens, buffering, refusals.

use std::time::Duration;

use ambient_tests::TestDatabase;
use temporalio_client::{Connection, WorkflowSignalOptions, WorkflowStartOptions, grpc::WorkflowService};
use temporalio_common::protos::temporal::api::{
    command::v1::{Command, CompleteWorkflowExecutionCommandAttributes, command::Attributes as C},
    common::v1::{WorkflowExecution, WorkflowType},
    enums::v1::WorkflowTaskFailedCause,
    history::v1::history_event::Attributes,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        DescribeNamespaceRequest, ExecuteMultiOperationRequest, PollWorkflowTaskQueueRequest,
        PollWorkflowTaskQueueResponse, RespondActivityTaskCompletedRequest, RespondWorkflowTaskCompletedRequest,
        RespondWorkflowTaskFailedRequest, SignalWithStartWorkflowExecutionRequest, SignalWorkflowExecutionRequest,
        StartWorkflowExecutionRequest,
    },
};
use tonic::{Code, IntoRequest, Status};

use crate::{
    flows,
    harness::{Host, QUEUE, attributes, kinds, options},
};

async fn poll(service: &mut Connection) -> PollWorkflowTaskQueueResponse {
    let request = PollWorkflowTaskQueueRequest {
        namespace: "default".into(),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        identity: "by hand".into(),
        ..Default::default()
    };
    service.poll_workflow_task_queue(request.into_request()).await.unwrap().into_inner()
}

async fn complete(service: &mut Connection, task: &PollWorkflowTaskQueueResponse) -> Result<(), Status> {
    let end = C::CompleteWorkflowExecutionCommandAttributes(CompleteWorkflowExecutionCommandAttributes::default());
    let request = RespondWorkflowTaskCompletedRequest {
        namespace: "default".into(),
        task_token: task.task_token.clone(),
        commands: vec![Command { attributes: Some(end), ..Default::default() }],
        ..Default::default()
    };
    service.respond_workflow_task_completed(request.into_request()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_over_a_buffered_signal_is_refused_and_the_task_is_done_again() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, options("w")).await.unwrap();
    let mut service = host.engine.connection().await.unwrap();
    let task = poll(&mut service).await;
    handle.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    assert!(!kinds(&host.history("w").await).contains(&"WorkflowExecutionSignaled".to_owned()), "buffered");

    let refused = complete(&mut service, &task).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "UnhandledCommand"));
    let again = complete(&mut service, &task).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound, "the token is used up");

    let task = poll(&mut service).await;
    let events = task.history.as_ref().unwrap().events.clone();
    assert_eq!(
        kinds(&events),
        [
            "WorkflowExecutionStarted",
            "WorkflowTaskScheduled",
            "WorkflowTaskStarted",
            "WorkflowTaskFailed",
            "WorkflowExecutionSignaled",
            "WorkflowTaskScheduled",
            "WorkflowTaskStarted"
        ]
    );
    let Attributes::WorkflowTaskFailedEventAttributes(failed) = attributes(&events)[3] else { panic!() };
    assert_eq!(failed.cause(), WorkflowTaskFailedCause::UnhandledCommand);
    complete(&mut service, &task).await.unwrap();
    let written = host.history("w").await;
    assert_eq!(written[..events.len()], events[..], "what the worker saw is what is written");
    assert_eq!(kinds(&written).last().unwrap(), "WorkflowExecutionCompleted");
}

async fn fail(service: &mut Connection, task: &PollWorkflowTaskQueueResponse) {
    let request = RespondWorkflowTaskFailedRequest {
        namespace: "default".into(),
        task_token: task.task_token.clone(),
        cause: WorkflowTaskFailedCause::NonDeterministicError as i32,
        ..Default::default()
    };
    service.respond_workflow_task_failed(request.into_request()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_nobody_answers_is_offered_again() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let short = WorkflowStartOptions::new(QUEUE, "w").task_timeout(Duration::from_millis(500)).build();
    host.client.start_workflow(flows::Inbox::run, 1usize, short).await.unwrap();
    let mut service = host.engine.connection().await.unwrap();
    let first = poll(&mut service).await;
    let second = poll(&mut service).await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_eq!(complete(&mut service, &first).await.unwrap_err().code(), Code::NotFound);
    complete(&mut service, &second).await.unwrap();
    let kinds = kinds(&host.history("w").await);
    assert!(kinds.contains(&"WorkflowTaskTimedOut".to_owned()), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_keeps_failing_does_not_fill_the_history_and_news_make_it_a_first_attempt() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, options("w")).await.unwrap();
    let mut service = host.engine.connection().await.unwrap();
    for attempt in 1..=4 {
        let task = poll(&mut service).await;
        assert_eq!(task.attempt, attempt);
        fail(&mut service, &task).await;
    }
    let failures = kinds(&host.history("w").await).iter().filter(|k| *k == "WorkflowTaskFailed").count();
    assert_eq!(failures, 1, "only the first attempt leaves events");
    handle.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    let task = poll(&mut service).await;
    assert_eq!(task.attempt, 1);
    complete(&mut service, &task).await.unwrap();
    assert_eq!(
        host.history("w").await[..task.history.as_ref().unwrap().events.len()],
        task.history.unwrap().events[..]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_other_attempts_and_garbage_are_refused() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let handle = host.client.start_workflow(flows::Inbox::run, 1usize, options("w")).await.unwrap();
    let mut service = host.engine.connection().await.unwrap();
    let task = poll(&mut service).await;
    handle.terminate(Default::default()).await.unwrap();
    assert_eq!(complete(&mut service, &task).await.unwrap_err().code(), Code::NotFound);

    let wrong_kind = RespondActivityTaskCompletedRequest {
        namespace: "default".into(),
        task_token: task.task_token.clone(),
        ..Default::default()
    };
    let refused = service.respond_activity_task_completed(wrong_kind.into_request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let garbage = PollWorkflowTaskQueueResponse { task_token: b"\xff\xff".to_vec(), ..Default::default() };
    assert_eq!(complete(&mut service, &garbage).await.unwrap_err().code(), Code::InvalidArgument);
}

fn start(id: &str) -> StartWorkflowExecutionRequest {
    StartWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_id: id.into(),
        workflow_type: Some(WorkflowType { name: "inbox".into() }),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        request_id: "r".into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_requests_are_carried_out_once() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let mut service = host.engine.connection().await.unwrap();
    let one = service.start_workflow_execution(start("w").into_request()).await.unwrap().into_inner();
    let two = service.start_workflow_execution(start("w").into_request()).await.unwrap().into_inner();
    assert_eq!(one.run_id, two.run_id);
    let signal = SignalWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_execution: Some(WorkflowExecution { workflow_id: "w".into(), run_id: String::new() }),
        signal_name: "put".into(),
        request_id: "s".into(),
        ..Default::default()
    };
    for _ in 0..3 {
        service.signal_workflow_execution(signal.clone().into_request()).await.unwrap();
    }
    let with_start = SignalWithStartWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_id: "w".into(),
        workflow_type: Some(WorkflowType { name: "inbox".into() }),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        signal_name: "put".into(),
        request_id: "t".into(),
        ..Default::default()
    };
    let running = service.signal_with_start_workflow_execution(with_start.clone().into_request()).await.unwrap();
    assert_eq!((running.get_ref().run_id.as_str(), running.get_ref().started), (one.run_id.as_str(), false));
    let fresh = SignalWithStartWorkflowExecutionRequest { workflow_id: "x".into(), ..with_start };
    assert!(service.signal_with_start_workflow_execution(fresh.into_request()).await.unwrap().into_inner().started);
    let signals = |kinds: Vec<String>| kinds.iter().filter(|k| *k == "WorkflowExecutionSignaled").count();
    assert_eq!(signals(kinds(&host.history("w").await)), 2);
    assert_eq!(signals(kinds(&host.history("x").await)), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_name_the_field_and_the_unsupported_names_itself() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let mut service = host.engine.connection().await.unwrap();
    let cases = [
        (
            StartWorkflowExecutionRequest { workflow_id: String::new(), ..start("w") },
            Code::InvalidArgument,
            "workflow_id",
        ),
        (StartWorkflowExecutionRequest { workflow_type: None, ..start("w") }, Code::InvalidArgument, "workflow_type"),
        (StartWorkflowExecutionRequest { task_queue: None, ..start("w") }, Code::InvalidArgument, "task_queue"),
        (
            StartWorkflowExecutionRequest { workflow_id: "a\0".into(), ..start("w") },
            Code::InvalidArgument,
            "workflow_id",
        ),
        (
            StartWorkflowExecutionRequest { cron_schedule: "* * * * *".into(), ..start("w") },
            Code::Unimplemented,
            "cron",
        ),
        (StartWorkflowExecutionRequest { namespace: "else".into(), ..start("w") }, Code::NotFound, "else"),
    ];
    for (request, code, named) in cases {
        let status = service.start_workflow_execution(request.into_request()).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(named), "{status}");
    }
    let both = ExecuteMultiOperationRequest { namespace: "default".into(), ..Default::default() };
    let status = service.execute_multi_operation(both.into_request()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("ExecuteMultiOperation"));
    let namespace = DescribeNamespaceRequest { namespace: "default".into(), ..Default::default() };
    service.describe_namespace(namespace.into_request()).await.unwrap();
}
