//! Compute's observations become facts. Level-triggered: what was dropped is seen again.

use std::time::Duration;

use ambient_compute::{RunnerState, SessionRef};
use ambient_domain::{WorkflowInput, session::Fact};
use ambient_wire::runner::{ENDED_BY_REQUEST, EXIT_FENCED, EXIT_USAGE};
use futures::StreamExt as _;

use crate::{
    services::{Services, StepError},
    step::Progress,
};

const BY: &str = "compute-observer";

/// Follows compute for ever.
pub(crate) async fn run(services: Services) {
    loop {
        let mut observations = services.compute.observe();
        while let Some(seen) = observations.next().await {
            let ended = !matches!(seen.state, RunnerState::Absent | RunnerState::Running { .. });
            if ended {
                let reported = report_end(&services, &seen.session, seen.run, seen.attempt, &seen.state).await;
                if let Err(error) = reported {
                    tracing::warn!(session = seen.session.session_id, %error, "an observation was not taken; it is seen again");
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Reports the end of a runner, after what it has recorded: an exit never overtakes the log.
pub(crate) async fn report_end(
    s: &Services,
    session: &SessionRef,
    run: i64,
    attempt: i32,
    state: &RunnerState,
) -> Result<Progress, StepError> {
    let input =
        WorkflowInput { project_id: session.project_id.clone(), session_id: session.session_id.clone(), run, attempt };
    // An observation of a run that is over is dropped before it costs a drain.
    if s.active_session(&input).await.is_err() {
        return Ok(Progress::Superseded);
    }
    if let Some(path) = s.compute.event_log(session, run) {
        let drained = s.readers.drain_from_file(&input.project_id, &input.session_id, run, &path);
        if let Err(error) = drained.await {
            tracing::info!(session = input.session_id, %error, "the log is still being read by its reader");
        }
    }
    let Some(fact) = fact_of(state) else { return Ok(Progress::Done) };
    s.report(BY, &input, fact).await
}

pub(crate) fn fact_of(state: &RunnerState) -> Option<Fact> {
    match state {
        RunnerState::Exited { code: EXIT_FENCED, reason } => Some(Fact::RunnerLost { reason: reason.clone() }),
        RunnerState::Exited { code: EXIT_USAGE, reason } => {
            Some(Fact::Fatal { reason: "RunnerExit".to_owned(), message: reason.clone() })
        }
        // Teardown, or an undone launch: its workflow reports what follows.
        RunnerState::Exited { reason, .. } if reason == ENDED_BY_REQUEST => None,
        RunnerState::Exited { code, reason } => Some(Fact::Exited { code: *code, reason: reason.clone() }),
        RunnerState::Lost { reason } => Some(Fact::RunnerLost { reason: reason.clone() }),
        RunnerState::Exhausted { shortage, message } => {
            Some(Fact::Fatal { reason: shortage.as_str().to_owned(), message: message.clone() })
        }
        RunnerState::Absent | RunnerState::Running { .. } => None,
    }
}
