//! Histories are Temporal histories: the SDK's replayer reads them, and notices a changed workflow.

use ambient_tests::TestDatabase;
use temporalio_client::{
    WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowHistory, WorkflowSignalOptions,
};
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};

use crate::{
    flows,
    harness::{Host, options},
};

async fn fetch(host: &Host, id: &str) -> WorkflowHistory {
    let handle = host.client.get_workflow_handle::<flows::Three>(id);
    let json = handle.fetch_history(WorkflowFetchHistoryOptions::default()).to_json().await.unwrap();
    WorkflowHistory::from_json(&json).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_replays_and_a_changed_workflow_is_caught() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let worker = host.worker();
    let client = &host.client;
    client.start_workflow(flows::Three::run, "a".to_owned(), options("three")).await.unwrap();
    client.start_workflow(flows::Retries::run, 3u32, options("retries")).await.unwrap();
    client.start_workflow(flows::Refused::run, (), options("refused")).await.unwrap();
    client.start_workflow(flows::Chain::run, 1u32, options("chain")).await.unwrap();
    client.start_workflow(flows::Patched::run, (), options("patched")).await.unwrap();
    let inbox = client.start_workflow(flows::Inbox::run, 40usize, options("inbox")).await.unwrap();
    for n in 0..40 {
        inbox.signal(flows::Inbox::put, n.to_string(), WorkflowSignalOptions::default()).await.unwrap();
    }
    let cleans = client.start_workflow(flows::CleansUp::run, (), options("cleans")).await.unwrap();
    host.probe.started.notified().await;
    cleans.cancel(Default::default()).await.unwrap();
    let input = ("caught".to_owned(), "refused".to_owned());
    client.start_workflow(flows::Watcher::run, input, options("watcher")).await.unwrap();
    let ids = ["three", "retries", "refused", "chain", "patched", "inbox", "cleans", "watcher"];
    for id in ids {
        let handle = client.get_workflow_handle::<flows::Three>(id);
        let _ = handle.get_result(WorkflowGetResultOptions::default()).await;
    }
    drop(worker);

    let registered = WorkflowReplayerOptions::new()
        .register_workflow::<flows::Three>()
        .unwrap()
        .register_workflow::<flows::Retries>()
        .unwrap()
        .register_workflow::<flows::Refused>()
        .unwrap()
        .register_workflow::<flows::Chain>()
        .unwrap()
        .register_workflow::<flows::Patched>()
        .unwrap()
        .register_workflow::<flows::Inbox>()
        .unwrap()
        .register_workflow::<flows::CleansUp>()
        .unwrap()
        .register_workflow::<flows::Watcher>()
        .unwrap()
        .build();
    let replayer = WorkflowReplayer::new(registered).unwrap();
    for id in ids {
        replayer.replay_workflow(fetch(&host, id).await).await.unwrap_or_else(|e| panic!("{id}: {e}"));
    }

    let changed = WorkflowReplayerOptions::new().register_workflow::<flows::ThreeChanged>().unwrap().build();
    let error = WorkflowReplayer::new(changed).unwrap().replay_workflow(fetch(&host, "three").await).await.unwrap_err();
    assert!(error.to_string().contains("refund"), "{error}");
}
