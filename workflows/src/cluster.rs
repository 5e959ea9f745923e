//! A Temporal cluster in place of the embedded engine.
//!
//! Invariants: a cluster that cannot be reached delays work but loses none, so the attempt to connect never gives up; what is wrong
//! is in [`Cluster::check`] within seconds. The namespace, and in it the search
//! attribute for projects, are created if they are missing and the cluster allows it.

use std::{sync::Arc, time::Duration};

use ambient_persistence::retry::Backoff;
use futures::future::BoxFuture;

use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, TlsOptions,
    tonic::{Code, IntoRequest as _, Status},
};
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeNamespaceRequest, RegisterNamespaceRequest,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use url::Url;

use crate::{engine_client::EngineClient, project_attribute, worker::whole};

/// Timeout of one attempt to connect, or one check of the cluster.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between attempts to connect: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two checks of a connected cluster.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Called with the namespace's id before anything is started there; an error says why it must not be used.
pub type Claim = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Which cluster, and how to get in.
#[derive(Clone)]
pub struct ClusterOptions {
    /// Frontend: `http://host:port`, or `https://` with TLS.
    pub target: Url,
    /// Namespace of all executions.
    pub namespace: String,
    /// How long closed executions are kept; applies if the namespace is created here.
    pub retention: Duration,
    /// TLS, with a client certificate for mTLS.
    pub tls: Option<TlsOptions>,
    /// API key, sent with every call.
    pub api_key: Option<String>,
    /// How this process identifies itself, for people.
    pub identity: String,
    /// Whether the namespace is the one that belongs to the database.
    pub claim: Claim,
}

/// A cluster that is connected, or being connected to.
pub struct Cluster {
    client: EngineClient,
    health: watch::Receiver<Result<(), String>>,
    keeper: JoinHandle<()>,
}

impl Cluster {
    /// Starts to connect and returns at once.
    #[must_use]
    pub fn connect(options: ClusterOptions) -> Self {
        let at = format!("Temporal at {} is not connected yet", options.target);
        let (client_sender, client) = watch::channel(Err(at.clone()));
        let (health_sender, health) = watch::channel(Err(at));
        let keeper = tokio::spawn(async move {
            let client = connect(&options, &health_sender).await;
            let _ = client_sender.send_replace(Ok(client.clone()));
            look_on(&client, &options, &health_sender).await;
        });
        Self { client: EngineClient::awaited(client), health, keeper }
    }

    /// The client, for everything that works with the cluster.
    #[must_use]
    pub fn client(&self) -> EngineClient {
        self.client.clone()
    }

    /// Whether the cluster responded recently.
    pub fn check(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let health = self.health.clone();
        move || health.borrow().clone()
    }

    /// Ends the checks of the cluster.
    pub fn shutdown(self) {
        self.keeper.abort();
    }
}

async fn connect(options: &ClusterOptions, health: &watch::Sender<Result<(), String>>) -> Client {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        match attempt(options).await {
            Ok(client) => {
                tracing::info!(target = %options.target, namespace = options.namespace, "connected to Temporal");
                let _ = health.send_replace(Ok(()));
                return client;
            }
            Err(problem) => {
                tracing::warn!(problem, "Temporal cannot be used yet");
                let _ = health.send_replace(Err(problem));
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn attempt(options: &ClusterOptions) -> Result<Client, String> {
    let at = |problem: String| format!("Temporal at {}: {problem}", options.target);
    let connected = timeout(PATIENCE, Connection::connect(connection_options(options))).await;
    let connection = connected.map_err(|_| at("no answer".to_owned()))?.map_err(|error| at(whole(&error)))?;
    let client = ClientOptions::new(options.namespace.clone()).build();
    let client = Client::new(connection, client).map_err(|error| at(error.to_string()))?;
    let within_namespace = |problem: &str| at(format!("namespace {}: {problem}", options.namespace));
    match timeout(PATIENCE, ensure_namespace(&client, options)).await {
        Ok(Ok(id)) => (options.claim)(id).await.map_err(at)?,
        Ok(Err(status)) => return Err(within_namespace(status.message())),
        Err(_) => return Err(at("no answer".to_owned())),
    }
    match timeout(PATIENCE, project_attribute::ensure(&client)).await {
        Ok(ensured) => ensured.map(|()| client).map_err(|problem| within_namespace(&problem)),
        Err(_) => Err(within_namespace(&format!("search attribute {} is not known yet", project_attribute::NAME))),
    }
}

fn connection_options(options: &ClusterOptions) -> ConnectionOptions {
    ConnectionOptions::new(options.target.clone())
        .identity(options.identity.clone())
        .connect_timeout(PATIENCE)
        .maybe_tls_options(options.tls.clone())
        .maybe_api_key(options.api_key.clone())
        .build()
}

/// Its id.
async fn ensure_namespace(client: &Client, options: &ClusterOptions) -> Result<String, Status> {
    match describe_namespace(client).await {
        Err(status) if status.code() == Code::NotFound => {}
        described => return described,
    }
    let request = RegisterNamespaceRequest {
        namespace: options.namespace.clone(),
        description: "Ambient".to_owned(),
        workflow_execution_retention_period: prost_types::Duration::try_from(options.retention).ok(),
        ..Default::default()
    };
    match client.connection().workflow_service().register_namespace(request.into_request()).await {
        Ok(_) => tracing::info!(namespace = options.namespace, "created the namespace"),
        // Another server was faster.
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => {
            return Err(Status::new(
                status.code(),
                format!("does not exist and cannot be created: {}", status.message()),
            ));
        }
    }
    // Each part of the cluster learns of it in its own time.
    loop {
        match describe_namespace(client).await {
            Err(status) if status.code() == Code::NotFound => tokio::time::sleep(FIRST_PAUSE).await,
            described => return described,
        }
    }
}

async fn describe_namespace(client: &Client) -> Result<String, Status> {
    let request = DescribeNamespaceRequest { namespace: client.options().namespace.clone(), ..Default::default() };
    client
        .connection()
        .workflow_service()
        .describe_namespace(request.into_request())
        .await
        .map(|answer| answer.into_inner().namespace_info.unwrap_or_default().id)
}

/// Keeps the health up to date as long as it runs. The connection repairs itself.
async fn look_on(client: &Client, options: &ClusterOptions, health: &watch::Sender<Result<(), String>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let found = match timeout(PATIENCE, describe_namespace(client)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(format!("Temporal at {}: {}", options.target, status.message())),
            Err(_) => Err(format!("Temporal at {}: no answer", options.target)),
        };
        health.send_if_modified(|known| {
            let changed = *known != found;
            if changed {
                tracing::warn!(state = ?found, "Temporal");
                *known = found;
            }
            changed
        });
    }
}
