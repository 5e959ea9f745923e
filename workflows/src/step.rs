//! A lifecycle as a table of steps: what is done, where, with how much patience, and what undoes it.
//!
//! Every step is an activity of one shape, [`Step`] -> [`Progress`], a row of the table, so that a workflow file reads from top
//! to bottom. Invariants: undos run in reverse order, in a scope of their own (a cancelled workflow can still clean up); a step
//! that returns `Superseded` ends the workflow, since another run, attempt or a deletion has taken over; a workflow that is cancelled
//! ends as cancelled, whatever its last step returned.

use std::time::Duration;

use ambient_domain::WorkflowInput;
use serde::{Deserialize, Serialize};
use temporalio_common::{ActivityDefinition, RetryPolicy};
use temporalio_sdk::{
    ActivityExecutionError, ActivityOptions, WorkflowCancellationToken, WorkflowContext, WorkflowTermination,
};
use temporalio_workflow::workflows::WorkflowImplementation;

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Done (or had been done already).
    Done,
    /// Someone else has taken over; the workflow ends.
    Superseded,
}

/// How long a step is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until it fails at its third attempt or later: for something external such as a clone, whose failure people want to know about.
    /// Attempts that end with their worker are no failures of the step: ten are made then.
    Few,
    /// Five minutes of attempts.
    Minutes,
    /// Forever: teardown and repair.
    Endless,
}

/// Where a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Any worker.
    Anywhere,
    /// The session's compute host.
    Host,
}

/// An activity that can be a step: from the ids it works for to its outcome.
pub trait StepActivity: Sync {
    /// Its name.
    fn name(&self) -> &str;
}

impl<A: ActivityDefinition<Input = WorkflowInput, Output = Progress> + Sync> StepActivity for A {
    fn name(&self) -> &str {
        ActivityDefinition::name(self)
    }
}

/// A row of a lifecycle's table.
#[derive(Clone, Copy)]
pub struct Step {
    /// What does it.
    pub activity: &'static dyn StepActivity,
    /// Where.
    pub place: Place,
    /// How patiently.
    pub patience: Patience,
    /// Timeout of a single attempt.
    pub timeout: Duration,
    /// What undoes it, in this order.
    pub undo: &'static [&'static dyn StepActivity],
}

impl Step {
    /// A step on the session's host: five minutes of attempts of at most 30 s, no undo.
    #[must_use]
    pub const fn on_host(activity: &'static dyn StepActivity) -> Self {
        let timeout = Duration::from_secs(30);
        Self { activity, place: Place::Host, patience: Patience::Minutes, timeout, undo: &[] }
    }
    /// A step on any worker.
    #[must_use]
    pub const fn anywhere(activity: &'static dyn StepActivity) -> Self {
        Self { place: Place::Anywhere, ..Self::on_host(activity) }
    }
    /// With what undoes it, in this order.
    #[must_use]
    pub const fn undone_by(self, undo: &'static [&'static dyn StepActivity]) -> Self {
        Self { undo, ..self }
    }
    /// With another patience.
    #[must_use]
    pub const fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }
    /// With another timeout of a single attempt, seconds.
    #[must_use]
    pub const fn at_most(self, seconds: u64) -> Self {
        Self { timeout: Duration::from_secs(seconds), ..self }
    }

    /// Name of its activity.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.activity.name()
    }

    fn options(&self, host_queue: Option<&str>) -> ActivityOptions {
        ActivityOptions::with_start_to_close_timeout(self.timeout)
            // The activity sends heartbeats every second: a dead worker is noticed in seconds, not after the step's own timeout.
            .heartbeat_timeout(Duration::from_secs(10))
            .retry_policy(retry_policy(self.patience))
            .cancellation_type(temporalio_sdk::ActivityCancellationType::WaitCancellationCompleted)
            .maybe_task_queue(match self.place {
                Place::Host => host_queue.map(str::to_owned),
                Place::Anywhere => None,
            })
            .build()
    }
}

/// Attempts of a step with [`Patience::Few`]: from this one on its own failure is final ...
const FEW: u32 = 3;
/// ... and so many are made when they are lost with their worker.
pub const FEW_LOST: u32 = 10;

/// Whether a step that fails by itself at this attempt is not to be tried again. The engine only counts attempts: it cannot tell those
/// that failed from those that were lost.
pub(crate) fn is_last_attempt(policy: Option<&RetryPolicy>, attempt: u32) -> bool {
    policy.is_some_and(|policy| policy.maximum_attempts() == FEW_LOST) && attempt >= FEW
}

fn retry_policy(patience: Patience) -> RetryPolicy {
    let (maximum_interval, attempts) = match patience {
        Patience::Few => (Duration::from_secs(2), FEW_LOST),
        // 0.2 s doubling to 10 s: about five minutes.
        Patience::Minutes => (Duration::from_secs(10), 34),
        Patience::Endless => (Duration::from_secs(30), 0),
    };
    RetryPolicy::builder()
        .initial_interval(Duration::from_millis(200))
        .backoff_coefficient(2.0)
        .maximum_interval(maximum_interval)
        .maximum_attempts(attempts)
        .build()
}

/// A row's activity, in the SDK's form.
struct OfRow(&'static dyn StepActivity);

impl ActivityDefinition for OfRow {
    type Input = WorkflowInput;
    type Output = Progress;
    fn name(&self) -> &str {
        self.0.name()
    }
}

/// Task queue of a host's compute activities, alongside the task queue of the lifecycles.
#[must_use]
pub fn host_queue(task_queue: &str, host: &str) -> String {
    format!("{task_queue}-compute-{host}")
}

/// A run through a table of steps.
pub(crate) struct Saga<W: WorkflowImplementation> {
    ctx: WorkflowContext<W>,
    input: WorkflowInput,
    host_queue: Option<String>,
    done: Vec<&'static Step>,
}

impl<W: WorkflowImplementation> Saga<W> {
    pub(crate) fn new(ctx: &WorkflowContext<W>, input: &WorkflowInput, host_queue: Option<String>) -> Self {
        Self { ctx: ctx.clone(), input: input.clone(), host_queue, done: Vec::new() }
    }

    /// Runs steps in order until one supersedes, fails, or all are done.
    pub(crate) async fn run(&mut self, steps: &'static [Step]) -> Result<Progress, ActivityExecutionError> {
        for step in steps {
            let options = step.options(self.host_queue.as_deref());
            // Recorded before it runs: a step that fails may have done half of its work.
            self.done.push(step);
            let progress = self.ctx.execute_activity(OfRow(step.activity), self.input.clone(), options).await?;
            if progress == Progress::Superseded {
                return Ok(Progress::Superseded);
            }
        }
        Ok(Progress::Done)
    }

    /// Undoes what was done, last first. A failed undo is ignored: teardown proves the result anyway.
    pub(crate) async fn undo(&mut self) {
        let scope = WorkflowCancellationToken::new();
        while let Some(step) = self.done.pop() {
            for undo in step.undo {
                let mut options = step.options(self.host_queue.as_deref());
                options.cancellation_token = Some(scope.clone());
                options.retry_policy = Some(retry_policy(Patience::Few));
                let _ = self.ctx.execute_activity(OfRow(*undo), self.input.clone(), options).await;
            }
        }
    }
}

/// The end of a workflow whose step failed: a failure after cancellation may well be caused by it.
///
/// `canceled_anyhow` is the workflow's patch: before it, a failure despite cancellation made it a failed workflow.
pub(crate) fn end<W: WorkflowImplementation>(
    ctx: &WorkflowContext<W>,
    error: ActivityExecutionError,
    canceled_anyhow: &str,
) -> WorkflowTermination {
    if is_cancelled(&error) || is_asked_to_end(ctx, canceled_anyhow) {
        return WorkflowTermination::cancelled();
    }
    error.into()
}

/// Whether the workflow has been cancelled, and started with the patch that makes it count here.
pub(crate) fn is_asked_to_end<W: WorkflowImplementation>(ctx: &WorkflowContext<W>, patch: &str) -> bool {
    ctx.cancellation_token().reason().is_some() && ctx.patched(patch)
}

pub(crate) fn is_cancelled(error: &ActivityExecutionError) -> bool {
    matches!(error, ActivityExecutionError::Cancelled(_))
}

/// The failure that an activity reported: its type (a condition reason) and message.
pub(crate) fn failure_of(error: &ActivityExecutionError) -> (String, String) {
    use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;
    let mut failure = error.failure();
    let mut found = ("StepFailed".to_owned(), error.to_string());
    while let Some(current) = failure {
        match &current.failure_info {
            Some(FailureInfo::ApplicationFailureInfo(info)) => {
                let reason = if info.r#type.is_empty() { "StepFailed" } else { &info.r#type };
                found = (reason.to_owned(), current.message.clone());
            }
            Some(FailureInfo::TimeoutFailureInfo(_)) => "StepTimeout".clone_into(&mut found.0),
            _ => {}
        }
        failure = current.cause.as_deref();
    }
    found
}
