//! The two engines, each with its own worker.

use std::{thread::JoinHandle, time::Duration};

use ambient_engine::{Engine, EngineOptions};
use ambient_tests::TestDatabase;
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions,
    callback_based::CallbackBasedGrpcService,
    tonic::{Code, IntoRequest as _},
};
use temporalio_common::protos::temporal::api::{
    enums::v1::IndexedValueType, operatorservice::v1::AddSearchAttributesRequest,
};
use temporalio_sdk::{Runtime, Worker, WorkerOptions};
use tonic::transport::Endpoint;

use crate::{activities::Activities, forward::forward, record::Recorder, script::Script};

/// Task queue of the worker.
pub const QUEUE: &str = "cases";
/// The same on both, so that it does not differ in histories.
pub const NAMESPACE: &str = "default";
/// A keyword search attribute that is registered on both.
pub const KEYWORD: &str = "CaseKeyword";

/// An engine with a worker.
pub struct Backend {
    pub name: &'static str,
    pub client: Client,
    pub recorder: Recorder,
    stop: Box<dyn Fn() + Send + Sync>,
    worker: JoinHandle<()>,
    embedded: Option<(Engine, TestDatabase)>,
}

impl Backend {
    /// The embedded engine on a database of its own.
    pub async fn embedded() -> Self {
        let database = TestDatabase::new().await;
        Engine::migrate(&database.pool().await).await.unwrap();
        let engine = Engine::start(database.pool().await, EngineOptions::default()).await.unwrap();
        let service = engine.service();
        Self::on("embedded", service, Some((engine, database))).await
    }

    /// A real server at `host:port`.
    pub async fn temporal(address: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self::on("temporal", forward(channel), None).await
    }

    async fn on(
        name: &'static str,
        service: CallbackBasedGrpcService,
        embedded: Option<(Engine, TestDatabase)>,
    ) -> Self {
        let recorder = Recorder::default();
        let options = ConnectionOptions::new(url::Url::parse("http://conformance.invalid").unwrap())
            .service_override(recorder.wrap(service))
            .dns_load_balancing(None)
            .build();
        let connection = Connection::connect(options).await.unwrap();
        let client = Client::new(connection, ClientOptions::new(NAMESPACE).build()).unwrap();
        register_search_attribute(&client).await;
        let (worker, stop) = start_worker(client.clone());
        Self { name, client, recorder, stop, worker, embedded }
    }

    /// Ends worker and engine.
    pub async fn end(self) {
        (self.stop)();
        let worker = self.worker;
        let _ = tokio::task::spawn_blocking(move || worker.join()).await;
        if let Some((engine, database)) = self.embedded {
            engine.shutdown().await;
            drop(database);
        }
    }
}

async fn register_search_attribute(client: &Client) {
    let request = AddSearchAttributesRequest {
        search_attributes: [(KEYWORD.to_owned(), IndexedValueType::Keyword.into())].into(),
        namespace: NAMESPACE.to_owned(),
    };
    match client.connection().operator_service().add_search_attributes(request.into_request()).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => panic!("the search attribute cannot be registered: {status}"),
    }
}

/// `Worker::run` is not `Send`: a thread and a runtime of its own.
fn start_worker(client: Client) -> (JoinHandle<()>, Box<dyn Fn() + Send + Sync>) {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let sdk = Runtime::from_current_tokio(Default::default()).unwrap();
            let options = WorkerOptions::new(QUEUE)
                .register_workflow::<Script>()
                .unwrap()
                .register_activities(Activities)
                .graceful_shutdown_period(Duration::from_millis(200))
                // Heartbeats reach the engine in time to be answered with a cancellation.
                .max_heartbeat_throttle_interval(Duration::from_millis(100))
                .default_heartbeat_throttle_interval(Duration::from_millis(100))
                .build();
            let mut worker = Worker::new(&sdk, client, options).unwrap();
            send.send(worker.shutdown_handle()).unwrap();
            worker.run().await.unwrap();
        });
    });
    let stop = receive.recv().unwrap();
    (thread, Box::new(stop))
}
