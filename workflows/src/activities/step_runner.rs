//! A step as an activity: its heartbeat, its cancellation, and what people are told about a failure.

use std::{future::Future, time::Duration};

use ambient_domain::{WorkflowInput, session::Fact};
use temporalio_sdk::{
    ApplicationFailure,
    activities::{ActivityContext, ActivityError},
};

use crate::{
    services::{Services, StepError},
    step::{Progress, is_last_attempt},
};

/// From this attempt on a failing step is reported to people.
const TOLD_FROM: u32 = 2;

type ActivityResult = Result<Progress, ActivityError>;

/// Runs steps for the engine.
pub(super) struct StepRunner {
    pub(super) services: Services,
}

impl StepRunner {
    /// Runs the work of a step to completion, with a heartbeat every second. Cancellation does not interrupt it: a step that
    /// acquires something either has it or does not, and teardown follows.
    pub(super) async fn step(
        &self,
        ctx: &ActivityContext,
        input: &WorkflowInput,
        work: impl Future<Output = Result<Progress, StepError>>,
    ) -> ActivityResult {
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
    pub(super) async fn wait(
        &self,
        ctx: &ActivityContext,
        input: &WorkflowInput,
        work: impl Future<Output = Result<Progress, StepError>>,
    ) -> ActivityResult {
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
    ) -> ActivityResult {
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
        let retry = retry && !is_last_attempt(ctx.info().retry_policy.as_ref(), attempt);
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
            let workflow_id = by(ctx);
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

/// Who reports: the workflow.
pub(super) fn by(ctx: &ActivityContext) -> String {
    ctx.info().workflow_id.clone().unwrap_or_default()
}

/// Activities of one shape, from [`WorkflowInput`] to [`Progress`], one per line: its name, the constant by which a lifecycle's table
/// refers to it, how it is run ([`StepRunner::step`] or [`StepRunner::wait`]), and its work, given services, workflow id and input. They are
/// followed by those of another shape.
macro_rules! step_activities {
    ($activities:ident($services:ident, $by:ident, $input:ident) {
        $($name:literal $constant:ident: $how:ident $work:expr;)*
    } $($others:tt)*) => {
        #[temporalio_macros::activities]
        impl $activities {
            $(
                #[activity(name = $name)]
                pub(crate) async fn $constant(
                    self: Arc<Self>,
                    ctx: ActivityContext,
                    input: WorkflowInput,
                ) -> Result<Progress, ActivityError> {
                    let by = by(&ctx);
                    #[allow(unused_variables, reason = "not every step needs all of them")]
                    let ($services, $by, $input) = (&self.0.services, by.as_str(), &input);
                    self.0.$how(&ctx, &input, $work).await
                }
            )*
            $($others)*
        }
    };
}
pub(super) use step_activities;
