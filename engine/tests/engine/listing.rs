//! List and count.

use ambient_tests::TestDatabase;
use temporalio_client::{WorkflowGetResultOptions, WorkflowTerminateOptions, grpc::WorkflowService};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    enums::v1::WorkflowExecutionStatus as Status,
    filter::v1::{StartTimeFilter, StatusFilter, WorkflowExecutionFilter, WorkflowTypeFilter},
    workflow::v1::WorkflowExecutionInfo,
    workflowservice::v1::{
        CountWorkflowExecutionsRequest, GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryReverseRequest,
        ListClosedWorkflowExecutionsRequest, ListOpenWorkflowExecutionsRequest, ListWorkflowExecutionsRequest,
        ScanWorkflowExecutionsRequest, list_closed_workflow_executions_request::Filters as Closed,
        list_open_workflow_executions_request::Filters as Open,
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

fn ids(executions: &[WorkflowExecutionInfo]) -> Vec<&str> {
    executions.iter().map(|info| info.execution.as_ref().unwrap().workflow_id.as_str()).collect()
}

/// Three open runs of `inbox`, and one of `three` that has completed; one of `inbox` that was terminated.
async fn some_of_each(host: &Host) {
    let _worker = host.worker();
    for id in ["i0", "i1", "i2"] {
        host.client.start_workflow(flows::Inbox::run, 1usize, options(id)).await.unwrap();
    }
    let done = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("t")).await.unwrap();
    done.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    let ended = host.client.start_workflow(flows::Inbox::run, 1usize, options("e")).await.unwrap();
    ended.terminate(WorkflowTerminateOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_runs_are_listed_by_start_id_and_type() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    some_of_each(&host).await;
    let mut service = host.engine.connection().await.unwrap();
    let mut list = async |filters: Option<Open>, start_time_filter: Option<StartTimeFilter>| {
        let mut request = ListOpenWorkflowExecutionsRequest {
            namespace: "default".into(),
            maximum_page_size: 2,
            start_time_filter,
            filters,
            ..Default::default()
        };
        let mut found = Vec::new();
        loop {
            let page = service.list_open_workflow_executions(request.clone().into_request()).await?.into_inner();
            found.extend(page.executions);
            request.next_page_token = page.next_page_token;
            if request.next_page_token.is_empty() {
                return Ok::<_, tonic::Status>(found);
            }
        }
    };
    let all = list(None, None).await.unwrap();
    assert_eq!(ids(&all), ["i2", "i1", "i0"], "the latest first");
    assert!(all.iter().all(|info| info.state_transition_count > 0), "the start is one");
    let id = WorkflowExecutionFilter { workflow_id: "i1".into(), ..Default::default() };
    assert_eq!(ids(&list(Some(Open::ExecutionFilter(id)), None).await.unwrap()), ["i1"]);
    for (name, count) in [("inbox", 3), ("three", 0), ("' or true or '", 0)] {
        let filter = Open::TypeFilter(WorkflowTypeFilter { name: name.into() });
        assert_eq!(list(Some(filter), None).await.unwrap().len(), count, "{name}");
    }
    let (latest, middle) = (all[0].start_time, all[1].start_time);
    let between = |earliest_time, latest_time| Some(StartTimeFilter { earliest_time, latest_time });
    assert_eq!(ids(&list(None, between(middle, None)).await.unwrap()), ["i2", "i1"]);
    assert_eq!(ids(&list(None, between(None, middle)).await.unwrap()), ["i1", "i0"]);
    assert_eq!(ids(&list(None, between(middle, middle)).await.unwrap()), ["i1"]);
    let refused = list(None, between(latest, middle)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let never = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 });
    assert_eq!(list(None, between(never, None)).await.unwrap_err().code(), Code::InvalidArgument);
    let nul = WorkflowExecutionFilter { workflow_id: "a\0".into(), ..Default::default() };
    assert_eq!(list(Some(Open::ExecutionFilter(nul)), None).await.unwrap_err().code(), Code::InvalidArgument);
    let namespace = "default".to_owned();
    let request = ListOpenWorkflowExecutionsRequest { namespace, maximum_page_size: -1, ..Default::default() };
    let refused = service.list_open_workflow_executions(request.into_request()).await.unwrap_err();
    assert!(refused.message().contains("maximum_page_size"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_runs_are_listed_by_end_id_type_and_status_and_a_scan_is_a_list() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    some_of_each(&host).await;
    let mut service = host.engine.connection().await.unwrap();
    let mut list = async |filters: Option<Closed>, start_time_filter: Option<StartTimeFilter>| {
        let request = ListClosedWorkflowExecutionsRequest {
            namespace: "default".into(),
            start_time_filter,
            filters,
            ..Default::default()
        };
        let answer = service.list_closed_workflow_executions(request.into_request()).await;
        answer.map(|answer| answer.into_inner().executions)
    };
    let all = list(None, None).await.unwrap();
    assert_eq!(ids(&all), ["e", "t"], "the latest end first");
    for (status, expected) in
        [(Status::Completed, vec!["t"]), (Status::Terminated, vec!["e"]), (Status::Failed, vec![])]
    {
        let filter = Closed::StatusFilter(StatusFilter { status: status.into() });
        assert_eq!(ids(&list(Some(filter), None).await.unwrap()), expected);
    }
    let kind = Closed::TypeFilter(WorkflowTypeFilter { name: "three".into() });
    assert_eq!(ids(&list(Some(kind), None).await.unwrap()), ["t"]);
    let id = WorkflowExecutionFilter { workflow_id: "i0".into(), ..Default::default() };
    assert!(list(Some(Closed::ExecutionFilter(id)), None).await.unwrap().is_empty(), "an open one");
    let ended = StartTimeFilter { earliest_time: all[1].close_time, latest_time: all[1].close_time };
    assert_eq!(ids(&list(None, Some(ended)).await.unwrap()), ["t"], "it goes by the end");
    for status in [0, 1, 77, -1] {
        let refused = list(Some(Closed::StatusFilter(StatusFilter { status })), None).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{status}: {refused}");
    }

    let query = "ExecutionStatus = 'Running' ORDER BY WorkflowId ASC".to_owned();
    let scan = ScanWorkflowExecutionsRequest { namespace: "default".into(), query, page_size: 2, ..Default::default() };
    let page = service.scan_workflow_executions(scan.clone().into_request()).await.unwrap().into_inner();
    assert_eq!(ids(&page.executions), ["i0", "i1"]);
    let rest = ScanWorkflowExecutionsRequest { next_page_token: page.next_page_token, ..scan };
    let page = service.scan_workflow_executions(rest.into_request()).await.unwrap().into_inner();
    assert_eq!((ids(&page.executions), page.next_page_token), (vec!["i2"], Vec::new()));
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
