//! A database, an engine on it, workers with the real SDK.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ambient_engine::{Engine, EngineOptions, ServeLimits, integrity};
use ambient_tests::TestDatabase;
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, WorkflowFetchHistoryOptions, WorkflowStartOptions,
};
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes};
use temporalio_sdk::{Runtime, Worker, WorkerOptions};

use crate::flows::{self, Acts, Probe};

pub const QUEUE: &str = "work";

/// An engine and a client of it, as one process would have.
pub struct Host {
    pub engine: Engine,
    pub client: Client,
    pub probe: Arc<Probe>,
    pool: sqlx::PgPool,
}

impl Host {
    pub async fn on(database: &TestDatabase) -> Self {
        Self::start(database.pool().await).await
    }

    pub async fn start(pool: sqlx::PgPool) -> Self {
        let engine = Engine::start(pool.clone(), EngineOptions::default()).await.unwrap();
        let client = client(&engine).await;
        Self { engine, client, probe: Arc::default(), pool }
    }

    /// An engine that listens; client and workers come over the socket.
    pub async fn served(database: &TestDatabase) -> (Self, SocketAddr) {
        let pool = database.pool().await;
        let engine = Engine::start(pool.clone(), EngineOptions::default()).await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = engine.clone();
        tokio::spawn(
            async move { serving.serve(listener, None, ServeLimits::default(), std::future::pending()).await },
        );
        let client = dial(address, "over-the-socket").await;
        (Self { engine, client, probe: Arc::default(), pool }, address)
    }

    pub fn worker(&self) -> Working {
        self.worker_on(QUEUE)
    }

    pub fn worker_on(&self, queue: &'static str) -> Working {
        work(self.client.clone(), queue, Arc::clone(&self.probe))
    }

    /// How many updates of the open run have no outcome yet, as stored.
    pub async fn in_flight(&self, workflow_id: &str) -> usize {
        let stored: Option<Vec<u8>> = sqlx::query_scalar("select updates from engine.runs where workflow_id = $1")
            .bind(workflow_id)
            .fetch_optional(&self.pool)
            .await
            .unwrap();
        // Field 1 of the record, once per update.
        let mut bytes = stored.unwrap_or_default();
        let mut count = 0;
        while bytes.first() == Some(&0x0a) {
            let (mut length, mut at, mut shift) = (0usize, 1, 0);
            loop {
                length |= usize::from(bytes[at] & 0x7f) << shift;
                shift += 7;
                at += 1;
                if bytes[at - 1] < 0x80 {
                    break;
                }
            }
            bytes.drain(..at + length);
            count += 1;
        }
        count
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

/// Whatever a test has done, what is stored is sound, also while work goes on.
impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let options = (*self.pool.connect_options()).clone();
        let check = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = sqlx::PgPool::connect_with(options).await.unwrap();
                let mut problems = Vec::new();
                integrity::check(&pool, |problem| problems.push(problem)).await.unwrap();
                pool.close().await;
                problems
            })
        });
        assert_eq!(check.join().unwrap(), [], "the database is sound");
    }
}

/// A client over TCP, as the SDK makes one.
pub async fn dial(address: SocketAddr, identity: &str) -> Client {
    let target = url::Url::parse(&format!("http://{address}")).unwrap();
    let options = ConnectionOptions::new(target).identity(identity.to_owned()).build();
    let connection = Connection::connect(options).await.unwrap();
    Client::new(connection, ClientOptions::new("default").build()).unwrap()
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

pub fn work(client: Client, queue: &'static str, probe: Arc<Probe>) -> Working {
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
                .register_workflow::<flows::Ledger>()
                .unwrap()
                .register_workflow::<flows::Deferred>()
                .unwrap()
                .register_workflow::<flows::Naps>()
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
