//! Reset: a new run from an earlier workflow task.

use std::time::Duration;

use ambient_tests::TestDatabase;
use futures::future::join_all;
use temporalio_client::{
    UntypedWorkflow, WorkflowDescribeOptions, WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHistory,
    WorkflowSignalOptions, grpc::WorkflowService,
};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    enums::v1::{EventType, ResetReapplyExcludeType as Exclude, WorkflowExecutionStatus, WorkflowTaskFailedCause},
    history::v1::{HistoryEvent, history_event::Attributes},
    workflowservice::v1::ResetWorkflowExecutionRequest,
};
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};
use tonic::{Code, IntoRequest, Status};

use crate::{
    flows::{self, Policy},
    harness::{Host, attributes, eventually, kinds, options},
};

fn request(workflow_id: &str, run_id: &str, event_id: i64) -> ResetWorkflowExecutionRequest {
    ResetWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_execution: Some(WorkflowExecution { workflow_id: workflow_id.into(), run_id: run_id.into() }),
        reason: "try again".into(),
        workflow_task_finish_event_id: event_id,
        request_id: uuid(),
        ..Default::default()
    }
}

fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

async fn reset(host: &Host, request: ResetWorkflowExecutionRequest) -> Result<String, Status> {
    let mut service = host.engine.connection().await.unwrap();
    Ok(service.reset_workflow_execution(request.into_request()).await?.into_inner().run_id)
}

/// Id of the first event of a kind.
fn first(events: &[HistoryEvent], kind: EventType) -> i64 {
    events.iter().find(|e| e.event_type() == kind).unwrap().event_id
}

fn count(events: &[HistoryEvent], kind: EventType) -> usize {
    events.iter().filter(|e| e.event_type() == kind).count()
}

async fn waits_for_start_of_task(host: &Host, id: &str, completed: usize) -> Vec<HistoryEvent> {
    eventually("completed tasks", || async {
        let events = host.history(id).await;
        (count(&events, EventType::WorkflowTaskCompleted) >= completed).then_some(events)
    })
    .await
}

async fn run_of(host: &Host, id: &str) -> (String, WorkflowExecutionStatus) {
    let handle = host.client.get_workflow_handle::<UntypedWorkflow>(id);
    let info = handle.describe(WorkflowDescribeOptions::default()).await.unwrap().into_raw();
    let info = info.workflow_execution_info.unwrap();
    (info.execution.clone().unwrap().run_id, info.status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_workflow_goes_on_from_an_earlier_task() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let handle = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("w")).await.unwrap();
    handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    let before = host.history("w").await;
    let second: i64 =
        before.iter().filter(|e| e.event_type() == EventType::WorkflowTaskCompleted).nth(1).unwrap().event_id;
    let kept = usize::try_from(second - 1).unwrap();
    let asked = request("w", "", second);
    let run = reset(&host, asked.clone()).await.unwrap();
    assert_eq!(reset(&host, asked).await.unwrap(), run, "one request, one reset");
    let again = host.client.get_workflow_handle::<flows::Three>("w");
    assert_eq!(again.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "axxx");
    let after = host.history("w").await;
    assert_eq!(after[..kept], before[..kept], "the same history up to there");
    let Attributes::WorkflowTaskFailedEventAttributes(failed) = attributes(&after)[kept] else {
        panic!("{:?}", kinds(&after))
    };
    assert_eq!(failed.cause(), WorkflowTaskFailedCause::ResetWorkflow);
    assert_eq!(
        (failed.base_run_id.as_str(), failed.new_run_id.as_str()),
        (handle.info().run_id.as_deref().unwrap(), run.as_str())
    );
    let json = again.fetch_history(WorkflowFetchHistoryOptions::default()).to_json().await.unwrap();
    let registered = WorkflowReplayerOptions::new().register_workflow::<flows::Three>().unwrap().build();
    let replayer = WorkflowReplayer::new(registered).unwrap();
    replayer.replay_workflow(WorkflowHistory::from_json(&json).unwrap()).await.unwrap();

    for (event, said) in
        [(1, "Workflow task finish ID"), (1000, "Workflow task finish ID"), (second + 2, "Can only reset")]
    {
        let status = reset(&host, request("w", handle.info().run_id.as_deref().unwrap(), event)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(said), "{status}");
    }
    assert_eq!(reset(&host, request("nobody", "", 4)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_and_updates_after_the_reset_point_are_applied_again() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    host.client.start_workflow(flows::Ledger::run, 0u32, options("w")).await.unwrap();
    let handle = host.client.get_workflow_handle::<flows::Ledger>("w");
    let events = waits_for_start_of_task(&host, "w", 1).await;
    let point = first(&events, EventType::WorkflowTaskCompleted);
    for n in [3i64, 4] {
        handle.execute_update(flows::Ledger::add, n, Default::default()).await.unwrap();
    }
    let first_run = run_of(&host, "w").await.0;
    let run = reset(&host, request("w", "", point)).await.unwrap();
    assert_eq!(handle.execute_update(flows::Ledger::add, 5, Default::default()).await.unwrap(), 12);
    let events = host.history("w").await;
    assert_eq!(count(&events, EventType::WorkflowExecutionUpdateAdmitted), 2);
    assert_eq!(count(&events, EventType::WorkflowExecutionUpdateCompleted), 3);
    let ended = host.client.get_workflow_handle::<UntypedWorkflow>("w");
    assert_eq!(
        ended
            .describe(Default::default())
            .await
            .unwrap()
            .into_raw()
            .workflow_execution_info
            .unwrap()
            .execution
            .unwrap()
            .run_id,
        run
    );
    // Once more, without updates, from the run that is closed now.
    let mut bare = request("w", &first_run, point);
    bare.set_reset_reapply_exclude_types([Exclude::Update]);
    reset(&host, bare).await.unwrap();
    assert_eq!(handle.execute_update(flows::Ledger::add, 1, Default::default()).await.unwrap(), 1);
    handle.signal(flows::Ledger::finish, (), WorkflowSignalOptions::default()).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 1);
    // The signal that ended it is applied again.
    let events = host.history("w").await;
    let point = first(&events, EventType::WorkflowTaskCompleted);
    reset(&host, request("w", "", point)).await.unwrap();
    assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), 1);
}

trait Excludes {
    fn set_reset_reapply_exclude_types(&mut self, kinds: impl IntoIterator<Item = Exclude>);
}

impl Excludes for ResetWorkflowExecutionRequest {
    fn set_reset_reapply_exclude_types(&mut self, kinds: impl IntoIterator<Item = Exclude>) {
        self.reset_reapply_exclude_types = kinds.into_iter().map(|k| k as i32).collect();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_activities_and_children_of_the_reset_point_are_open_again() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let worker = host.worker();
    // A child that runs over the reset.
    host.client.start_workflow(flows::Guardian::run, Policy::Terminate, options("g")).await.unwrap();
    let events = waits_for_start_of_task(&host, "g", 2).await;
    let point = events.iter().filter(|e| e.event_type() == EventType::WorkflowTaskCompleted).nth(1).unwrap().event_id;
    reset(&host, request("g", "", point)).await.unwrap();
    let child = host.client.get_workflow_handle::<flows::Inbox>("g-child");
    assert_eq!(run_of(&host, "g-child").await.1, WorkflowExecutionStatus::Running, "a reset does not end it");
    child.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    eventually("the child's end at its new parent", || async {
        (count(&host.history("g").await, EventType::ChildWorkflowExecutionCompleted) == 1).then_some(())
    })
    .await;
    let parent = host.client.get_workflow_handle::<flows::Guardian>("g");
    parent.signal(flows::Guardian::end, (), WorkflowSignalOptions::default()).await.unwrap();
    parent.get_result(WorkflowGetResultOptions::default()).await.unwrap();

    // Reset again before the child's start: the new parent's close policy reaches the child.
    host.client.start_workflow(flows::Guardian::run, Policy::Terminate, options("p")).await.unwrap();
    waits_for_start_of_task(&host, "p", 2).await;
    reset(&host, request("p", "", point)).await.unwrap();
    let parent = host.client.get_workflow_handle::<flows::Guardian>("p");
    parent.signal(flows::Guardian::end, (), WorkflowSignalOptions::default()).await.unwrap();
    parent.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    eventually("the child's end", || async {
        (run_of(&host, "p-child").await.1 == WorkflowExecutionStatus::Terminated).then_some(())
    })
    .await;

    // A timer that has an hour to go, and a step nobody takes.
    host.client.start_workflow(flows::Sleeper::run, 3600u64, options("s")).await.unwrap();
    let sleeper = waits_for_start_of_task(&host, "s", 1).await;
    host.client.start_workflow(flows::Elsewhere::run, false, options("e")).await.unwrap();
    let elsewhere = host.client.get_workflow_handle::<flows::Elsewhere>("e");
    assert_eq!(elsewhere.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "left waiting");
    drop(worker);
    let point = first(&sleeper, EventType::WorkflowTaskCompleted);
    let status = reset(&host, request("s", "", point + 1)).await.unwrap_err();
    assert!(status.message().contains("Can only reset"), "{status}");
    reset(&host, request("s", "", point)).await.unwrap();
    let second = host
        .history("e")
        .await
        .iter()
        .filter(|e| e.event_type() == EventType::WorkflowTaskCompleted)
        .nth(1)
        .unwrap()
        .event_id;
    reset(&host, request("e", "", second)).await.unwrap();
    let describe = elsewhere.describe(WorkflowDescribeOptions::default()).await.unwrap().into_raw();
    assert_eq!(describe.pending_activities.len(), 1, "open again");
    let _worker = host.worker();
    assert_eq!(elsewhere.get_result(WorkflowGetResultOptions::default()).await.unwrap(), "left waiting");
    waits_for_start_of_task(&host, "s", 1).await;
    host.engine.advance_clock(Duration::from_secs(3601)).await.unwrap();
    let slept = host.client.get_workflow_handle::<flows::Sleeper>("s");
    assert!(slept.get_result(WorkflowGetResultOptions::default()).await.unwrap() >= 3600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_and_signals_from_two_processes_leave_one_open_run_and_lose_nothing() {
    let database = TestDatabase::new().await;
    let (one, two) = (Host::on(&database).await, Host::on(&database).await);
    let (_first, _second) = (one.worker(), two.worker());
    one.client.start_workflow(flows::Inbox::run, 40usize, options("w")).await.unwrap();
    let point = first(&waits_for_start_of_task(&one, "w", 1).await, EventType::WorkflowTaskCompleted);
    let inbox = two.client.get_workflow_handle::<flows::Inbox>("w");
    let signals = join_all((0..39).map(|n| {
        let inbox = &inbox;
        async move {
            // Between two runs there is no moment without one.
            inbox.signal(flows::Inbox::put, n.to_string(), WorkflowSignalOptions::default()).await.unwrap();
        }
    }));
    let resets = join_all((0..6).map(|n| {
        let host = if n % 2 == 0 { &one } else { &two };
        reset(host, request("w", "", point))
    }));
    let (_, runs) = tokio::join!(signals, resets);
    let runs: std::collections::HashSet<_> = runs.into_iter().map(Result::unwrap).collect();
    assert_eq!(runs.len(), 6);
    let pool = database.pool().await;
    let open: Vec<String> = sqlx::query_scalar("select run_id::text from engine.runs where workflow_id = 'w'")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(open, [run_of(&one, "w").await.0]);
    inbox.signal(flows::Inbox::put, "39".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    let mut got = inbox.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    got.sort_by_key(|n| n.parse::<u32>().unwrap());
    assert_eq!(got, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
}
