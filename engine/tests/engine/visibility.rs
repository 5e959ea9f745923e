//! What lists and counts can be queried for, and custom search attributes.

use std::collections::HashMap;

use ambient_tests::TestDatabase;
use temporalio_client::{
    Connection, WorkflowGetResultOptions,
    grpc::{OperatorService, WorkflowService},
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payload, SearchAttributes, WorkflowType},
    enums::v1::IndexedValueType as Type,
    history::v1::history_event::Attributes as A,
    operatorservice::v1::{AddSearchAttributesRequest, ListSearchAttributesRequest},
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        CountWorkflowExecutionsRequest, DescribeTaskQueueRequest, GetWorkflowExecutionHistoryRequest,
        ListWorkflowExecutionsRequest, StartWorkflowExecutionRequest,
    },
};
use tonic::{Code, IntoRequest, Status};

use crate::{
    flows,
    harness::{Host, QUEUE, eventually, options},
};

fn attributes(values: &[(&str, &str)]) -> SearchAttributes {
    let payload = |json: &str| Payload {
        metadata: HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]),
        data: json.as_bytes().to_vec(),
        ..Default::default()
    };
    SearchAttributes { indexed_fields: values.iter().map(|(n, v)| ((*n).to_owned(), payload(v))).collect() }
}

async fn start(service: &mut Connection, id: &str, values: &[(&str, &str)]) -> Result<(), Status> {
    let request = StartWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_id: id.into(),
        workflow_type: Some(WorkflowType { name: "inbox".into() }),
        task_queue: Some(TaskQueue { name: "nobody".into(), ..Default::default() }),
        search_attributes: Some(attributes(values)),
        ..Default::default()
    };
    service.start_workflow_execution(request.into_request()).await.map(drop)
}

async fn ids(service: &mut Connection, query: &str) -> Result<Vec<String>, Status> {
    let mut request = ListWorkflowExecutionsRequest {
        namespace: "default".into(),
        page_size: 2,
        query: query.into(),
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = service.list_workflow_executions(request.clone().into_request()).await?.into_inner();
        found.extend(page.executions.into_iter().map(|e| e.execution.unwrap().workflow_id));
        request.next_page_token = page.next_page_token;
        if request.next_page_token.is_empty() {
            return Ok(found);
        }
    }
}

async fn register(service: &mut Connection) {
    let types = [
        ("Colour", Type::Keyword),
        ("Tags", Type::KeywordList),
        ("Notes", Type::Text),
        ("Size", Type::Int),
        ("Weight", Type::Double),
        ("Good", Type::Bool),
        ("Due", Type::Datetime),
    ];
    let request = AddSearchAttributesRequest {
        namespace: "default".into(),
        search_attributes: types.into_iter().map(|(n, t)| (n.to_owned(), t as i32)).collect(),
    };
    service.add_search_attributes(request.clone().into_request()).await.unwrap();
    service.add_search_attributes(request.clone().into_request()).await.unwrap();
    let other =
        AddSearchAttributesRequest { search_attributes: HashMap::from([("Size".into(), 2)]), ..request.clone() };
    assert_eq!(service.add_search_attributes(other.into_request()).await.unwrap_err().code(), Code::AlreadyExists);
    let taken = AddSearchAttributesRequest { search_attributes: HashMap::from([("RunId".into(), 2)]), ..request };
    assert_eq!(service.add_search_attributes(taken.into_request()).await.unwrap_err().code(), Code::InvalidArgument);
    let list = ListSearchAttributesRequest { namespace: "default".into() };
    let listed = service.list_search_attributes(list.into_request()).await.unwrap().into_inner();
    assert_eq!(listed.custom_attributes.len(), 7);
    assert_eq!(listed.system_attributes["StartTime"], Type::Datetime as i32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_search_attributes_are_registered_checked_and_found() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let mut service = host.engine.connection().await.unwrap();
    let unknown = start(&mut service, "x", &[("Colour", "\"red\"")]).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::InvalidArgument, "Namespace default has no mapping defined for search attribute Colour")
    );
    register(&mut service).await;
    start(
        &mut service,
        "a",
        &[
            ("Colour", "\"red\""),
            ("Tags", "[\"x\",\"y\"]"),
            ("Notes", "\"The quick, brown FOX\""),
            ("Size", "3"),
            ("Weight", "1.5"),
            ("Good", "true"),
            ("Due", "\"2026-01-02T03:04:05.5Z\""),
        ],
    )
    .await
    .unwrap();
    start(&mut service, "b", &[("Colour", "\"rose\""), ("Size", "10"), ("Good", "false"), ("Tags", "[\"y\"]")])
        .await
        .unwrap();
    start(&mut service, "c", &[]).await.unwrap();
    for (name, bad) in [("Size", "\"3\""), ("Good", "1"), ("Due", "\"soon\""), ("Tags", "[1]"), ("RunId", "\"r\"")] {
        let refused = start(&mut service, "d", &[(name, bad)]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
        assert!(refused.message().contains(name), "{refused}");
    }
    for (query, expected) in [
        ("Colour = 'red'", "a"),
        ("Colour != 'red'", "b"),
        ("Colour IN ('red', 'rose', 'blue')", "ba"),
        ("Colour NOT IN ('red')", "b"),
        ("NOT (Colour = 'red' OR Size > 100)", "b"),
        ("Colour STARTS_WITH 'r' AND NOT Colour STARTS_WITH 'ro'", "a"),
        ("Colour < 'rf'", "a"),
        ("Colour IS NULL", "c"),
        ("Colour IS NOT NULL", "ba"),
        ("Tags = 'y'", "ba"),
        ("Tags = 'x'", "a"),
        ("Tags != 'x'", "b"),
        ("Notes = 'fox'", "a"),
        ("Notes = 'slow QUICK'", "a"),
        ("Notes = 'qui'", ""),
        ("Size BETWEEN 3 AND 9", "a"),
        ("Size >= 3 AND Size != 10", "a"),
        ("Weight > 1 AND Weight < 2", "a"),
        ("Weight = 1.5", "a"),
        ("Good = false", "b"),
        ("Due < '2026-01-02T04:04:06+01:00' AND Due >= '2026-01-02T03:04:05Z'", "a"),
        ("Due = '2026-01-02T03:04:05.500Z'", "a"),
        ("WorkflowId IN ('a', 'c') ORDER BY WorkflowId", "ac"),
        ("(WorkflowId = 'a' OR WorkflowId = 'b') AND TaskQueue = 'nobody' ORDER BY WorkflowId DESC", "ba"),
        ("ORDER BY WorkflowId", "abc"),
        ("CloseTime IS NULL AND ParentWorkflowId IS NULL AND ExecutionStatus = 1", "cba"),
        ("StartTime > '2020-01-01T00:00:00Z' AND HistoryLength = 2 ORDER BY StartTime ASC", "abc"),
        ("RootWorkflowId = 'b'", "b"),
        ("ExecutionDuration > '1s' OR ExecutionStatus NOT IN ('Running')", ""),
    ] {
        let found = ids(&mut service, query).await.unwrap_or_else(|status| panic!("{query}: {status}")).concat();
        assert_eq!(found, expected, "{query}");
    }
    let one = ListWorkflowExecutionsRequest {
        namespace: "default".into(),
        query: "WorkflowId = 'a'".into(),
        ..Default::default()
    };
    let found = service.list_workflow_executions(one.into_request()).await.unwrap().into_inner().executions;
    let first = GetWorkflowExecutionHistoryRequest {
        namespace: "default".into(),
        execution: found[0].execution.clone(),
        ..Default::default()
    };
    let events = service.get_workflow_execution_history(first.into_request()).await.unwrap().into_inner();
    let Some(A::WorkflowExecutionStartedEventAttributes(started)) = events.history.unwrap().events.remove(0).attributes
    else {
        panic!("the first event is the start");
    };
    let written = &started.search_attributes.unwrap().indexed_fields["Size"];
    assert_eq!(written.metadata["type"], b"Int", "histories show the type, as on Temporal's servers");
    let shown = &found[0].search_attributes.as_ref().unwrap().indexed_fields["Tags"];
    assert_eq!(shown.metadata["type"], b"KeywordList");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_by_status_and_lists_by_close_time() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    for id in ["t1", "t2", "t3"] {
        let done = host.client.start_workflow(flows::Three::run, "a".to_owned(), options(id)).await.unwrap();
        done.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    }
    host.client.start_workflow(flows::Inbox::run, 1usize, options("open")).await.unwrap();
    let mut service = host.engine.connection().await.unwrap();
    let request = CountWorkflowExecutionsRequest {
        namespace: "default".into(),
        query: "WorkflowId != 't1' GROUP BY ExecutionStatus".into(),
    };
    let counted = service.count_workflow_executions(request.into_request()).await.unwrap().into_inner();
    let groups: Vec<(Vec<u8>, i64)> =
        counted.groups.into_iter().map(|g| (g.group_values[0].data.clone(), g.count)).collect();
    assert_eq!((counted.count, groups), (3, vec![(b"\"Running\"".to_vec(), 1), (b"\"Completed\"".to_vec(), 2)]));
    assert_eq!(ids(&mut service, "ORDER BY CloseTime").await.unwrap(), ["t1", "t2", "t3", "open"]);
    let long =
        "ExecutionDuration < '1h' AND CloseTime > '2020-01-01T00:00:00Z' AND HistoryLength > 5 ORDER BY WorkflowId";
    assert_eq!(ids(&mut service, long).await.unwrap(), ["t1", "t2", "t3"]);
    let refused = ids(&mut service, "ORDER BY Colour").await.unwrap_err();
    assert!(refused.message().contains("Colour"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pollers_of_other_processes_are_described_too() {
    let database = TestDatabase::new().await;
    let (one, two) = (Host::on(&database).await, Host::on(&database).await);
    let _worker = two.worker();
    let request = || DescribeTaskQueueRequest {
        namespace: "default".into(),
        task_queue: Some(TaskQueue { name: QUEUE.into(), ..Default::default() }),
        report_stats: true,
        ..Default::default()
    };
    for host in [&two, &one] {
        let described = eventually("the poller", || async {
            let mut service = host.engine.connection().await.unwrap();
            let described = service.describe_task_queue(request().into_request()).await.unwrap().into_inner();
            (described.pollers.len() == 1).then_some(described)
        });
        let described = described.await;
        assert!(described.pollers[0].identity.ends_with("@engine"), "{described:?}");
        assert_eq!(described.stats.unwrap().approximate_backlog_count, 0);
    }
}
