//! `token-refresh/{session}/{run}`: a run's token is replaced at 75 % of its life, with jitter, without a restart.

use std::time::Duration;

use ambient_domain::WorkflowInput;
use futures::FutureExt as _;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{ContinueAsNewOptions, SyncWorkflowContext, WorkflowContext, WorkflowResult};

use crate::{
    activities::place,
    step::{Patience, Progress, Saga, Step},
};

/// Life of a runner-to-server token, seconds.
pub const TOKEN_LIFE: i64 = 3_600;

/// The order of effects.
pub const STEPS: &[Step] = &[Step::on_host("refresh-token").patience(Patience::Endless)];

/// See the module.
#[workflow]
#[derive(Default)]
pub struct TokenRefresh {
    woken: bool,
}

#[workflow_methods]
impl TokenRefresh {
    /// Sleeps and refreshes until the run is over.
    ///
    /// # Errors
    /// When cancelled (the session was deleted).
    #[run(name = "token-refresh")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: WorkflowInput) -> WorkflowResult<Progress> {
        let queue = place(ctx, &input).await?;
        loop {
            let jitter: f64 = ctx.random();
            {
                let mut woken = std::pin::pin!(ctx.wait_condition(|s: &Self| s.woken).fuse());
                let mut due = std::pin::pin!(ctx.timer(sleep(jitter)).fuse());
                temporalio_sdk::workflows::select! {
                    woken = woken => woken?,
                    _ = due => {}
                }
            }
            ctx.state_mut(|s| s.woken = false);
            // Also after a wake-up: the step itself sees whether the run is over.
            if Saga::new(ctx, &input, Some(queue.clone())).run(STEPS).await? == Progress::Superseded {
                return Ok(Progress::Done);
            }
            if ctx.history_length() > 2_000 {
                ctx.continue_as_new(input.clone(), ContinueAsNewOptions::default())?;
            }
        }
    }

    /// The session has changed.
    #[signal(name = "wake")]
    pub fn wake(&mut self, _: &mut SyncWorkflowContext<Self>) {
        self.woken = true;
    }
}

/// 65-75 % of the token's life, 45 minutes at most. `jitter` is 0 to 1.
fn sleep(jitter: f64) -> Duration {
    let life = Duration::from_secs(TOKEN_LIFE.unsigned_abs());
    life.mul_f64(0.65 + 0.10 * jitter.clamp(0.0, 1.0)).min(Duration::from_secs(45 * 60))
}
