//! The export of traces of a server.

use std::sync::Arc;

use ambient_persistence::Database;
use ambient_telemetry::{Collector, CollectorError, ExecutionHistories, Exporter, ExporterOptions};
use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use ambient_workflows::{ExecutionError, Executions};
use async_trait::async_trait;

use crate::config::{Content, ServerConfig};

/// Executions as the engine tells them, whichever it is.
struct Histories(Executions);

#[async_trait]
impl ExecutionHistories for Histories {
    async fn execution(&self, workflow_id: &str) -> Result<Option<WorkflowExecution>, String> {
        known(self.0.get(workflow_id).await)
    }

    async fn history(&self, workflow_id: &str, limit: i64) -> Result<Vec<HistoryEvent>, String> {
        known(self.0.history(workflow_id, 0, limit).await).map(Option::unwrap_or_default)
    }
}

fn known<T>(found: Result<T, ExecutionError>) -> Result<Option<T>, String> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ExecutionError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Starts it, if the settings say where to.
///
/// # Errors
/// When the settings are no use.
pub(crate) fn start(
    config: &ServerConfig,
    db: &Database,
    executions: &Executions,
) -> Result<Option<Exporter>, CollectorError> {
    let Some(options) = config.otel.collector(&config.host) else { return Ok(None) };
    let contents = config.otel.otel_content == Content::On;
    tracing::info!(url = options.url, contents, "traces are exported");
    if contents {
        tracing::warn!("traces say what people and agents say, read and write (otel_content = \"on\")");
    }
    let collector = Collector::new(&options)?;
    let ratio = config.otel.otel_sample_ratio.0;
    let options = ExporterOptions { ratio, contents, ..ExporterOptions::default() };
    Ok(Some(Exporter::start(db.clone(), Arc::new(Histories(executions.clone())), collector, options)))
}
