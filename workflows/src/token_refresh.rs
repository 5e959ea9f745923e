//! `token-refresh/{session}/{run}`: replaces a run's token at 75 % of its life, with jitter, without a restart.

use std::time::Duration;

use ambient_domain::WorkflowInput;
use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{SyncWorkflowContext, WorkflowContext, WorkflowResult};

use crate::{
    activities::{Activities, TOKEN_LIFE, place},
    project_attribute,
    step::{Patience, Progress, Saga, Step, end, is_asked_to_end},
};

/// Events after which it continues as new.
pub const LONGEST_HISTORY: u32 = 2_000;

/// The order of effects.
pub const STEPS: &[Step] = &[Step::on_host(&Activities::refresh_token).patience(Patience::Endless)];

/// What a run starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Whose token.
    #[serde(flatten)]
    pub of: WorkflowInput,
    /// The previous run had a signal that it had not handled when it continued as this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub woken: bool,
}

/// If cancelled it ends as cancelled, however its step ends.
const CANCELED_ANYHOW: &str = "token-refresh-2026-11-canceled-anyhow";
/// The same if it would have continued as new.
const CANCELED_AT_LONGEST: &str = "token-refresh-2026-11-canceled-at-longest";

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
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: Input) -> WorkflowResult<Progress> {
        let Input { of: input, woken } = input;
        if woken {
            ctx.state_mut(|s| s.woken = true);
        }
        let ended = |error| end(ctx, error, CANCELED_ANYHOW);
        let queue = place(ctx, &input).await.map_err(ended)?;
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
            // Even after a wake-up: the step itself notices whether the run is over.
            if Saga::new(ctx, &input, Some(queue.clone())).run(STEPS).await.map_err(ended)? == Progress::Superseded {
                return Ok(Progress::Done);
            }
            if ctx.history_length() > LONGEST_HISTORY && !is_asked_to_end(ctx, CANCELED_AT_LONGEST) {
                let next = Input { of: input.clone(), woken: ctx.state(|s| s.woken) };
                ctx.continue_as_new(next, project_attribute::kept(&input.project_id))?;
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
