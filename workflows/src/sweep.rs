//! `sweep/{host}`: checks and repairs the invariant of session.md section 3, and removes from this host what is provably over.
//!
//! One execution per host; started by its server, and again after a restart (an open one is kept).

use std::time::Duration;

use ambient_domain::WorkflowInput;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{ContinueAsNewOptions, WorkflowContext, WorkflowResult};

use crate::{
    activities::Activities,
    step::{Patience, Progress, Saga, Step, host_queue},
};

/// Between two sweeps.
pub const EVERY: Duration = Duration::from_secs(60);

/// The order of effects.
pub const STEPS: &[Step] = &[
    Step::on_host(&Activities::sweep_executions).at_most(300).patience(Patience::Few),
    Step::on_host(&Activities::sweep_compute).at_most(300).patience(Patience::Few),
    Step::on_host(&Activities::sweep_records).at_most(300).patience(Patience::Few),
];

/// See the module.
#[workflow]
#[derive(Default)]
pub struct Sweep;

#[workflow_methods]
impl Sweep {
    /// Sweeps forever.
    ///
    /// # Errors
    /// When cancelled by an administrator.
    #[run(name = "sweep")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, host: String) -> WorkflowResult<Progress> {
        let input = WorkflowInput { project_id: String::new(), session_id: String::new(), run: 0, attempt: 0 };
        loop {
            // A sweep that fails shows in the history; the next one comes anyway.
            let _ = Saga::new(ctx, &input, Some(host_queue(ctx.task_queue(), &host))).run(STEPS).await;
            ctx.timer(EVERY).await;
            if ctx.cancellation_token().reason().is_some() {
                return Err(temporalio_sdk::WorkflowTermination::cancelled());
            }
            if ctx.history_length() > 1_000 {
                ctx.continue_as_new(host.clone(), ContinueAsNewOptions::default())?;
            }
        }
    }
}
