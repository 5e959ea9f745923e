//! What the edge works with. Only this module's siblings can reach the parts.

use std::sync::Arc;

use ambient_actors::Actors;
use ambient_compute::Compute;
use ambient_domain::{retention::RetentionRules, session::ResourceOverrides};
use ambient_live::{LiveHub, Tokens};
use ambient_persistence::{Database, Vault};
use ambient_wire::api::{Health, HealthCheck};
use ambient_workflows::{Retention, ServerModels, executions::Executions};
use axum::extract::FromRef;
use metrics_exporter_prometheus::PrometheusHandle;

use super::static_token::StaticToken;
use crate::{AgentType, agent_types::SCRIPT, extract::MaxBodyBytes, session_spec::ServerDefaults};

/// Settings of the edge.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
    /// Model for sessions if neither session nor project names one.
    pub default_model: Option<String>,
    /// Agent type of sessions if neither they nor their agent or project name one.
    pub default_agent_type: String,
    /// What the server's settings say about models.
    pub models: ServerModels,
    /// The most a session may ask for, if there is a maximum.
    pub session_maxima: ResourceOverrides,
    /// Programs that can run as agents.
    pub agent_types: Vec<AgentType>,
    /// Tokens that stand for a principal, such as the local administrator's.
    pub static_tokens: Vec<StaticToken>,
    /// Key of live tickets; the same on every server of a database.
    pub ticket_key: [u8; 32],
    /// Subscriptions per live connection.
    pub max_subscriptions: usize,
    /// Live connections (WebSocket and SSE) at once; any more are answered 503.
    pub max_live_connections: usize,
}

impl Default for ApiConfig {
    /// Nobody can get in: there are no tokens, and the ticket key is random.
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            default_model: None,
            default_agent_type: SCRIPT.to_owned(),
            models: ServerModels::default(),
            session_maxima: ResourceOverrides::default(),
            agent_types: AgentType::built_in(),
            static_tokens: Vec::new(),
            ticket_key: rand::random(),
            max_subscriptions: 32,
            max_live_connections: 10_000,
        }
    }
}

/// Parts of an [`AppState`].
pub struct AppParts {
    /// Rows, operations and logs.
    pub database: Database,
    /// Entities.
    pub actors: Actors,
    /// Live logs.
    pub hub: LiveHub,
    /// Session tokens.
    pub tokens: Tokens,
    /// Sealed values.
    pub vault: Vault,
    /// Where sessions run.
    pub compute: Arc<dyn Compute>,
    /// Workflow executions.
    pub executions: Executions,
    /// Looks into stored snapshots, if there are any.
    pub snapshots: Option<ambient_snapshots::Reader>,
    /// For how long what finished sessions have left is kept.
    pub retention: Retention,
    /// Renders `/metrics`; none = 404 there.
    pub prometheus: Option<PrometheusHandle>,
    /// Takes requests that have been answered, if traces are exported.
    pub traces: Option<ambient_telemetry::Requests>,
    /// Settings.
    pub config: ApiConfig,
}

/// State of the router. Clones share.
#[derive(Clone)]
pub struct AppState {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) actors: Actors,
    pub(super) hub: LiveHub,
    pub(super) tokens: Tokens,
    pub(super) vault: Vault,
    pub(super) compute: Arc<dyn Compute>,
    pub(super) executions: Executions,
    pub(super) snapshots: Option<ambient_snapshots::Reader>,
    pub(super) retention: Retention,
    prometheus: Option<PrometheusHandle>,
    traces: Option<ambient_telemetry::Requests>,
    config: ApiConfig,
    agent_types: Vec<String>,
    live_connections: Arc<tokio::sync::Semaphore>,
}

impl FromRef<AppState> for MaxBodyBytes {
    fn from_ref(state: &AppState) -> Self {
        Self(state.config().max_body_bytes)
    }
}

impl AppState {
    /// Assembles the parts.
    #[must_use]
    pub fn new(parts: AppParts) -> Self {
        let AppParts {
            database,
            actors,
            hub,
            tokens,
            vault,
            compute,
            executions,
            snapshots,
            retention,
            prometheus,
            traces,
            config,
        } = parts;
        let agent_types = config.agent_types.iter().map(|known| known.name.clone()).collect();
        let live_connections = Arc::new(tokio::sync::Semaphore::new(config.max_live_connections));
        let shared = Shared {
            database,
            actors,
            hub,
            tokens,
            vault,
            compute,
            executions,
            snapshots,
            retention,
            prometheus,
            traces,
            config,
            agent_types,
            live_connections,
        };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn parts(&self) -> &Shared {
        &self.shared
    }

    /// Settings.
    pub(crate) fn config(&self) -> &ApiConfig {
        &self.shared.config
    }

    /// Agent types in this build.
    pub(crate) fn agent_types(&self) -> &[String] {
        &self.shared.agent_types
    }

    /// Agent types, with how they are started.
    pub(crate) fn known_agent_types(&self) -> &[AgentType] {
        &self.shared.config.agent_types
    }

    /// What sessions fall back to.
    pub(crate) fn server_defaults(&self) -> ServerDefaults<'_> {
        let config = &self.shared.config;
        ServerDefaults {
            llm_model: config.default_model.as_deref(),
            agent_type: &config.default_agent_type,
            agent_types: &self.shared.agent_types,
            maxima: &config.session_maxima,
        }
    }

    /// What projects go by.
    pub(crate) fn retention(&self) -> &RetentionRules {
        &self.shared.retention.rules
    }

    /// Metrics in Prometheus' text format.
    pub(crate) fn metrics(&self) -> Option<String> {
        self.shared.prometheus.as_ref().map(PrometheusHandle::render)
    }

    /// Takes requests that have been answered, if traces are exported.
    pub(crate) fn traces(&self) -> Option<ambient_telemetry::Requests> {
        self.shared.traces.clone()
    }

    /// A slot for one more live connection.
    pub(crate) fn live_permit(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.shared.live_connections).try_acquire_owned().ok()
    }

    /// Whether every part works.
    pub(crate) async fn readiness(&self) -> Health {
        let database = tokio::time::timeout(std::time::Duration::from_secs(2), self.shared.database.transport()).await;
        let database = match database {
            Ok(Ok(transport)) => Ok(transport.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer within 2 s".to_owned()),
        };
        let compute = self.compute_readiness().await.map(|()| String::new());
        let engine = self.shared.executions.readiness().map(|()| String::new());
        let checks = [("database", database), ("engine", engine), ("compute", compute)];
        let checks: Vec<HealthCheck> = checks.into_iter().map(|(name, result)| check(name, result)).collect();
        let status = if checks.iter().all(|check| check.ok) { "ok" } else { "unavailable" };
        Health { status: status.to_owned(), checks }
    }
}

impl AppState {
    async fn compute_readiness(&self) -> Result<(), String> {
        if self.shared.agent_types.is_empty() {
            return Err("this build has no agent type".to_owned());
        }
        // A file system that does not respond does not work either.
        let ready = tokio::time::timeout(std::time::Duration::from_secs(2), self.shared.compute.readiness()).await;
        ready.unwrap_or_else(|_| Err("no answer within 2 s".to_owned()))
    }
}

fn check(name: &str, result: Result<String, String>) -> HealthCheck {
    HealthCheck { name: name.to_owned(), ok: result.is_ok(), reason: result.unwrap_or_else(|reason| reason) }
}
