//! Steps of teardown. Each may be repeated forever, and none depends on the previous one having worked.

use std::time::Duration;

use ambient_domain::{
    WorkflowInput,
    session::{ConditionStatus, ConditionType, Fact},
};

use super::snapshots;
use crate::{
    services::{Services, StepError, StepResult, session_ref},
    step::Progress,
};

/// The runner gives what it interrupts 1.5 s and then kills it. If an agent is still working after this time, its runner
/// is not doing so.
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);
/// The runner's grace period: only for snapshot and drain.
const TERMINATE_GRACE: Duration = Duration::from_secs(10);

pub(super) async fn raise_fence(s: &Services, i: &WorkflowInput, run: i64) -> StepResult {
    s.compute.raise_fence(&session_ref(i), run).await?;
    Ok(Progress::Done)
}

/// From here on no token of the run opens anything on a server; the server's own token for the runner is kept until the end.
pub(super) async fn revoke_credentials(s: &Services, i: &WorkflowInput) -> StepResult {
    s.db.revoke_tokens(&i.session_id, i.run).await?;
    Ok(Progress::Done)
}

pub(super) async fn interrupt_agent(s: &Services, i: &WorkflowInput) -> StepResult {
    let asked = tokio::time::timeout(INTERRUPT_GRACE, idle_when_asked(s, i)).await;
    // A runner that fails to answer has not interrupted anything.
    if !matches!(asked, Ok(Ok(()))) {
        s.compute.kill_agents(&session_ref(i), i.run).await?;
    }
    Ok(Progress::Done)
}

/// Ends the agent's turn and waits until it has ended; messages that wait get none any more.
async fn idle_when_asked(s: &Services, i: &WorkflowInput) -> Result<(), StepError> {
    let runner = s.runner(i).await?;
    runner.halt().await?;
    while runner.health().await?.state != "idle" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What the runner has recorded so far is read while it is alive; the rest is read from its file afterwards.
pub(super) async fn drain_log(s: &Services, i: &WorkflowInput) -> StepResult {
    let lives = async { s.runner(i).await.ok()?.health().await.ok() };
    if lives.await.is_none() {
        return Ok(Progress::Done);
    }
    let drained = s.readers.drained(&i.project_id, &i.session_id, i.run);
    let _ = tokio::time::timeout(Duration::from_secs(3), drained).await;
    Ok(Progress::Done)
}

pub(super) async fn terminate_runner(s: &Services, i: &WorkflowInput) -> StepResult {
    s.compute.terminate(&session_ref(i), i.run, TERMINATE_GRACE).await?;
    Ok(Progress::Done)
}

pub(super) async fn drain_rest_of_log(s: &Services, i: &WorkflowInput) -> StepResult {
    if let Some(path) = s.compute.event_log(&session_ref(i), i.run) {
        s.readers
            .drain_from_file(&i.project_id, &i.session_id, i.run, &path)
            .await
            .map_err(|error| StepError::retry("LogNotDrained", &error))?;
    }
    Ok(Progress::Done)
}

pub(super) async fn delete_run_objects(s: &Services, i: &WorkflowInput) -> StepResult {
    s.compute.delete_secrets(&session_ref(i), i.run).await?;
    s.readers.forget(&i.session_id, i.run).await;
    // The log of this run is complete now; new readers get it in one piece.
    let compacted = ambient_live::snapshot::compact(&s.db, &i.session_id).await;
    compacted.map_err(|error| StepError::retry("LogNotCompacted", &error))?;
    Ok(Progress::Done)
}

pub(super) async fn prove_torn_down(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    let proof = s.compute.prove_absent(&session_ref(i), i.run).await?;
    let mut evidence = proof.evidence;
    evidence.push(format!("on host {}", proof.host));
    evidence.push("its tokens are revoked".to_owned());
    // The log is complete: an earlier step has drained it.
    let not_run = s.db.messages_not_run(&i.session_id, i.run).await?;
    s.report(by, i, Fact::TornDown { evidence, not_run }).await
}

pub(super) async fn prove_session_gone(s: &Services, i: &WorkflowInput) -> StepResult {
    if i.run > 0 {
        s.compute.prove_absent(&session_ref(i), i.run).await?;
    }
    Ok(Progress::Done)
}

/// What was sealed for the session is gone from then on; its row only keeps the names.
pub(super) async fn forget_secrets(s: &Services, i: &WorkflowInput) -> StepResult {
    s.vault.remove_session(&i.session_id).await?;
    s.db.remove_uploads(&i.session_id).await?;
    s.db.remove_playbook(&i.session_id).await?;
    Ok(Progress::Done)
}

pub(super) async fn delete_workspace(s: &Services, i: &WorkflowInput) -> StepResult {
    s.compute.delete_workspace(&session_ref(i)).await?;
    s.db.mark_workspace_deleted(&i.session_id).await?;
    snapshots::forget_session(s, &i.project_id, &i.session_id).await;
    Ok(Progress::Done)
}

/// All that session-delete does, in its order.
pub(super) async fn delete_all(s: &Services, i: &WorkflowInput) -> Result<(), StepError> {
    raise_fence(s, i, i64::MAX).await?;
    revoke_credentials(s, i).await?;
    terminate_runner(s, i).await?;
    drain_rest_of_log(s, i).await?;
    delete_run_objects(s, i).await?;
    prove_session_gone(s, i).await?;
    forget_secrets(s, i).await?;
    delete_workspace(s, i).await?;
    Ok(())
}

pub(super) async fn report_incomplete(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    let session = s.session(&i.session_id).await?;
    let left = session.status_detail.and_then(|detail| detail.blocked_on);
    let fact = Fact::Observed {
        condition_type: ConditionType::StopIncomplete,
        status: ConditionStatus::True,
        reason: "StillStopping".to_owned(),
        message: left.unwrap_or_else(|| "no worker of the session's host has answered".to_owned()),
    };
    s.report(by, i, fact).await
}
