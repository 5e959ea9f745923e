//! The outbox dispatcher: carries out effects (start, signal, cancel a workflow) after their commit.
//!
//! Invariants: FIFO per entity; a repeat is harmless, since workflow ids are fixed and "already started", "not found" and
//! "closed" are success; a row that cannot be carried out is parked and shown, never dropped.

use std::time::Duration;

use ambient_domain::{Effect, WorkflowInput};
use ambient_persistence::{Database, EngineChoice, Hint, Hints, OutboxRow, StoreError};
use temporalio_client::{
    Client, UntypedSignal, WorkflowCancelOptions, WorkflowIdReusePolicy, WorkflowSignalOptions, WorkflowStartOptions,
    errors::{WorkflowInteractionError, WorkflowStartError},
    tonic::Code,
};
use temporalio_common::{
    UntypedWorkflow,
    data_converters::{PayloadConverter, RawValue},
};

use crate::engine_client::EngineClient;

/// Rows claimed at a time.
const BATCH: i64 = 64;
/// Re-read without a hint.
const SAFETY: Duration = Duration::from_secs(5);

/// Why an effect was not carried out.
enum Failure {
    /// A repeat may succeed.
    Retry(String),
    /// It never will.
    Park(String),
}

/// Carries out effects, for ever; nothing is claimed before the engine is there.
pub(crate) async fn run(db: Database, hints: Hints, client: EngineClient, task_queue: String) {
    let client = client.connected().await;
    let chosen = loop {
        match db.chosen_engine().await {
            Ok(chosen) => break chosen,
            Err(error) => tracing::warn!(%error, "the choice of engine cannot be read"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let mut hinted = hints.subscribe();
    loop {
        match dispatch(&db, &client, &task_queue, chosen.as_ref()).await {
            Ok(0) => {}
            // More may be ready at once: the next row of an entity opens when the one before is done.
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "the outbox cannot be read");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        let outbox = async {
            loop {
                match hinted.recv().await {
                    Some(Hint::Outbox | Hint::Resync) => return,
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        };
        let _ = tokio::time::timeout(SAFETY, outbox).await;
    }
}

async fn dispatch(
    db: &Database,
    client: &Client,
    task_queue: &str,
    chosen: Option<&EngineChoice>,
) -> Result<usize, StoreError> {
    // Another engine may have been chosen by a newer server: this one's is not to get anything any more.
    let now = db.chosen_engine().await?;
    let place = |choice: &EngineChoice| (choice.engine.clone(), choice.namespace.clone());
    if now.as_ref().map(place) != chosen.map(place) {
        tracing::error!(chosen = ?now, "another workflow engine was chosen for this database; restart this server");
        return Ok(0);
    }
    let rows = db.claim_outbox(BATCH).await?;
    let count = rows.len();
    for row in rows {
        match carry_out(client, task_queue, &row.effect).await {
            Ok(()) => db.complete_outbox(row.position).await?,
            Err(Failure::Retry(error)) => {
                tracing::warn!(workflow_id = row.effect.workflow_id(), error, "an effect waits for the engine");
                db.retry_outbox(row.position, backoff(&row), &error).await?;
            }
            Err(Failure::Park(reason)) => {
                tracing::error!(workflow_id = row.effect.workflow_id(), reason, "an effect is parked");
                db.park_outbox(row.position, &reason).await?;
            }
        }
    }
    Ok(count)
}

/// 0.2 s doubling to 30 s.
fn backoff(row: &OutboxRow) -> Duration {
    let exponent = u32::try_from(row.attempts.clamp(0, 8)).unwrap_or(8);
    (Duration::from_millis(200) * 2_u32.pow(exponent)).min(Duration::from_secs(30))
}

async fn carry_out(client: &Client, task_queue: &str, effect: &Effect) -> Result<(), Failure> {
    match effect {
        Effect::StartWorkflow { workflow, workflow_id, input } => {
            start(client, task_queue, workflow, workflow_id, input).await
        }
        Effect::SignalWorkflow { workflow_id, signal } => {
            let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id.as_str());
            let signal = UntypedSignal::new(signal.as_str());
            let nothing = RawValue::from_value(&(), &PayloadConverter::serde_json());
            let sent = handle.signal(signal, nothing, WorkflowSignalOptions::default()).await;
            gone_is_done(sent)
        }
        Effect::CancelWorkflow { workflow_id } => {
            let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id.as_str());
            gone_is_done(handle.cancel(WorkflowCancelOptions::default()).await)
        }
    }
}

async fn start(client: &Client, queue: &str, name: &str, id: &str, input: &WorkflowInput) -> Result<(), Failure> {
    let input = RawValue::from_value(input, &PayloadConverter::serde_json());
    let options = WorkflowStartOptions::new(queue, id).id_reuse_policy(WorkflowIdReusePolicy::RejectDuplicate).build();
    match client.start_workflow(UntypedWorkflow::new(name), input, options).await {
        Ok(_) | Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(()),
        Err(WorkflowStartError::Rpc(status)) if is_transient(status.code()) => Err(Failure::Retry(status.to_string())),
        Err(error) => Err(Failure::Park(error.to_string())),
    }
}

fn gone_is_done(sent: Result<(), WorkflowInteractionError>) -> Result<(), Failure> {
    match sent {
        Ok(()) | Err(WorkflowInteractionError::NotFound(_)) => Ok(()),
        Err(WorkflowInteractionError::Rpc(status)) if !is_transient(status.code()) => {
            Err(Failure::Park(status.to_string()))
        }
        Err(error) => Err(Failure::Retry(error.to_string())),
    }
}

fn is_transient(code: Code) -> bool {
    !matches!(code, Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied | Code::OutOfRange)
}
