//! The engine is chosen per database: executions live where they started. A different choice is accepted only when nothing is open there.

use std::{fmt, time::Duration};

use ambient_engine::{Engine as EmbeddedEngine, HistoryReader};
use ambient_persistence::{Database, EngineChoice, OpenEffects, StoreError};
use ambient_workflows::{EngineClient, ExecutionFilter, ExecutionService as _, PLATFORM_WORKFLOWS, TemporalExecutions};
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    config::{Engine, ServerConfig, TemporalConfig},
    workflow_engine::look_into_cluster,
};

/// How many open executions and effects are named.
const EXAMPLES: usize = 10;
/// Timeout for a cluster to respond.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is open in a database's engine.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Left {
    /// Open executions of entities; the platform's own (sweeps) are not counted.
    pub(crate) executions: i64,
    /// The newest of them.
    pub(crate) open: Vec<String>,
    /// Effects that have not been carried out.
    pub(crate) effects: i64,
    /// Executions that the oldest of them are for.
    pub(crate) waiting: Vec<String>,
}

impl Left {
    /// Whether nothing is open.
    pub(crate) fn is_nothing(&self) -> bool {
        self.executions == 0 && self.effects == 0
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |examples: &[String]| {
            if examples.is_empty() { String::new() } else { format!(": {}", examples.join(", ")) }
        };
        write!(
            f,
            "{} open executions{}; {} effects wait{}",
            self.executions,
            named(&self.open),
            self.effects,
            named(&self.waiting)
        )
    }
}

/// The configured choice, in its stored form.
fn configured(config: &ServerConfig) -> (&'static str, &str) {
    match config.engine {
        Engine::Embedded => ("embedded", ""),
        Engine::Temporal => ("temporal", &config.temporal.namespace),
    }
}

/// Makes the configured engine the database's, or says why it cannot be.
pub(crate) async fn settle(config: &ServerConfig, db: &Database) -> Result<(), String> {
    let (engine, namespace) = configured(config);
    let stored = |error: StoreError| error.to_string();
    let chosen = db.engine_choice(engine, namespace).await.map_err(stored)?;
    if (chosen.engine.as_str(), chosen.namespace.as_str()) == (engine, namespace) {
        return Ok(());
    }
    let place = told(&chosen);
    let left = left(config, db, &chosen).await.map_err(|problem| {
        format!("this database's executions are in {place}, and it cannot be determined whether any is open there: {problem}")
    })?;
    if left.is_nothing() && db.change_engine(&chosen, engine, namespace).await.map_err(stored)? {
        tracing::info!(from = place, to = engine, "another workflow engine was chosen for this database");
        return Ok(());
    }
    Err(format!(
        "this database's executions are in {place}, where something is left ({left}); keep that engine, or empty it first with `ambient engine drain`"
    ))
}

/// The engine in words.
pub(crate) fn told(chosen: &EngineChoice) -> String {
    match chosen.engine.as_str() {
        "temporal" => format!("Temporal's namespace {}", chosen.namespace),
        _ => "the embedded engine".to_owned(),
    }
}

/// What is open in the chosen engine.
pub(crate) async fn left(config: &ServerConfig, db: &Database, chosen: &EngineChoice) -> Result<Left, String> {
    let examples = i64::try_from(EXAMPLES).unwrap_or(i64::MAX);
    let OpenEffects { count, examples: waiting } =
        db.open_effects(examples).await.map_err(|error| error.to_string())?;
    let (executions, open) = match chosen.engine.as_str() {
        "temporal" => open_in_cluster(config, db, &chosen.namespace).await?,
        _ => open_in_database(db).await?,
    };
    Ok(Left { executions, open, effects: count, waiting })
}

fn is_of_an_entity(workflow: &str) -> bool {
    !PLATFORM_WORKFLOWS.contains(&workflow)
}

async fn open_in_database(db: &Database) -> Result<(i64, Vec<String>), String> {
    // A server that died early may have chosen the engine without creating its tables.
    EmbeddedEngine::migrate(db.pool()).await.map_err(|error| error.to_string())?;
    let reader = HistoryReader::new(db.pool().clone());
    let (mut count, mut examples, mut after) = (0, Vec::new(), None);
    loop {
        let (runs, next) = reader.open(after).await.map_err(|error| error.to_string())?;
        for run in runs.into_iter().filter(|run| is_of_an_entity(&run.workflow_type)) {
            count += 1;
            if examples.len() < EXAMPLES {
                examples.push(run.workflow_id);
            }
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok((count, examples)),
        }
    }
}

async fn open_in_cluster(config: &ServerConfig, db: &Database, namespace: &str) -> Result<(i64, Vec<String>), String> {
    let temporal = TemporalConfig { namespace: namespace.to_owned(), ..config.temporal.clone() };
    let (client, cluster) = look_into_cluster(&temporal).await?;
    let client = EngineClient::ready(client);
    let executions = TemporalExecutions::new(client, namespace.to_owned(), db.clone(), Box::new(|| Ok(())));
    let filter =
        ExecutionFilter { status: Some("Running".to_owned()), page: 1, size: 1_000, ..ExecutionFilter::default() };
    let looked = timeout(PATIENCE, executions.list(&filter)).await;
    cluster.shutdown();
    let (found, total) = match looked {
        Ok(found) => found.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("Temporal at {}: no answer", temporal.address)),
    };
    let listed = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let open: Vec<String> = found
        .into_iter()
        .filter(|execution| is_of_an_entity(&execution.workflow))
        .map(|execution| execution.id)
        .collect();
    let count = total - listed + i64::try_from(open.len()).unwrap_or(i64::MAX);
    Ok((count, open.into_iter().take(EXAMPLES).collect()))
}
