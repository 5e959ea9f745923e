//! The engine that runs a test's workflows: the embedded one, or with `AMBIENT_TEST_ENGINE=temporal` a real Temporal server at
//! `AMBIENT_TEST_TEMPORAL`, in the test's own namespace.

use std::{sync::Arc, time::Duration};

use ambient_conformance::forward::forward;
use ambient_engine::{Engine, EngineOptions};
use ambient_persistence::{Database, new_id};
use ambient_workflows::{ENTITY_WORKFLOWS, ExecutionFilter, Executions};
use futures::FutureExt as _;
use prost::Message as _;
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions,
    callback_based::{CallbackBasedGrpcService, GrpcRequest},
    tonic::{IntoRequest as _, Status, transport::Endpoint},
};
use temporalio_common::protos::temporal::api::{
    command::v1::command::Attributes,
    workflowservice::v1::{DescribeNamespaceRequest, RegisterNamespaceRequest, RespondWorkflowTaskCompletedRequest},
};
use tokio::sync::watch;

/// Workflows that look at the clocks when they are woken, just as when their timer fires.
const WAKEABLE: [&str; 2] = ["session-supervise", "token-refresh"];

/// Others the SDK's client tries again for a minute.
const FATAL: &str = "grpc: received message larger than max (for the test)";

pub(crate) enum TestEngine {
    Embedded(Engine),
    Temporal { namespace: String },
}

/// Whether this run of the tests is on a Temporal server.
pub(crate) fn is_temporal() -> bool {
    std::env::var("AMBIENT_TEST_ENGINE").is_ok_and(|engine| engine == "temporal")
}

impl TestEngine {
    /// The engine, and a client whose polls fail for good while `polls_fail` is true. With `short_timers` a real server's timers
    /// take seconds at most: its clock cannot be moved.
    pub(crate) async fn start(db: &Database, polls_fail: watch::Receiver<bool>, short_timers: bool) -> (Self, Client) {
        if !is_temporal() {
            let engine = Engine::start(db.pool().clone(), EngineOptions::default()).await.unwrap();
            let service = with_polls_that_fail(engine.service(), polls_fail);
            return (Self::Embedded(engine), client(service, "default").await);
        }
        let address = std::env::var("AMBIENT_TEST_TEMPORAL").expect("AMBIENT_TEST_TEMPORAL");
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let service = if short_timers { with_short_timers(forward(channel)) } else { forward(channel) };
        let namespace = format!("saga-{}", new_id());
        let client = client(with_polls_that_fail(service, polls_fail), &namespace).await;
        make_namespace(&client, &namespace).await;
        (Self::Temporal { namespace }, client)
    }

    pub(crate) fn namespace(&self) -> String {
        match self {
            Self::Embedded(_) => "default".to_owned(),
            Self::Temporal { namespace } => namespace.clone(),
        }
    }

    /// Moves the engine's clock, or wakes who looks at clocks.
    pub(crate) async fn advance(&self, by: Duration, executions: &Executions) {
        if let Self::Embedded(engine) = self {
            engine.advance_clock(by).await.unwrap();
            return;
        }
        for workflow in ENTITY_WORKFLOWS.into_iter().filter(|workflow| WAKEABLE.contains(workflow)) {
            let (workflow, status) = (Some(workflow.to_owned()), Some("Running".to_owned()));
            let filter = ExecutionFilter { workflow, status, page: 1, size: 100, ..ExecutionFilter::default() };
            for execution in executions.list(&filter).await.unwrap().0 {
                // It may have ended since.
                let _ = executions.signal(&execution.id, "wake", &serde_json::Value::Null).await;
            }
        }
    }

    pub(crate) async fn shutdown(self) {
        if let Self::Embedded(engine) = self {
            engine.shutdown().await;
        }
    }
}

async fn client(service: CallbackBasedGrpcService, namespace: &str) -> Client {
    let options = ConnectionOptions::new(url::Url::parse("http://engine.invalid").unwrap())
        .service_override(service)
        .dns_load_balancing(None)
        .build();
    let connection = Connection::connect(options).await.unwrap();
    Client::new(connection, ClientOptions::new(namespace).build()).unwrap()
}

async fn make_namespace(client: &Client, namespace: &str) {
    let mut service = client.connection().workflow_service();
    let request = RegisterNamespaceRequest {
        namespace: namespace.to_owned(),
        workflow_execution_retention_period: prost_types::Duration::try_from(Duration::from_secs(86_400)).ok(),
        ..Default::default()
    };
    service.register_namespace(request.into_request()).await.unwrap();
    crate::world::wait_for("the namespace", || async {
        let request = DescribeNamespaceRequest { namespace: namespace.to_owned(), ..Default::default() };
        client.connection().workflow_service().describe_namespace(request.into_request()).await.ok()
    })
    .await;
}

fn with_polls_that_fail(
    inner: CallbackBasedGrpcService,
    polls_fail: watch::Receiver<bool>,
) -> CallbackBasedGrpcService {
    let callback = Arc::new(move |request: GrpcRequest| {
        let is_poll = request.rpc.starts_with("Poll");
        let (answer, mut fail) = ((inner.callback)(request), polls_fail.clone());
        async move {
            tokio::select! {
                biased;
                Ok(_) = fail.wait_for(|fail| *fail && is_poll) => Err(Status::resource_exhausted(FATAL)),
                answer = answer => answer,
            }
        }
        .boxed()
    });
    CallbackBasedGrpcService { callback }
}

fn with_short_timers(inner: CallbackBasedGrpcService) -> CallbackBasedGrpcService {
    let callback = Arc::new(move |mut request: GrpcRequest| {
        if request.rpc == "RespondWorkflowTaskCompleted" {
            let mut done = RespondWorkflowTaskCompletedRequest::decode(&*request.proto).unwrap();
            for command in &mut done.commands {
                if let Some(Attributes::StartTimerCommandAttributes(timer)) = &mut command.attributes {
                    for wait in timer.start_to_fire_timeout.iter_mut().filter(|wait| wait.seconds >= 5) {
                        // There are many sweeps before one continues as new.
                        let seconds =
                            if wait.seconds == ambient_workflows::sweep::EVERY.as_secs().cast_signed() { 1 } else { 3 };
                        *wait = prost_types::Duration { seconds, nanos: 0 };
                    }
                }
            }
            request.proto = done.encode_to_vec().into();
        }
        (inner.callback)(request)
    });
    CallbackBasedGrpcService { callback }
}
