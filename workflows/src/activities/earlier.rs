//! Used only by the ten steps of a `session-start` that started before `session-start-2026-11-fewer-steps`. Goes with that patch.

use std::sync::Arc;

use ambient_domain::{WorkflowInput, session::Fact};
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use super::{
    start::{launch_request, prove_gone, write_credentials},
    step_runner::{StepRunner, by, step_activities},
};
use crate::{
    model_access::Owners,
    services::{Services, StepResult, session_ref},
    step::Progress,
};

/// The earlier activities, registered with a worker alongside [`Activities`](super::Activities).
pub struct EarlierActivities(StepRunner);

impl EarlierActivities {
    /// Activities on `services`.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self(StepRunner { services })
    }
}

step_activities! {
    EarlierActivities(s, by, i) {
        "report-provisioning" report_provisioning: step s.report(by, i, Fact::Provisioning);
        "ensure-workspace" ensure_workspace: step ensure_workspace(s, i);
        "prove-earlier-runs-gone" prove_earlier_runs_gone: step prove_earlier_runs_gone(s, i);
        "issue-credentials" issue_credentials: step issue_credentials(s, i);
        "launch-runner" launch_runner: step launch_runner(s, i);
        "mark-running" mark_running: step s.report(by, i, Fact::MarkRunning);
    }
}

async fn ensure_workspace(s: &Services, i: &WorkflowInput) -> StepResult {
    s.active_session(i).await?;
    s.compute.ensure_workspace(&session_ref(i)).await?;
    Ok(Progress::Done)
}

/// After a forced stop nobody waited for the proof; a new run waits for it here.
async fn prove_earlier_runs_gone(s: &Services, i: &WorkflowInput) -> StepResult {
    s.active_session(i).await?;
    prove_gone(s, i).await?;
    Ok(Progress::Done)
}

async fn issue_credentials(s: &Services, i: &WorkflowInput) -> StepResult {
    let session = s.active_session(i).await?;
    write_credentials(s, i, &session, &Owners::of(s, &session).await?).await?;
    Ok(Progress::Done)
}

async fn launch_runner(s: &Services, i: &WorkflowInput) -> StepResult {
    let session = s.active_session(i).await?;
    let owners = Owners::of(s, &session).await?;
    s.compute.launch(&launch_request(s, &session, &owners, i).await?).await?;
    Ok(Progress::Done)
}
