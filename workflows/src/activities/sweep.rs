//! What the sweep checks and repairs.

use std::time::Duration;

use ambient_compute::{Inventory, RunnerState, SessionRef};
use ambient_domain::{
    WorkflowInput,
    session::{Fact, Lifecycle, Phase, Session},
};

use super::{retention, snapshots, stop};
use crate::{
    executions::{ExecutionError, ExecutionFilter},
    observer,
    services::{Services, StepError, StepResult},
    step::Progress,
};

/// Executions of a session checked at a time, and how often: one with more stays remembered.
const PAGE: i64 = 100;
const MOST_PAGES: i64 = 10;
/// Expired rows removed in a transaction, and how many of these a sweep makes: a minute's worth of 8,000 repeatable requests a second.
const EXPIRED_AT_ONCE: u32 = 5_000;
const EXPIRED_BATCHES: u32 = 100;

/// Every active session has its workflow open, or its start in the outbox; otherwise it is told that the workflow is lost.
pub(super) async fn executions(s: &Services, by: &str) -> StepResult {
    let mut swept = Swept::default();
    for id in s.db.active_session_ids().await? {
        swept.note(&id, executions_of(s, by, &id).await);
    }
    swept.done()
}

async fn executions_of(s: &Services, by: &str, id: &str) -> Result<(), StepError> {
    let Some(session) = s.db.load::<Session>(id).await? else { return Ok(()) };
    for workflow_id in session.required_workflows() {
        if is_open(s, &workflow_id).await? {
            continue;
        }
        // The session may have moved on between the two reads; only what is still required is lost.
        let Some(now) = s.db.load::<Session>(id).await? else { return Ok(()) };
        if now.version == session.version && now.required_workflows().contains(&workflow_id) {
            tracing::warn!(session = id, workflow_id, "workflow lost");
            let input = WorkflowInput {
                project_id: session.project_id.clone(),
                session_id: id.to_owned(),
                run: session.run_number(),
                attempt: 0,
            };
            s.report(by, &input, Fact::WorkflowLost { workflow_execution: workflow_id }).await?;
        }
    }
    Ok(())
}

/// One session that cannot be swept does not keep others from it; the sweep still fails, and is repeated.
#[derive(Default)]
struct Swept {
    failed: Option<StepError>,
}

impl Swept {
    fn note(&mut self, session: &str, swept: Result<(), StepError>) {
        if let Err(error) = swept {
            tracing::warn!(session, %error, "a session cannot be swept; the next sweep tries again");
            self.failed = Some(error);
        }
    }

    fn done(self) -> StepResult {
        self.failed.map_or(Ok(Progress::Done), Err)
    }
}

async fn is_open(s: &Services, workflow_id: &str) -> Result<bool, StepError> {
    match s.executions.get(workflow_id).await {
        Ok(execution) => Ok(!is_closed(&execution.status)),
        Err(ExecutionError::NotFound(_)) => Ok(false),
        Err(error) => Err(StepError::retry("EngineUnavailable", &error)),
    }
}

/// Paused counts as open, and so does any status this release does not know.
fn is_closed(status: &str) -> bool {
    matches!(status, "Completed" | "Failed" | "Canceled" | "Terminated" | "TimedOut" | "ContinuedAsNew")
}

/// Compares every session on this host with what is running here, both ways. Removes what is provably over: the run is older than
/// the row's, or its phase is terminal. If a runner has ended, the session is told, whatever became of the observation.
pub(super) async fn compute(s: &Services) -> StepResult {
    let mut swept = Swept::default();
    for found in s.compute.inventory().await? {
        swept.note(&found.session.session_id, remove_what_is_over(s, &found).await);
    }
    for id in s.db.sessions_running_on(s.compute.host()).await? {
        swept.note(&id, compare_with_runner(s, &id).await);
    }
    swept.done()
}

async fn remove_what_is_over(s: &Services, found: &Inventory) -> Result<(), StepError> {
    let SessionRef { session_id, .. } = &found.session;
    let row = s.db.load::<Session>(session_id).await?;
    for run in found.live_runs.iter().copied().filter(|run| is_over(row.as_ref(), *run)) {
        tracing::warn!(session = session_id, run, "sweeping a run that is over");
        s.compute.raise_fence(&found.session, run).await?;
        s.compute.terminate(&found.session, run, Duration::from_secs(2)).await?;
    }
    match row {
        Some(session) if session.deleted_at.is_some() => finish_deletion(s, &session).await,
        _ => Ok(()),
    }
}

/// An administrator may have ended the execution that deletes a session. Nobody can delete it again, so what is left of it goes here.
async fn finish_deletion(s: &Services, session: &Session) -> Result<(), StepError> {
    let filter = ExecutionFilter {
        workflow: Some("session-delete".to_owned()),
        entity_id: Some(session.id.clone()),
        page: 1,
        size: PAGE,
        ..ExecutionFilter::default()
    };
    let listed = s.executions.list(&filter).await;
    let (executions, _) = listed.map_err(|error| StepError::retry("EngineUnavailable", &error))?;
    // None: its start is still to come.
    if executions.is_empty() || !executions.iter().all(|execution| is_closed(&execution.status)) {
        return Ok(());
    }
    tracing::warn!(session = session.id, "finishing a deletion that nobody is at work on");
    let input = WorkflowInput {
        project_id: session.project_id.clone(),
        session_id: session.id.clone(),
        run: session.run_number(),
        attempt: 0,
    };
    stop::delete_all(s, &input).await
}

async fn compare_with_runner(s: &Services, id: &str) -> Result<(), StepError> {
    let Some(session) = s.db.load::<Session>(id).await? else { return Ok(()) };
    let (run, running) = match &session.lifecycle {
        Lifecycle::Creating { run } => (run, false),
        Lifecycle::Running { run } => (run, true),
        _ => return Ok(()),
    };
    let place = SessionRef { project_id: session.project_id.clone(), session_id: id.to_owned() };
    let state = match s.compute.state(&place, run.number, run.attempt).await? {
        // Creating: its launch is still to come.
        RunnerState::Absent if running => RunnerState::Lost { reason: "its host does not know this runner".to_owned() },
        state @ (RunnerState::Exited { .. } | RunnerState::Lost { .. } | RunnerState::Exhausted { .. }) => state,
        RunnerState::Absent | RunnerState::Running { .. } => return Ok(()),
    };
    // The actor drops it if the session has moved on meanwhile.
    observer::report_end(s, &place, run.number, run.attempt, &state).await?;
    Ok(())
}

fn is_over(row: Option<&Session>, run: i64) -> bool {
    // No row: as far as this server can tell, it is another database's session. Not provably over.
    let Some(session) = row else { return false };
    if session.deleted_at.is_some() {
        return true;
    }
    let terminal = matches!(session.phase(), Some(Phase::Stopped | Phase::Completed | Phase::Failed));
    run < session.run_number() || (run == session.run_number() && terminal)
}

/// Removes what was kept only for a time.
pub(super) async fn records(s: &Services) -> StepResult {
    let expired = s.db.purge_expired(EXPIRED_AT_ONCE, EXPIRED_BATCHES).await?;
    retention::count("ambient_retention_expired_rows_removed_total", i64::try_from(expired).unwrap_or(i64::MAX));
    s.vault.remove_unused(10_000).await?;
    snapshots::sweep(s, None).await?;
    // What it cannot do now keeps nothing else from being done.
    if let Err(error) = retention::sweep(s).await {
        tracing::warn!(%error, "retention cannot be applied; the next sweep tries again");
    }
    let mut swept = Swept::default();
    let old = s.compute.old_deletions().await?;
    for id in s.db.deleted_for_good(&old).await? {
        swept.note(&id, forget_deletion(s, &id).await);
    }
    swept.done()
}

/// Compute remembers deleted sessions for those who act on them late. If no execution is open and the outbox is empty nobody
/// can, and anyone who comes later reads the session's row first.
async fn forget_deletion(s: &Services, id: &str) -> Result<(), StepError> {
    let page =
        |page| ExecutionFilter { entity_id: Some(id.to_owned()), page, size: PAGE, ..ExecutionFilter::default() };
    for number in 1..=MOST_PAGES {
        let listed = s.executions.list(&page(number)).await;
        let (executions, all) = listed.map_err(|error| StepError::retry("EngineUnavailable", &error))?;
        if !executions.iter().all(|execution| is_closed(&execution.status)) {
            return Ok(());
        }
        if number * PAGE >= all {
            return Ok(s.compute.forget_deletion(id).await?);
        }
    }
    Ok(())
}
