//! A runner that is alive but does not answer: what the session's `Ready` says about it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ambient_domain::session::{ConditionStatus, ConditionType, Fact, RUNNER_UNRESPONSIVE, Session};
use ambient_persistence::retry::{Backoff, jittered};
use tokio::time::{Instant, sleep, timeout};

use super::{Context, RunRef};
use crate::runner_client::RunnerClient;

/// Timeout of one attempt to deliver the fact.
const REPORT: Duration = Duration::from_secs(10);
/// A new process checks after a while what an earlier one has reported; not along with everything else at its start.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// What has been reported about a run's runner.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<State>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    since: Option<Instant>,
    /// Whether it was reported; unknown for a new process.
    told: Option<bool>,
}

impl Silence {
    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// It ended, or another process is reading: nothing we know of is silent.
    pub(super) fn broken(&self) {
        self.change(|state| state.since = None);
    }

    /// A round without an answer: reports it, and when patience runs out, that the runner is lost.
    pub(super) async fn unheard(&self, context: &Context, run: &RunRef) {
        let since = self.state().since.unwrap_or_else(Instant::now);
        self.change(|state| state.since = Some(since));
        let patience = context.options.unresponsive_patience;
        if since.elapsed() >= patience {
            self.lose(context, run, since.elapsed()).await;
        } else if self.state().told != Some(true) {
            let message = format!("the runner does not answer; it counts as lost after {} s of it", patience.as_secs());
            if report(context, run, 0, ready(ConditionStatus::False, RUNNER_UNRESPONSIVE, message)).await {
                self.change(|state| state.told = Some(true));
            }
        }
    }

    async fn lose(&self, context: &Context, run: &RunRef, silent: Duration) {
        // For the attempt that the log knows: a later one has not said a word yet.
        let cursors = context.db.runner_cursors(&run.session_id, run.run).await.unwrap_or_default();
        let Some(attempt) = cursors.first().map(|cursor| cursor.facts_attempt).filter(|attempt| *attempt > 0) else {
            return;
        };
        let reason = format!("the runner has not answered for {} s", silent.as_secs());
        if report(context, run, attempt, Fact::RunnerLost { reason }).await {
            self.change(|state| *state = State { since: None, told: Some(false) });
        }
    }

    /// The runner is connected: takes back what was reported. Never returns.
    pub(super) async fn heard(&self, context: &Context, run: &RunRef, client: &RunnerClient) {
        self.change(|state| state.since = None);
        let mut backoff = Backoff::new(Duration::from_millis(100), context.options.longest_pause);
        loop {
            match self.state().told {
                Some(false) => std::future::pending().await,
                Some(true) => {}
                None => {
                    sleep(jittered(FIRST_LOOK)).await;
                    if let Ok(session) = context.db.load::<Session>(&run.session_id).await {
                        let ready = session.as_ref().and_then(|session| session.condition(ConditionType::Ready));
                        let told = ready.is_some_and(|ready| ready.reason == RUNNER_UNRESPONSIVE);
                        self.change(|state| state.told = Some(told));
                    }
                    continue;
                }
            }
            if let Ok(health) = client.health().await {
                let reason = if health.state == "working" { "Running" } else { "Idle" };
                if report(context, run, 0, ready(ConditionStatus::True, reason, String::new())).await {
                    self.change(|state| state.told = Some(false));
                    continue;
                }
            }
            sleep(backoff.pause()).await;
        }
    }
}

fn ready(status: ConditionStatus, reason: &str, message: String) -> Fact {
    Fact::Observed { condition_type: ConditionType::Ready, status, reason: reason.to_owned(), message }
}

/// One attempt; the next round is another.
async fn report(context: &Context, run: &RunRef, attempt: i32, fact: Fact) -> bool {
    let taken = timeout(REPORT, context.facts.report(&run.session_id, run.run, attempt, fact)).await;
    matches!(taken, Ok(Ok(())))
}
