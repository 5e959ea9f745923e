//! The engine that runs this server's workflows: the embedded one, or a Temporal cluster. Everything else sees a client.

use std::{fs, path::Path, sync::Arc, time::Duration};

use ambient_engine::{Engine, EngineOptions};
use ambient_persistence::Database;
use ambient_workflows::{Claim, Cluster, ClusterOptions, EngineClient, WorkerSettings};
use futures::FutureExt as _;
use temporalio_client::{Client, ClientOptions, ClientTlsOptions, TlsOptions};
use temporalio_common::worker::{
    VersioningBehavior, WorkerDeploymentOptions, WorkerDeploymentVersion, build_id_from_current_exe,
};

use crate::config::{self, ServerConfig, TemporalConfig, WorkerVersioning};

/// Namespace of the embedded engine.
const EMBEDDED_NAMESPACE: &str = "default";

/// A running engine, or a connection to one.
pub(crate) enum WorkflowEngine {
    Embedded { engine: Engine, client: EngineClient },
    Temporal { cluster: Cluster, namespace: String },
}

impl WorkflowEngine {
    /// Starts the embedded engine, or starts to connect to the cluster.
    pub(crate) async fn start(config: &ServerConfig, db: &Database) -> Result<Self, String> {
        let identity = format!("{}@{}", std::process::id(), config.host);
        let retention = DAY * config.retention_days;
        if config.engine == config::Engine::Temporal {
            let options = cluster_options(&config.temporal, identity, retention, claim(db))?;
            return Ok(Self::Temporal { namespace: options.namespace.clone(), cluster: Cluster::connect(options) });
        }
        let options = EngineOptions { identity, retention, ..EngineOptions::default() };
        let engine = Engine::start(db.pool().clone(), options).await.map_err(|error| error.to_string())?;
        let connection = engine.connection().await.map_err(|error| error.to_string())?;
        let client = Client::new(connection, ClientOptions::new(EMBEDDED_NAMESPACE).build());
        Ok(Self::Embedded { engine, client: EngineClient::ready(client.map_err(|error| error.to_string())?) })
    }

    /// The client, for worker, dispatcher and edge.
    pub(crate) fn client(&self) -> EngineClient {
        match self {
            Self::Embedded { client, .. } => client.clone(),
            Self::Temporal { cluster, .. } => cluster.client(),
        }
    }

    /// Namespace of all executions.
    pub(crate) fn namespace(&self) -> String {
        match self {
            Self::Embedded { .. } => EMBEDDED_NAMESPACE.to_owned(),
            Self::Temporal { namespace, .. } => namespace.clone(),
        }
    }

    /// Whether the engine works: it holds its lease, or the cluster responds.
    pub(crate) fn readiness(&self) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
        match self {
            Self::Embedded { engine, .. } => {
                let engine = engine.clone();
                Box::new(move || engine.readiness())
            }
            Self::Temporal { cluster, .. } => Box::new(cluster.check()),
        }
    }

    /// Releases what this process holds.
    pub(crate) async fn shutdown(self) {
        match self {
            Self::Embedded { engine, .. } => engine.shutdown().await,
            Self::Temporal { cluster, .. } => cluster.shutdown(),
        }
    }
}

/// How the worker identifies itself.
pub(crate) fn worker_settings(config: &ServerConfig) -> WorkerSettings {
    let temporal = &config.temporal;
    let behaviour = match (config.engine, temporal.worker_versioning) {
        (config::Engine::Embedded, _) | (_, WorkerVersioning::Off) => None,
        (_, WorkerVersioning::Pinned) => Some(VersioningBehavior::Pinned),
        (_, WorkerVersioning::AutoUpgrade) => Some(VersioningBehavior::AutoUpgrade),
    };
    let build_id = temporal.worker_build_id.clone();
    let build_id = build_id.unwrap_or_else(|| build_id_from_current_exe().to_owned());
    let deployment = match behaviour {
        None => WorkerDeploymentOptions::from_build_id(build_id),
        Some(behaviour) => {
            let version = WorkerDeploymentVersion::builder()
                .deployment_name(temporal.worker_deployment.clone())
                .build_id(build_id)
                .build();
            WorkerDeploymentOptions::new(version)
                .use_worker_versioning(true)
                .default_versioning_behavior(behaviour)
                .build()
        }
    };
    WorkerSettings { task_queue: config.task_queue.clone(), deployment: Some(deployment) }
}

/// A namespace of the same name on another cluster would look empty: its id gives it away.
fn claim(db: &Database) -> Claim {
    let db = db.clone();
    Arc::new(move |id| {
        let db = db.clone();
        async move {
            let noted = db.claim_namespace(&id).await.map_err(|error| error.to_string())?;
            if noted == id {
                return Ok(());
            }
            Err(format!("the namespace (id {id}) is not the one that has this database's executions (id {noted})"))
        }
        .boxed()
    })
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Timeout for a cluster to respond when someone is waiting for it.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to the configured cluster for a check, whatever database it belongs to; the second part keeps it alive.
pub(crate) async fn look_into_cluster(config: &TemporalConfig) -> Result<(Client, Cluster), String> {
    let any: Claim = Arc::new(|_| async { Ok(()) }.boxed());
    let cluster = Cluster::connect(cluster_options(config, "ambient".to_owned(), DAY, any)?);
    match tokio::time::timeout(PATIENCE, cluster.client().connected()).await {
        Ok(client) => Ok((client, cluster)),
        Err(_) => Err((cluster.check())().err().unwrap_or_else(|| "no answer".to_owned())),
    }
}

fn cluster_options(
    config: &TemporalConfig,
    identity: String,
    retention: Duration,
    claim: Claim,
) -> Result<ClusterOptions, String> {
    Ok(ClusterOptions {
        target: config.target()?,
        namespace: config.namespace.clone(),
        retention,
        tls: if config.uses_tls() { Some(tls_options(config)?) } else { None },
        api_key: config.api_key.as_ref().map(|key| key.expose().to_owned()),
        identity,
        claim,
    })
}

fn tls_options(config: &TemporalConfig) -> Result<TlsOptions, String> {
    let client = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some(
            ClientTlsOptions::builder()
                .client_cert(pem("temporal_tls_cert", cert)?)
                .client_private_key(pem("temporal_tls_key", key)?)
                .build(),
        ),
        _ => None,
    };
    let authority = config.tls_ca.as_deref().map(|file| pem("temporal_tls_ca", file)).transpose()?;
    Ok(TlsOptions::builder()
        .maybe_server_root_ca_cert(authority)
        .maybe_domain(config.tls_server_name.clone())
        .maybe_client_tls_options(client)
        .build())
}

fn pem(key: &str, file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{key}: {}: {error}", file.display()))
}
