//! What the sweep looks at, and repairs.

use std::time::Duration;

use ambient_compute::SessionRef;
use ambient_domain::{
    WorkflowInput,
    session::{Fact, Phase, Session},
};

use crate::{
    executions::ExecutionError,
    services::{Services, StepError},
    step::Progress,
};

type Done = Result<Progress, StepError>;

/// Every active session has its workflow open, or its start in the outbox; else it is told that the workflow is lost.
pub(super) async fn executions(s: &Services, by: &str) -> Done {
    for id in s.db.active_session_ids().await? {
        let Some(session) = s.db.load::<Session>(&id).await? else { continue };
        for workflow_id in session.required_workflows() {
            if is_open(s, &workflow_id).await? {
                continue;
            }
            // The session may have moved on between the two looks; only what is still required is lost.
            let Some(now) = s.db.load::<Session>(&id).await? else { continue };
            if now.version == session.version && now.required_workflows().contains(&workflow_id) {
                tracing::warn!(session = id, workflow_id, "workflow lost");
                let input = WorkflowInput {
                    project_id: session.project_id.clone(),
                    session_id: id.clone(),
                    run: session.run_number(),
                    attempt: 0,
                };
                s.report(by, &input, Fact::WorkflowLost { workflow_execution: workflow_id }).await?;
            }
        }
    }
    Ok(Progress::Done)
}

async fn is_open(s: &Services, workflow_id: &str) -> Result<bool, StepError> {
    match s.executions.get(workflow_id).await {
        Ok(execution) => Ok(matches!(execution.status.as_str(), "Running" | "PendingDispatch" | "ContinuedAsNew")),
        Err(ExecutionError::NotFound(_)) => Ok(false),
        Err(error) => Err(StepError::retry("EngineUnavailable", &error)),
    }
}

/// Removes from this host only what is provably over: the run is older than the row's, or its phase is terminal.
pub(super) async fn compute(s: &Services) -> Done {
    for found in s.compute.inventory().await? {
        let SessionRef { session_id, .. } = &found.session;
        let row = s.db.load::<Session>(session_id).await?;
        for run in found.live_runs {
            if is_over(row.as_ref(), run) {
                tracing::warn!(session = session_id, run, "sweeping a run that is over");
                s.compute.raise_fence(&found.session, run).await?;
                s.compute.terminate(&found.session, run, Duration::from_secs(2)).await?;
            }
        }
    }
    Ok(Progress::Done)
}

fn is_over(row: Option<&Session>, run: i64) -> bool {
    // No row: another database's session, for all this server can tell. Not provably over.
    let Some(session) = row else { return false };
    let terminal = matches!(session.phase(), Some(Phase::Stopped | Phase::Completed | Phase::Failed));
    run < session.run_number() || (run == session.run_number() && terminal)
}

/// Forgets what was kept for a time only.
pub(super) async fn records(s: &Services) -> Done {
    s.db.purge_expired(10_000).await?;
    s.vault.remove_unused(10_000).await?;
    Ok(Progress::Done)
}
