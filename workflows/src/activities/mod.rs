//! The steps of the lifecycles. Each may be repeated; each reads the state it needs; only ids are passed in.

mod project;
mod reconcile;
mod start;
mod stop;
mod supervise;
mod sweep;

use std::{future::Future, sync::Arc, time::Duration};

use ambient_domain::{WorkflowInput, session::Fact};
use serde::{Deserialize, Serialize};
use temporalio_macros::activities;
use temporalio_sdk::{
    ActivityExecutionError, ActivityOptions, ApplicationFailure, WorkflowContext,
    activities::{ActivityContext, ActivityError},
};

use temporalio_workflow::workflows::WorkflowImplementation;

use self::reconcile::Then;
use crate::{
    services::{Services, StepError},
    session_supervise::Look,
    step::{Progress, host_queue},
};

/// The activities, registered with a worker.
pub struct Activities {
    services: Services,
}

/// Input of `report-failure`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Whose.
    pub input: WorkflowInput,
    /// Condition reason.
    pub reason: String,
    /// In words.
    pub message: String,
}

type Done = Result<Progress, ActivityError>;

/// From this attempt on a failing step is reported to people.
const TOLD_FROM: u32 = 2;

/// Task queue of the session's host; the first call of a session decides it.
pub(crate) async fn place<W: WorkflowImplementation>(
    ctx: &WorkflowContext<W>,
    input: &WorkflowInput,
) -> Result<String, ActivityExecutionError> {
    let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(30));
    let host = ctx.execute_activity(Activities::place_session, input.clone(), options).await?;
    Ok(host_queue(ctx.task_queue(), &host))
}

pub(crate) async fn report_failure<W: WorkflowImplementation>(
    ctx: &WorkflowContext<W>,
    input: &WorkflowInput,
    reason: String,
    message: String,
) -> Result<Progress, ActivityExecutionError> {
    let options = ActivityOptions::start_to_close_timeout(Duration::from_secs(30));
    let failure = Failure { input: input.clone(), reason, message };
    ctx.execute_activity(Activities::report_failure, failure, options).await
}

impl Activities {
    /// Activities on `services`.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }

    /// Runs the work of a step to completion, with a heartbeat every second. Cancellation does not interrupt it: a step that
    /// acquires something either has it or does not, and teardown follows.
    async fn step(
        &self,
        ctx: &ActivityContext,
        input: &WorkflowInput,
        work: impl Future<Output = Result<Progress, StepError>>,
    ) -> Done {
        let name = ctx.info().activity_type.as_str();
        let guarded = async {
            self.services.hook.before(name, input).await?;
            let progress = work.await?;
            self.services.hook.after(name, input).await?;
            Ok(progress)
        };
        let mut guarded = std::pin::pin!(guarded);
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                outcome = &mut guarded => return self.told(ctx, name, input, outcome).await,
                _ = beat.tick() => ctx.record_heartbeat(()).await?,
            }
        }
    }

    /// Like [`Self::step`], for work that only waits: cancellation ends it at once.
    async fn wait(
        &self,
        ctx: &ActivityContext,
        input: &WorkflowInput,
        work: impl Future<Output = Result<Progress, StepError>>,
    ) -> Done {
        tokio::select! {
            done = self.step(ctx, input, work) => done,
            () = ctx.cancelled() => Err(ActivityError::cancelled()),
        }
    }

    /// Turns a failure into the engine's terms, and from the second attempt on tells people what is blocking.
    async fn told(
        &self,
        ctx: &ActivityContext,
        name: &str,
        input: &WorkflowInput,
        outcome: Result<Progress, StepError>,
    ) -> Done {
        let (reason, message, retry) = match outcome {
            Ok(progress) => {
                self.tell_unblocked(ctx, name, input).await;
                return Ok(progress);
            }
            Err(StepError::Superseded) => return Ok(Progress::Superseded),
            Err(StepError::Retry { reason, message }) => (reason, message, true),
            Err(StepError::Fatal { reason, message }) => (reason, message, false),
        };
        let attempt = ctx.info().attempt;
        tracing::warn!(
            step = name,
            session = input.session_id,
            run = input.run,
            attempt,
            reason,
            message,
            "step failed"
        );
        if retry && attempt >= TOLD_FROM && !input.session_id.is_empty() {
            let workflow_id = ctx.info().workflow_id.clone().unwrap_or_default();
            let blocked = Fact::Blocked {
                reason: reason.to_owned(),
                blocked_on: format!("{name}: {message}"),
                next_retry_at: None,
                workflow_execution: workflow_id.clone(),
            };
            // What cannot be reported now is reported at the next attempt.
            let _ = self.services.report(&workflow_id, input, blocked).await;
        }
        let failure = ApplicationFailure::builder(std::io::Error::other(message))
            .type_name(reason.to_owned())
            .non_retryable(!retry)
            .build();
        Err(ActivityError::application(failure))
    }

    /// A step that was reported as an obstacle no longer is one. Best effort: the next change of phase clears it too.
    async fn tell_unblocked(&self, ctx: &ActivityContext, name: &str, input: &WorkflowInput) {
        if ctx.info().attempt <= TOLD_FROM || input.session_id.is_empty() {
            return;
        }
        let workflow_id = by(ctx);
        let fact = Fact::Unblocked { step: name.to_owned(), workflow_execution: workflow_id.clone() };
        if let Err(error) = self.services.report(&workflow_id, input, fact).await {
            tracing::info!(step = name, session = input.session_id, %error, "could not report that a step is done at last");
        }
    }
}

fn by(ctx: &ActivityContext) -> String {
    ctx.info().workflow_id.clone().unwrap_or_default()
}

/// Those from [`WorkflowInput`] to [`Progress`] are steps in the lifecycles' tables.
#[activities]
impl Activities {
    /// Host of the session: the one that has its workspace, else this one.
    ///
    /// # Errors
    /// When the database fails.
    #[activity(name = "place-session")]
    pub async fn place_session(self: Arc<Self>, _: ActivityContext, i: WorkflowInput) -> Result<String, ActivityError> {
        Ok(self.services.db.place_session(&i.session_id, self.services.compute.host()).await?)
    }

    /// Reports that the run cannot succeed.
    ///
    /// # Errors
    /// When the actor cannot be reached.
    #[activity(name = "report-failure")]
    pub async fn report_failure(self: Arc<Self>, ctx: ActivityContext, f: Failure) -> Result<Progress, ActivityError> {
        let fact = Fact::Fatal { reason: f.reason, message: f.message };
        self.step(&ctx, &f.input, self.services.report(&by(&ctx), &f.input, fact)).await
    }

    /// Checks the run's clocks and spec, and acts.
    ///
    /// # Errors
    /// When database or actor fail.
    #[activity(name = "supervise")]
    pub async fn supervise(self: Arc<Self>, ctx: ActivityContext, i: WorkflowInput) -> Result<Look, ActivityError> {
        Ok(supervise::look(&self.services, &by(&ctx), &i).await?)
    }

    #[activity(name = "report-provisioning")]
    pub(crate) async fn report_provisioning(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, self.services.report(&by(&ctx), &i, Fact::Provisioning)).await
    }

    #[activity(name = "ensure-project-space")]
    pub(crate) async fn ensure_project_space(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, project::ensure_space(&self.services, &i)).await
    }

    #[activity(name = "ensure-workspace")]
    pub(crate) async fn ensure_workspace(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, start::ensure_workspace(&self.services, &i)).await
    }

    #[activity(name = "prove-earlier-runs-gone")]
    pub(crate) async fn prove_earlier_runs_gone(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, start::prove_earlier_runs_gone(&self.services, &i)).await
    }

    #[activity(name = "issue-credentials")]
    pub(crate) async fn issue_credentials(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, start::issue_credentials(&self.services, &i)).await
    }

    #[activity(name = "revoke-credentials")]
    pub(crate) async fn revoke_credentials(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::revoke_credentials(&self.services, &i)).await
    }

    #[activity(name = "launch-runner")]
    pub(crate) async fn launch_runner(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, start::launch_runner(&self.services, &i)).await
    }

    #[activity(name = "bring-up-runner")]
    pub(crate) async fn bring_up_runner(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, Box::pin(start::bring_up_runner(&self.services, &by(&ctx), &i))).await
    }

    #[activity(name = "await-runner")]
    pub(crate) async fn await_runner(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.wait(&ctx, &i, start::await_runner(&self.services, &by(&ctx), &i)).await
    }

    #[activity(name = "reconcile-repos")]
    pub(crate) async fn reconcile_repos(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.wait(&ctx, &i, Box::pin(reconcile::repos(&self.services, &by(&ctx), &i, Then::AsBefore))).await
    }

    #[activity(name = "reconcile-and-mark-running")]
    pub(crate) async fn reconcile_and_mark_running(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.wait(&ctx, &i, Box::pin(reconcile::repos(&self.services, &by(&ctx), &i, Then::Running))).await
    }

    #[activity(name = "mark-running")]
    pub(crate) async fn mark_running(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, self.services.report(&by(&ctx), &i, Fact::MarkRunning)).await
    }

    #[activity(name = "deliver-prompt")]
    pub(crate) async fn deliver_prompt(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.wait(&ctx, &i, start::await_delivery(&self.services, &i)).await
    }

    #[activity(name = "raise-fence")]
    pub(crate) async fn raise_fence(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::raise_fence(&self.services, &i, i.run)).await
    }

    #[activity(name = "raise-fence-for-good")]
    pub(crate) async fn raise_fence_for_good(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::raise_fence(&self.services, &i, i64::MAX)).await
    }

    #[activity(name = "interrupt-agent")]
    pub(crate) async fn interrupt_agent(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::interrupt_agent(&self.services, &i)).await
    }

    #[activity(name = "drain-log")]
    pub(crate) async fn drain_log(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::drain_log(&self.services, &i)).await
    }

    #[activity(name = "terminate-runner")]
    pub(crate) async fn terminate_runner(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::terminate_runner(&self.services, &i)).await
    }

    #[activity(name = "drain-rest-of-log")]
    pub(crate) async fn drain_rest_of_log(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::drain_rest_of_log(&self.services, &i)).await
    }

    #[activity(name = "delete-run-objects")]
    pub(crate) async fn delete_run_objects(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::delete_run_objects(&self.services, &i)).await
    }

    #[activity(name = "prove-torn-down")]
    pub(crate) async fn prove_torn_down(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::prove_torn_down(&self.services, &by(&ctx), &i)).await
    }

    #[activity(name = "report-stop-incomplete")]
    pub(crate) async fn report_stop_incomplete(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::report_incomplete(&self.services, &by(&ctx), &i)).await
    }

    #[activity(name = "prove-session-gone")]
    pub(crate) async fn prove_session_gone(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::prove_session_gone(&self.services, &i)).await
    }

    #[activity(name = "delete-workspace")]
    pub(crate) async fn delete_workspace(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::delete_workspace(&self.services, &i)).await
    }

    #[activity(name = "forget-secrets")]
    pub(crate) async fn forget_secrets(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, stop::forget_secrets(&self.services, &i)).await
    }

    #[activity(name = "refresh-token")]
    pub(crate) async fn refresh_token(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, start::refresh_token(&self.services, &i)).await
    }

    #[activity(name = "report-provisioned")]
    pub(crate) async fn report_provisioned(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, project::report_provisioned(&self.services, &by(&ctx), &i)).await
    }

    #[activity(name = "delete-sessions")]
    pub(crate) async fn delete_sessions(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, project::delete_contents(&self.services, &by(&ctx), &i)).await
    }

    #[activity(name = "await-sessions-gone")]
    pub(crate) async fn await_sessions_gone(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.wait(&ctx, &i, project::await_sessions_gone(&self.services, &i)).await
    }

    #[activity(name = "delete-project-space")]
    pub(crate) async fn delete_project_space(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, project::delete_space(&self.services, &i)).await
    }

    #[activity(name = "report-project-deleted")]
    pub(crate) async fn report_project_deleted(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, project::report_deleted(&self.services, &by(&ctx), &i)).await
    }

    #[activity(name = "sweep-executions")]
    pub(crate) async fn sweep_executions(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, sweep::executions(&self.services, &by(&ctx))).await
    }

    #[activity(name = "sweep-compute")]
    pub(crate) async fn sweep_compute(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, sweep::compute(&self.services)).await
    }

    #[activity(name = "sweep-records")]
    pub(crate) async fn sweep_records(
        self: Arc<Self>,
        ctx: ActivityContext,
        i: WorkflowInput,
    ) -> Result<Progress, ActivityError> {
        self.step(&ctx, &i, sweep::records(&self.services)).await
    }
}
