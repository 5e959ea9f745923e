//! The outbox dispatcher: carries out effects (start, signal, cancel a workflow) after their commit.
//!
//! Invariants: in order per entity, entities concurrently, so that one slow call only holds up its own entity; a
//! repeat is harmless, since workflow ids are fixed and "already started", "not found" and "closed" count as success; an effect that
//! cannot be carried out is parked and shown, never dropped.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use ambient_domain::{Effect, WorkflowInput};
use ambient_persistence::{Database, EngineChoice, Hint, HintReceiver, Hints, OutboxRow, StoreError, retry::Backoff};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use temporalio_client::{
    Client, UntypedSignal, WorkflowCancelOptions, WorkflowIdReusePolicy, WorkflowSignalOptions, WorkflowStartOptions,
    errors::{WorkflowInteractionError, WorkflowStartError},
    tonic::Code,
};
use temporalio_common::{
    UntypedWorkflow,
    data_converters::{PayloadConverter, RawValue},
};

use crate::{engine_client::EngineClient, project_attribute};

/// Entities whose effects are carried out concurrently.
const ENTITIES: usize = 64;
/// Interval for re-reading without a hint: nobody hints at what a dead server had claimed.
const SAFETY: Duration = Duration::from_secs(1);
/// How long a claim lasts that is not renewed: its server is dead, or stands still.
const CLAIM: Duration = Duration::from_secs(2);
/// How often the claims of what is being carried out are renewed.
const RENEW_CLAIMS: Duration = Duration::from_millis(500);
/// Timeout of a call to the engine.
const CALL: Duration = Duration::from_secs(8);
/// No further effect of an entity is begun after this, so that what has been carried out is recorded.
const CHAIN: Duration = Duration::from_secs(4);

/// Why an effect was not carried out.
enum Failure {
    /// A retry may succeed.
    Retry(String),
    /// It never will.
    Park(String),
}

/// The outcome of an effect.
type EffectResult = (OutboxRow, Result<(), Failure>);

/// Carries out effects, forever; nothing is claimed before the engine is there.
pub(crate) async fn run(db: Database, hints: Hints, client: EngineClient, task_queue: String) {
    let client = client.connected().await;
    // A cluster is not considered connected before it knows the attribute; the embedded engine learns of it here.
    loop {
        match tokio::time::timeout(CALL, project_attribute::ensure(&client)).await {
            Ok(Ok(())) => break,
            Ok(Err(problem)) => tracing::warn!(problem, "effects wait for the engine"),
            Err(_) => tracing::warn!("effects wait for the engine, which does not answer"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let chosen = loop {
        match db.chosen_engine().await {
            Ok(chosen) => break chosen,
            Err(error) => tracing::warn!(%error, "the choice of engine cannot be read"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let mut hinted = hints.subscribe();
    let mut under_way: FuturesUnordered<BoxFuture<'_, Vec<EffectResult>>> = FuturesUnordered::new();
    // The first effect of each entity: those are the claimed ones.
    let mut claimed = HashSet::new();
    let mut renew = tokio::time::interval(RENEW_CLAIMS);
    renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let room = ENTITIES - under_way.len();
        if room > 0 {
            match db.claim_outbox(i64::try_from(room).unwrap_or(i64::MAX), chosen.as_ref(), CLAIM).await {
                Ok(chains) => {
                    claimed.extend(chains.iter().filter_map(|chain| chain.first()).map(|row| row.position));
                    under_way
                        .extend(chains.into_iter().map(|chain| carry_out_all(&client, &task_queue, chain).boxed()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the outbox cannot be read");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        tokio::select! {
            Some(mut outcomes) = under_way.next() => {
                // Those that are also ready are recorded with it.
                while let Some(Some(more)) = under_way.next().now_or_never() {
                    outcomes.extend(more);
                }
                for (row, _) in &outcomes {
                    claimed.remove(&row.position);
                }
                if let Err(error) = note(&db, outcomes).await {
                    tracing::warn!(%error, "effects that were carried out will be repeated");
                }
            }
            _ = renew.tick(), if !claimed.is_empty() => {
                let positions: Vec<i64> = claimed.iter().copied().collect();
                if let Err(error) = db.renew_claims(&positions, CLAIM).await {
                    tracing::warn!(%error, "effects that are being carried out may be repeated");
                }
            }
            () = outbox_hint(&mut hinted) => {}
            () = tokio::time::sleep(SAFETY) => {
                if let Err(error) = check_choice(&db, chosen.as_ref()).await {
                    tracing::warn!(%error, "the choice of engine cannot be read");
                }
            }
        }
    }
}

async fn outbox_hint(hinted: &mut HintReceiver) {
    loop {
        match hinted.recv().await {
            Some(Hint::Outbox | Hint::Resync) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Reports if a newer server chose another engine: this server's engine then gets nothing any more.
async fn check_choice(db: &Database, chosen: Option<&EngineChoice>) -> Result<(), StoreError> {
    let now = db.chosen_engine().await?;
    let place = |choice: &EngineChoice| (choice.engine.clone(), choice.namespace.clone());
    if now.as_ref().map(place) != chosen.map(place) {
        tracing::error!(chosen = ?now, "another workflow engine was chosen for this database; restart this server");
    }
    Ok(())
}

/// Carries out an entity's effects in order, up to the first that has to wait.
async fn carry_out_all(client: &Client, task_queue: &str, chain: Vec<OutboxRow>) -> Vec<EffectResult> {
    let began = Instant::now();
    let mut outcomes = Vec::with_capacity(chain.len());
    for row in chain {
        if began.elapsed() > CHAIN {
            break;
        }
        let carried_out = tokio::time::timeout(CALL, Box::pin(carry_out(client, task_queue, &row.effect))).await;
        let result = carried_out.unwrap_or_else(|_| Err(Failure::Retry("the engine does not answer".to_owned())));
        let waits = matches!(result, Err(Failure::Retry(_)));
        outcomes.push((row, result));
        if waits {
            break;
        }
    }
    outcomes
}

/// Records the outcome of effects; those that are done in one statement.
async fn note(db: &Database, outcomes: Vec<EffectResult>) -> Result<(), StoreError> {
    let mut done = Vec::with_capacity(outcomes.len());
    for (row, result) in outcomes {
        match result {
            Ok(()) => done.push(row.position),
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
    db.complete_outbox(&done).await
}

/// 0.2 s doubling to 30 s, randomly up to twice as long.
fn backoff(row: &OutboxRow) -> Duration {
    let failures = u32::try_from(row.attempts).unwrap_or(0);
    Backoff::new(Duration::from_millis(200), Duration::from_secs(30)).pause_after(failures)
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
    let options = WorkflowStartOptions::new(queue, id)
        .id_reuse_policy(WorkflowIdReusePolicy::RejectDuplicate)
        .search_attributes(project_attribute::of(&input.project_id))
        .build();
    let input = RawValue::from_value(input, &PayloadConverter::serde_json());
    match client.start_workflow(UntypedWorkflow::new(name), input, options).await {
        Ok(_) | Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(()),
        Err(WorkflowStartError::Rpc(status))
            if is_transient(status.code()) || project_attribute::is_unknown(&status) =>
        {
            Err(Failure::Retry(status.to_string()))
        }
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
