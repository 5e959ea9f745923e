//! The steps of the lifecycles. Each may be repeated; each reads the state it needs; only ids are passed in.

mod earlier;
mod project;
mod reconcile;
mod retention;
mod snapshots;
mod start;
mod step_runner;
mod stop;
mod supervise;
mod sweep;

use std::{sync::Arc, time::Duration};

use ambient_domain::{WorkflowInput, session::Fact};
use serde::{Deserialize, Serialize};
use temporalio_sdk::{
    ActivityCancellationType, ActivityExecutionError, ActivityOptions, WorkflowContext,
    activities::{ActivityContext, ActivityError},
};
use temporalio_workflow::workflows::WorkflowImplementation;

pub(crate) use self::retention::when_asked;
pub use self::{earlier::EarlierActivities, start::TOKEN_LIFE, supervise::Look};
use self::{
    reconcile::Then,
    step_runner::{StepRunner, by, step_activities},
};
use crate::{
    services::Services,
    step::{Progress, host_queue},
};

/// The activities, registered with a worker.
pub struct Activities(StepRunner);

impl Activities {
    /// Activities on `services`.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self(StepRunner { services })
    }
}

/// Input of `report-failure`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureReport {
    /// Whose.
    pub input: WorkflowInput,
    /// Condition reason.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// Task queue of the session's host; the first call of a session decides it.
pub(crate) async fn place<W: WorkflowImplementation>(
    ctx: &WorkflowContext<W>,
    input: &WorkflowInput,
) -> Result<String, ActivityExecutionError> {
    let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(30));
    let host = ctx.execute_activity(Activities::place_session, input.clone(), options).await?;
    Ok(host_queue(ctx.task_queue(), &host))
}

/// Reports that the run cannot succeed. The stop that follows from the report cancels the reporting workflow: with `to_the_end` it waits
/// for the outcome all the same.
pub(crate) async fn report_failure<W: WorkflowImplementation>(
    ctx: &WorkflowContext<W>,
    input: &WorkflowInput,
    reason: String,
    message: String,
    to_the_end: bool,
) -> Result<Progress, ActivityExecutionError> {
    let cancellation = if to_the_end {
        ActivityCancellationType::WaitCancellationCompleted
    } else {
        ActivityCancellationType::TryCancel
    };
    let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(30))
        .heartbeat_timeout(Duration::from_secs(10))
        .cancellation_type(cancellation)
        .build();
    let failure = FailureReport { input: input.clone(), reason, message };
    ctx.execute_activity(Activities::report_failure, failure, options).await
}

step_activities! {
    Activities(s, by, i) {
        "ensure-project-space" ensure_project_space: step project::ensure_space(s, i);
        "revoke-credentials" revoke_credentials: step stop::revoke_credentials(s, i);
        "bring-up-runner" bring_up_runner: step Box::pin(start::bring_up_runner(s, by, i));
        "await-runner" await_runner: wait start::await_runner(s, by, i);
        "reconcile-repos" reconcile_repos: wait Box::pin(reconcile::repos(s, by, i, Then::AsBefore));
        "reconcile-and-mark-running" reconcile_and_mark_running: wait Box::pin(reconcile::repos(s, by, i, Then::Running));
        "deliver-prompt" deliver_prompt: wait start::await_delivery(s, i);
        "raise-fence" raise_fence: step stop::raise_fence(s, i, i.run);
        "raise-fence-for-good" raise_fence_for_good: step stop::raise_fence(s, i, i64::MAX);
        "interrupt-agent" interrupt_agent: step stop::interrupt_agent(s, i);
        "drain-log" drain_log: step stop::drain_log(s, i);
        "terminate-runner" terminate_runner: step stop::terminate_runner(s, i);
        "drain-rest-of-log" drain_rest_of_log: step stop::drain_rest_of_log(s, i);
        "delete-run-objects" delete_run_objects: step stop::delete_run_objects(s, i);
        "prove-torn-down" prove_torn_down: step stop::prove_torn_down(s, by, i);
        "report-stop-incomplete" report_stop_incomplete: step stop::report_incomplete(s, by, i);
        "prove-session-gone" prove_session_gone: step stop::prove_session_gone(s, i);
        "delete-workspace" delete_workspace: step stop::delete_workspace(s, i);
        "forget-secrets" forget_secrets: step stop::forget_secrets(s, i);
        "refresh-token" refresh_token: step start::refresh_token(s, i);
        "report-provisioned" report_provisioned: step project::report_provisioned(s, by, i);
        "delete-sessions" delete_sessions: step project::delete_contents(s, by, i);
        "await-sessions-gone" await_sessions_gone: wait project::await_sessions_gone(s, i);
        "delete-project-space" delete_project_space: step project::delete_space(s, i);
        "report-project-deleted" report_project_deleted: step project::report_deleted(s, by, i);
        "sweep-executions" sweep_executions: step sweep::executions(s, by);
        "sweep-compute" sweep_compute: step sweep::compute(s);
        "sweep-records" sweep_records: step sweep::records(s);
    }

    /// Host of the session: the one that has its workspace, else this one.
    ///
    /// # Errors
    /// When the database fails.
    #[activity(name = "place-session")]
    pub async fn place_session(self: Arc<Self>, _: ActivityContext, i: WorkflowInput) -> Result<String, ActivityError> {
        Ok(self.0.services.db.place_session(&i.session_id, self.0.services.compute.host()).await?)
    }

    /// Reports that the run cannot succeed.
    ///
    /// # Errors
    /// When the actor cannot be reached.
    #[activity(name = "report-failure")]
    pub async fn report_failure(self: Arc<Self>, ctx: ActivityContext, f: FailureReport) -> Result<Progress, ActivityError> {
        let fact = Fact::Fatal { reason: f.reason, message: f.message };
        let by = by(&ctx);
        Box::pin(self.0.step(&ctx, &f.input, self.0.services.report(&by, &f.input, fact))).await
    }

    /// Checks the run's clocks and spec, and acts.
    ///
    /// # Errors
    /// When database or actor fail.
    #[activity(name = "supervise")]
    pub async fn supervise(self: Arc<Self>, ctx: ActivityContext, i: WorkflowInput) -> Result<Look, ActivityError> {
        Ok(supervise::look(&self.0.services, &by(&ctx), &i).await?)
    }
}
