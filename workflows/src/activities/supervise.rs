//! The clocks of a run.

use ambient_domain::{
    WorkflowInput,
    session::{Command, Fact, Lifecycle, Run, Session, StopReason},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::services::{Services, StepError};

/// A run must be Running this long after it was accepted.
const START_DEADLINE: TimeDelta = TimeDelta::minutes(10);
/// Longest wait between two checks.
const LONGEST_WAIT: TimeDelta = TimeDelta::hours(1);

/// What looking at the session showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The run is ending or over.
    pub over: bool,
    /// A generation to put into effect.
    pub reconcile: Option<i64>,
    /// Milliseconds until a clock runs out.
    pub wait_ms: u64,
}

const OVER: Look = Look { over: true, reconcile: None, wait_ms: 0 };

/// What a clock that has run out does.
enum Due {
    Fatal(&'static str, String),
    Inactive(i64),
}

pub(super) async fn look(s: &Services, by: &str, i: &WorkflowInput) -> Result<Look, StepError> {
    let session = match s.session(&i.session_id).await {
        Ok(session) if session.deleted_at.is_none() => session,
        Ok(_) | Err(StepError::Superseded) => return Ok(OVER),
        Err(error) => return Err(error),
    };
    let (run, running) = match &session.lifecycle {
        Lifecycle::Pending { run } | Lifecycle::Creating { run } if run.number == i.run => (run, false),
        Lifecycle::Running { run } if run.number == i.run => (run, true),
        _ => return Ok(OVER),
    };
    let now = s.clock.now();
    let clocks = clocks(s, &session, run, running).await?;
    if let Some((_, due)) = clocks.iter().find(|(at, _)| *at <= now) {
        act(s, by, i, due).await?;
    }
    let next = clocks.iter().map(|(at, _)| *at).filter(|at| *at > now).min();
    let wait = next.map_or(LONGEST_WAIT, |at| (at - now).min(LONGEST_WAIT)) + TimeDelta::milliseconds(20);
    let acted = clocks.iter().any(|(at, _)| *at <= now);
    let wait = if acted { TimeDelta::seconds(5).min(wait) } else { wait };
    let reconcile = (running && session.generation != session.observed_generation).then_some(session.generation);
    Ok(Look { over: false, reconcile, wait_ms: wait.num_milliseconds().unsigned_abs() })
}

async fn clocks(
    s: &Services,
    session: &Session,
    run: &Run,
    running: bool,
) -> Result<Vec<(DateTime<Utc>, Due)>, StepError> {
    let mut clocks = Vec::new();
    if run.running_at.is_none() {
        let message = "not Running ten minutes after the start".to_owned();
        clocks.push((run.started_at + START_DEADLINE, Due::Fatal("StartDeadlineExceeded", message)));
    }
    if let Some(seconds) = session.spec.timeout {
        let message = format!("not finished {seconds} seconds after the start");
        clocks.push((run.started_at + TimeDelta::seconds(seconds), Due::Fatal("Timeout", message)));
    }
    if running && session.spec.inactivity_timeout > 0 {
        let (last, seq) = s.db.last_activity(&session.id).await?;
        let since = last.unwrap_or(run.started_at).max(run.running_at.unwrap_or(run.started_at));
        let at = since + TimeDelta::seconds(session.spec.inactivity_timeout);
        clocks.push((at, Due::Inactive(seq)));
    }
    Ok(clocks)
}

async fn act(s: &Services, by: &str, i: &WorkflowInput, due: &Due) -> Result<(), StepError> {
    match due {
        Due::Fatal(reason, message) => {
            let fact = Fact::Fatal { reason: (*reason).to_owned(), message: message.clone() };
            s.report(by, i, fact).await?;
        }
        Due::Inactive(seen_seq) => {
            let reason = StopReason::InactivityTimeout;
            let command = Command::Stop { reason, seen_seq: Some(*seen_seq), run: Some(i.run), force: false };
            // Refused if there has been activity since: the next check sees the new clock.
            if let Err(error) = s.command::<Session>(by, &i.session_id, command).await {
                tracing::info!(session = i.session_id, %error, "a clock's stop was not accepted");
            }
        }
    }
    Ok(())
}
