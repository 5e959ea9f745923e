//! List and count.

use ambient_tests::TestDatabase;
use temporalio_client::{WorkflowGetResultOptions, grpc::WorkflowService};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    workflowservice::v1::{
        CountWorkflowExecutionsRequest, GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryReverseRequest,
        ListWorkflowExecutionsRequest,
    },
};
use tonic::{Code, IntoRequest};

use crate::{
    flows,
    harness::{Host, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_page_by_page_and_refuses_what_it_does_not_know() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    for n in 0..5 {
        let id = format!("i{n}");
        host.client.start_workflow(flows::Inbox::run, 1usize, options(&id)).await.unwrap();
    }
    let done = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("t")).await.unwrap();
    done.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    let mut service = host.engine.connection().await.unwrap();

    let mut request = ListWorkflowExecutionsRequest {
        namespace: "default".into(),
        page_size: 2,
        query: "WorkflowType = 'inbox' AND ExecutionStatus = 'Running' ORDER BY StartTime ASC".into(),
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = service.list_workflow_executions(request.clone().into_request()).await.unwrap().into_inner();
        assert!(page.executions.len() <= 2);
        found.extend(page.executions.into_iter().map(|e| e.execution.unwrap().workflow_id));
        request.next_page_token = page.next_page_token;
        if request.next_page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["i0", "i1", "i2", "i3", "i4"]);

    let count = |query: &str| CountWorkflowExecutionsRequest { namespace: "default".into(), query: query.into() };
    let counted = service.count_workflow_executions(count("ExecutionStatus = 'Completed'").into_request()).await;
    assert_eq!(counted.unwrap().into_inner().count, 1);
    let refused = service.count_workflow_executions(count("Colour = 'red'").into_request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("Colour"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_history_make_up_the_whole_forwards_and_backwards() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let done = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("w")).await.unwrap();
    done.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    let whole = host.history("w").await;
    let mut service = host.engine.connection().await.unwrap();
    let execution = Some(WorkflowExecution { workflow_id: "w".into(), run_id: String::new() });

    let mut request = GetWorkflowExecutionHistoryRequest {
        namespace: "default".into(),
        execution: execution.clone(),
        maximum_page_size: 4,
        ..Default::default()
    };
    let mut forwards = Vec::new();
    loop {
        let page = service.get_workflow_execution_history(request.clone().into_request()).await.unwrap().into_inner();
        forwards.extend(page.history.unwrap().events);
        request.next_page_token = page.next_page_token;
        if request.next_page_token.is_empty() {
            break;
        }
    }
    assert_eq!(forwards, whole);

    let mut request = GetWorkflowExecutionHistoryReverseRequest {
        namespace: "default".into(),
        execution,
        maximum_page_size: 4,
        ..Default::default()
    };
    let mut backwards = Vec::new();
    loop {
        let page = service.get_workflow_execution_history_reverse(request.clone().into_request()).await.unwrap();
        let page = page.into_inner();
        backwards.extend(page.history.unwrap().events);
        request.next_page_token = page.next_page_token;
        if request.next_page_token.is_empty() {
            break;
        }
    }
    backwards.reverse();
    assert_eq!(backwards, whole);
}
