//! Compute's observations become facts. An end is reported until it has been accepted: an error on the way is not an answer.

use std::{collections::HashSet, time::Duration};

use ambient_compute::{Observation, RunnerState, SessionRef};
use ambient_domain::{WorkflowInput, session::Fact};
use ambient_live::DrainError;
use ambient_persistence::retry::Backoff;
use ambient_runner_protocol::{EXIT_FENCED, EXIT_USAGE};
use ambient_wire::runner_event::ENDED_BY_REQUEST;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    services::{Services, StepError},
    step::Progress,
};

const BY: &str = "compute-observer";
/// Ends being reported at once; others wait for their turn.
const AT_ONCE: usize = 8;
/// Timeout of a single attempt: the rest of a log is stored within it.
const TRY: Duration = Duration::from_secs(60);
/// Between two attempts; doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// From this attempt on (after some 40 seconds) an end is reported even though the log's file cannot be read.
const WITHOUT_LOG: u32 = 12;

type Attempt = (SessionRef, i64, i32);

/// Follows compute forever. What is being reported is bounded by this host's attempts, each once.
pub(crate) async fn run(services: Services) {
    let turns = Semaphore::new(AT_ONCE);
    let (mut telling, mut told) = (FuturesUnordered::new(), HashSet::new());
    loop {
        let mut observations = services.compute.observe();
        loop {
            tokio::select! {
                seen = observations.next() => {
                    let Some(seen) = seen else { break };
                    let ended = !matches!(seen.state, RunnerState::Absent | RunnerState::Running { .. });
                    if ended && told.insert(attempt_of(&seen)) {
                        telling.push(tell(&services, &turns, seen));
                    }
                }
                Some(attempt) = telling.next() => drop(told.remove(&attempt)),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn attempt_of(seen: &Observation) -> Attempt {
    (seen.session.clone(), seen.run, seen.attempt)
}

/// Reports the end of a runner until it has been accepted.
async fn tell(services: &Services, turns: &Semaphore, seen: Observation) -> Attempt {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    for tries in 1_u32.. {
        let rest = if tries < WITHOUT_LOG { RestOfLog::Needed } else { RestOfLog::Wanted };
        let told = {
            let _turn = turns.acquire().await;
            timeout(TRY, report(services, &seen.session, (seen.run, seen.attempt), &seen.state, rest)).await
        };
        let reason = match told {
            Ok(Ok(_)) => break,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not reported within {TRY:?}"),
        };
        let session = &seen.session.session_id;
        tracing::warn!(session, run = seen.run, reason, "the end of a runner was not accepted; reporting it again");
        tokio::time::sleep(backoff.pause()).await;
    }
    attempt_of(&seen)
}

/// What an unreadable log means for an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RestOfLog {
    /// It waits.
    Needed,
    /// It is reported all the same.
    Wanted,
}

/// Reports the end of a runner, after what it has recorded: an exit never overtakes the log.
///
/// # Errors
/// When it was not accepted; it must be reported again.
pub(crate) async fn report_end(
    s: &Services,
    session: &SessionRef,
    run: i64,
    attempt: i32,
    state: &RunnerState,
) -> Result<Progress, StepError> {
    report(s, session, (run, attempt), state, RestOfLog::Needed).await
}

async fn report(
    s: &Services,
    session: &SessionRef,
    (run, attempt): (i64, i32),
    state: &RunnerState,
    rest: RestOfLog,
) -> Result<Progress, StepError> {
    let input =
        WorkflowInput { project_id: session.project_id.clone(), session_id: session.session_id.clone(), run, attempt };
    // An observation of a run that is over is dropped before it costs a drain.
    match s.active_session(&input).await {
        Ok(_) => {}
        Err(StepError::Superseded) => return Ok(Progress::Superseded),
        Err(error) => return Err(error),
    }
    if let Some(path) = s.compute.event_log(session, run) {
        let drained = s.readers.drain_from_file(&input.project_id, &input.session_id, run, &path);
        match drained.await {
            Ok(_) => {}
            Err(error @ DrainError::Io { .. }) if rest == RestOfLog::Wanted => {
                tracing::error!(session = input.session_id, %error, "the rest of a log is lost");
            }
            Err(error) => return Err(StepError::retry("LogNotDrained", &error)),
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
