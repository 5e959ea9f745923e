//! A database, an engine on it, workers with the real SDK.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ambient_engine::{Engine, EngineOptions};
use ambient_tests::TestDatabase;
use temporalio_client::{Client, ClientOptions, WorkflowFetchHistoryOptions, WorkflowStartOptions};
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes};
use temporalio_sdk::{Runtime, Worker, WorkerOptions};

use crate::flows::{self, Acts, Probe};

pub const QUEUE: &str = "work";

/// An engine and a client of it, as one process would have.
pub struct Host {
    pub engine: Engine,
    pub client: Client,
    pub probe: Arc<Probe>,
}

impl Host {
    pub async fn on(database: &TestDatabase) -> Self {
        Self::start(database.pool().await).await
    }

    pub async fn start(pool: sqlx::PgPool) -> Self {
        let engine = Engine::start(pool, EngineOptions::default()).await.unwrap();
        let client = client(&engine).await;
        Self { engine, client, probe: Arc::default() }
    }

    pub fn worker(&self) -> Working {
        self.worker_on(QUEUE)
    }

    pub fn worker_on(&self, queue: &'static str) -> Working {
        work(self.client.clone(), queue, Arc::clone(&self.probe))
    }

    /// The history of a workflow's latest run, which must replay.
    pub async fn history(&self, workflow_id: &str) -> Vec<HistoryEvent> {
        let handle = self.client.get_workflow_handle::<flows::Three>(workflow_id);
        let events = handle.fetch_history(WorkflowFetchHistoryOptions::default()).into_events().await.unwrap();
        for (position, event) in events.iter().enumerate() {
            assert_eq!(event.event_id, position as i64 + 1, "event ids are dense");
        }
        events
    }
}

pub async fn client(engine: &Engine) -> Client {
    Client::new(engine.connection().await.unwrap(), ClientOptions::new("default").build()).unwrap()
}

pub fn options(workflow_id: &str) -> WorkflowStartOptions {
    WorkflowStartOptions::new(QUEUE, workflow_id).build()
}

/// A worker on its own thread; stopped when dropped.
pub struct Working {
    thread: Option<std::thread::JoinHandle<()>>,
    stop: Box<dyn Fn() + Send + Sync>,
}

impl Working {
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        (self.stop)();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.end();
    }
}

fn work(client: Client, queue: &'static str, probe: Arc<Probe>) -> Working {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let sdk = Runtime::from_current_tokio(Default::default()).unwrap();
            let options = WorkerOptions::new(queue)
                .register_workflow::<flows::Three>()
                .unwrap()
                .register_workflow::<flows::Retries>()
                .unwrap()
                .register_workflow::<flows::SlowRetries>()
                .unwrap()
                .register_workflow::<flows::Refused>()
                .unwrap()
                .register_workflow::<flows::Sleeper>()
                .unwrap()
                .register_workflow::<flows::Inbox>()
                .unwrap()
                .register_workflow::<flows::CleansUp>()
                .unwrap()
                .register_workflow::<flows::Guardian>()
                .unwrap()
                .register_workflow::<flows::Chain>()
                .unwrap()
                .register_workflow::<flows::Watcher>()
                .unwrap()
                .register_workflow::<flows::Caller>()
                .unwrap()
                .register_workflow::<flows::Hangs>()
                .unwrap()
                .register_workflow::<flows::Elsewhere>()
                .unwrap()
                .register_workflow::<flows::Local>()
                .unwrap()
                .register_workflow::<flows::Patched>()
                .unwrap()
                .register_activities(Acts { probe })
                .graceful_shutdown_period(Duration::from_millis(200))
                .build();
            let mut worker = Worker::new(&sdk, client, options).unwrap();
            let stop: Box<dyn Fn() + Send + Sync> = Box::new(worker.shutdown_handle());
            send.send(stop).unwrap();
            worker.run().await.unwrap();
        });
    });
    Working { thread: Some(thread), stop: receive.recv().unwrap() }
}

/// Polls until `check` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Event types, in short.
pub fn kinds(events: &[HistoryEvent]) -> Vec<String> {
    events.iter().map(|e| format!("{:?}", e.event_type())).collect()
}

pub fn attributes(events: &[HistoryEvent]) -> Vec<&Attributes> {
    events.iter().filter_map(|e| e.attributes.as_ref()).collect()
}
