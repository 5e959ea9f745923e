//! What runners have recorded, as live logs have it.

use ambient_wire::runner_event::{RunnerEvent, TurnOutcome, TurnResult};
use serde_json::Value;

fn told(event: &Value) -> Option<RunnerEvent> {
    RunnerEvent::read(&event["data"])
}

/// What a tool has printed, if that is what the event says.
pub(crate) fn output(event: &Value) -> Option<String> {
    match told(event) {
        Some(RunnerEvent::ToolOutput { text, .. }) => Some(text),
        _ => None,
    }
}

/// Turns and their messages, as they began.
pub(crate) fn begun(events: &[Value]) -> Vec<(String, String)> {
    let begun = |event: &Value| match told(event) {
        Some(RunnerEvent::TurnStarted { turn_id, message_id }) => Some((turn_id, message_id)),
        _ => None,
    };
    events.iter().filter_map(begun).collect()
}

/// How turns ended.
pub(crate) fn ended(events: &[Value]) -> Vec<TurnResult> {
    let ended = |event: &Value| match told(event) {
        Some(RunnerEvent::TurnEnded { result, .. }) => Some(result),
        _ => None,
    };
    events.iter().filter_map(ended).collect()
}

/// Turns that began, and those that were finished.
pub(crate) fn begun_and_finished(events: &[Value]) -> (usize, usize) {
    let finished = ended(events).into_iter().filter(|result| result.outcome == TurnOutcome::Finished);
    (begun(events).len(), finished.count())
}

/// Whether a turn ended because its runner was lost.
pub(crate) fn ended_lost(event: &Value) -> bool {
    matches!(told(event), Some(RunnerEvent::TurnEnded { result, .. }) if result.code.as_deref() == Some("RunnerLost"))
}

/// Whether a runner has exited of its own accord.
pub(crate) fn exited(event: &Value) -> bool {
    matches!(told(event), Some(RunnerEvent::RunnerExited { .. }))
}
