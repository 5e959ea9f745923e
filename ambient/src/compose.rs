//! The composition root: every part is created here, once, and given what it needs.
//!
//! Start order: schema, vault, actors, live channels, compute, engine, worker, edge; shutdown is the reverse, so that nothing is
//! accepted that cannot be finished.

use std::{net::TcpListener, path::PathBuf, sync::Arc, time::Duration};

use ambient_actors::{ActorOptions, Actors, CallError, Caller, Clock, Request};
use ambient_api::{ApiConfig, AppParts, AppState, Limits, Principal, StaticToken};
use ambient_compute::{
    Compute, OwnLimits,
    local::{LocalCompute, LocalOptions},
};
use ambient_domain::{
    project::{self, Project},
    quantity::{Bytes, Cpu},
    session::ResourceOverrides,
};
use ambient_engine::Engine;
use ambient_live::{HubOptions, LiveHub, ReaderOptions, RunnerReaders, Tokens};
use ambient_persistence::{Database, DatabaseOptions, Hints, StoreError, Vault};
use ambient_snapshots::Reader;
use ambient_telemetry::{Exporter, Requests};
use ambient_workflows::{
    Executions, NoHook, Retention, RunnerEnds, Services, TemporalExecutions, WorkerHealth, WorkerHost,
};

use crate::{
    config::ServerConfig,
    engine_choice, keys, open_files, snapshots, traces,
    workflow_engine::{WorkflowEngine, worker_settings},
};

/// Name of the local administrator.
pub const ADMIN: &str = "admin";

/// Grace period for running work at shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// Why the server could not be assembled. Every message says which part failed.
#[derive(Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct ComposeError {
    part: &'static str,
    reason: String,
}

fn part<E: std::fmt::Display>(part: &'static str) -> impl FnOnce(E) -> ComposeError {
    move |error| ComposeError { part, reason: error.to_string() }
}

/// Migrates both schemas to this release.
///
/// # Errors
/// When the database cannot be reached or belongs to a newer release.
pub async fn migrate(database_url: &str) -> Result<(), ComposeError> {
    let db = Database::connect(database_url, DatabaseOptions::default()).await.map_err(part("database"))?;
    db.migrate().await.map_err(part("database schema"))?;
    Engine::migrate(db.pool()).await.map_err(part("engine schema"))
}

/// A server, assembled and working.
pub struct Server {
    db: Database,
    hints: Hints,
    actors: Actors,
    readers: RunnerReaders,
    engine: WorkflowEngine,
    worker: WorkerHost,
    traces: Option<Exporter>,
    state: AppState,
}

impl Server {
    /// Creates and starts every part.
    ///
    /// # Errors
    /// When one cannot be started; nothing of the server is then left running except tasks that end with the process.
    pub async fn start(config: &ServerConfig, database_url: &str) -> Result<Self, ComposeError> {
        let options = DatabaseOptions { traces: config.otel.is_on(), ..DatabaseOptions::default() };
        let db = Database::connect(database_url, options).await.map_err(part("database"))?;
        tell_transport(&db).await.map_err(part("database"))?;
        db.migrate().await.map_err(part("database schema"))?;
        let key = keys::vault_key(&config.data_dir).map_err(part("vault key"))?;
        let vault = Vault::open(&db, &key).await.map_err(part("vault"))?;
        let tokens = Tokens::new(vault.token_key());
        let hints = Hints::start(&db);
        let actors = Actors::start(db.clone(), hints.clone(), actor_options(config));
        let hub = LiveHub::start(db.clone(), hints.clone(), HubOptions::default());
        let compute: Arc<dyn Compute> = Arc::new(LocalCompute::new(local_options(config)).map_err(part("compute"))?);
        let ends = Arc::new(RunnerEnds::new(compute.clone(), actors.clone(), db.clone()));
        let snapshots = snapshots::open(config, &db).await.map_err(part("snapshot store"))?;
        let model_limits = config.models.models().server.limits;
        let options = ReaderOptions { snapshots: snapshots.clone(), model_limits, ..ReaderOptions::default() };
        let readers = RunnerReaders::start(db.clone(), hints.clone(), tokens.clone(), ends.clone(), ends, options);
        engine_choice::settle(config, &db).await.map_err(part("engine"))?;
        let engine = WorkflowEngine::start(config, &db).await.map_err(part("engine"))?;
        let health = WorkerHealth::default();
        let executions = executions(&db, &engine, &health);
        let retention = Retention::new(config.retention.rules(config.snapshots.snapshot_keep_days));
        let services = Services {
            db: db.clone(),
            actors: actors.clone(),
            compute: compute.clone(),
            readers: readers.clone(),
            tokens: tokens.clone(),
            vault: vault.clone(),
            models: config.models.models(),
            snapshots: snapshots.clone(),
            retention: retention.clone(),
            executions: executions.clone(),
            clock: Clock::system(),
            hook: Arc::new(NoHook),
        };
        let settings = worker_settings(config);
        let worker = WorkerHost::start(engine.client(), services, hints.clone(), health, settings);
        let worker = worker.await.map_err(part("workflow worker"))?;
        let traces = traces::start(config, &db, &executions).map_err(part("traces"))?;
        let parts = EdgeParts {
            db: db.clone(),
            traces: traces.as_ref().map(Exporter::requests),
            actors: actors.clone(),
            hub,
            tokens,
            compute,
            executions,
            ticket_key: ticket_key(&vault),
            vault,
            snapshots: snapshots.map(|store| snapshots::reader(config, store)),
            retention,
        };
        let state = app_state(config, parts)?;
        Ok(Self { db, hints, actors, readers, engine, worker, traces, state })
    }

    /// Serves requests until `shutdown`, then ends every part in order.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ComposeError> {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(part("listener"))?;
        let (ending, ended) = tokio::sync::oneshot::channel::<()>();
        let signalled = async move {
            shutdown.await;
            let _ = ending.send(());
        };
        let limits = Limits::for_open_files(open_files::raise());
        let serving = ambient_api::serve(listener, self.state.clone(), limits, signalled);
        // Live channels never end by themselves: they get the grace period and are then cut; their clients resume elsewhere.
        let patience = async {
            let _ = ended.await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        };
        tokio::select! {
            () = serving => {}
            () = patience => {}
        }
        // Those who answer requests are gone, so that what they tell has an end.
        drop(self.state);
        if let Some(traces) = self.traces {
            traces.shutdown().await;
        }
        self.worker.shutdown(GRACE).await;
        self.readers.shutdown().await;
        self.actors.shutdown(GRACE).await;
        self.engine.shutdown().await;
        self.hints.stop();
        self.db.close().await;
        Ok(())
    }

    /// Creates project `name` unless it exists; for `up`, so that the first session needs no set-up.
    ///
    /// # Errors
    /// When the database or the actor fail.
    pub async fn ensure_project(&self, name: &str) -> Result<(), ComposeError> {
        let there = self.db.project_by_id_or_name(name).await.map_err(part("first project"))?;
        if there.is_some() {
            return Ok(());
        }
        let id = ambient_persistence::new_id();
        let command = project::Command::Create {
            project_id: id.clone(),
            name: name.to_owned(),
            spec: Box::default(),
            owner: ADMIN.to_owned(),
        };
        let caller = Caller { principal: ADMIN.to_owned(), ..Caller::default() };
        match self.actors.call::<Project>(&id, Request::new(command, caller)).await {
            // Another server was faster.
            Ok(_) | Err(CallError::NameTaken { .. }) => Ok(()),
            Err(error) => Err(part("first project")(error)),
        }
    }
}

/// Whoever runs the server should not have to guess whether its secrets cross a network in the clear.
async fn tell_transport(db: &Database) -> Result<(), StoreError> {
    let transport = db.transport().await?;
    if transport.is_exposed() {
        tracing::warn!(%transport, "the connection to PostgreSQL crosses a network without encryption");
    } else {
        tracing::info!(%transport, "connected to PostgreSQL");
    }
    Ok(())
}

/// Ready when the engine and the worker work.
fn executions(db: &Database, engine: &WorkflowEngine, health: &WorkerHealth) -> Executions {
    let (fit, health) = (engine.readiness(), health.clone());
    let ready = move || fit().and_then(|()| health.check());
    Arc::new(TemporalExecutions::new(engine.client(), engine.namespace(), db.clone(), Box::new(ready)))
}

fn actor_options(config: &ServerConfig) -> ActorOptions {
    ActorOptions { permits: config.permits, ..ActorOptions::default() }
}

fn local_options(config: &ServerConfig) -> LocalOptions {
    let defaults = LocalOptions::new(config.data_dir.clone(), config.runner_binary.clone(), config.host.clone());
    let limits = &config.limits;
    let session = own_limits(&limits.defaults()).over(&defaults.limits);
    LocalOptions {
        limits: session,
        most: own_limits(&limits.maxima()),
        disk_reserve: limits.disk_reserve.get(),
        disk_low_water: limits.disk_low_water.get(),
        readable_paths: readable_paths(config),
        platform_paths: vec![config.admin_token_file.clone(), config.config_file.clone()],
        session_uid_base: Some(config.session_uid_base),
        confinement: config.confinement.of_runner(),
        network: config.session_network.0.clone(),
        ..defaults
    }
}

/// What sessions may read; a folder that is not there cannot be shown to them.
fn readable_paths(config: &ServerConfig) -> Vec<PathBuf> {
    let agents = Some(config.agents_dir.clone()).filter(|folder| folder.is_dir());
    config.readable_paths.iter().cloned().chain(agents).collect()
}

fn own_limits(limits: &ResourceOverrides) -> OwnLimits {
    OwnLimits {
        cpu_millis: limits.cpu.map(Cpu::millis),
        memory_bytes: limits.memory.map(Bytes::get),
        processes: limits.processes,
        disk_bytes: limits.disk.map(Bytes::get),
        open_files: limits.open_files,
    }
}

/// Everything the edge consists of.
struct EdgeParts {
    db: Database,
    actors: Actors,
    hub: LiveHub,
    tokens: Tokens,
    vault: Vault,
    compute: Arc<dyn Compute>,
    executions: Executions,
    ticket_key: [u8; 32],
    snapshots: Option<Reader>,
    retention: Retention,
    traces: Option<Requests>,
}

fn app_state(config: &ServerConfig, parts: EdgeParts) -> Result<AppState, ComposeError> {
    let admin = keys::admin_token(&config.admin_token_file).map_err(part("administrator's token"))?;
    let agent_types = config.agent_types().map_err(part("agent types"))?.agent_types();
    check_default_agent_type(&config.default_agent_type, &agent_types).map_err(part("agent types"))?;
    let api = ApiConfig {
        default_model: config.default_model.clone(),
        default_agent_type: config.default_agent_type.clone(),
        models: config.models.models().server,
        session_maxima: config.limits.maxima(),
        agent_types,
        static_tokens: vec![StaticToken::new(&admin, Principal::platform_admin(ADMIN))],
        ticket_key: parts.ticket_key,
        ..ApiConfig::default()
    };
    Ok(AppState::new(AppParts {
        database: parts.db,
        actors: parts.actors,
        hub: parts.hub,
        tokens: parts.tokens,
        vault: parts.vault,
        compute: parts.compute,
        executions: parts.executions,
        snapshots: parts.snapshots,
        retention: parts.retention,
        prometheus: crate::telemetry::metrics(),
        traces: parts.traces,
        config: api,
    }))
}

/// One that nobody could run would only be noticed at the first session.
fn check_default_agent_type(name: &str, known: &[ambient_api::AgentType]) -> Result<(), String> {
    let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).filter(|name| *name != "custom").collect();
    if names.contains(&name) {
        return Ok(());
    }
    Err(format!("default_agent_type: there is no '{}'; there are: {}", name.escape_debug(), names.join(", ")))
}

/// Any server of the database makes and checks live tickets, so their key comes from its vault.
fn ticket_key(vault: &Vault) -> [u8; 32] {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac =
        Hmac::<sha2::Sha256>::new_from_slice(vault.token_key()).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(b"live tickets");
    mac.finalize().into_bytes().into()
}
