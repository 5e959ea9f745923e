//! Which path through its workflow a history took: the branch that a file of the corpus represents.
//!
//! `outcome-at-step+feature+feature`: how it ended, at which step if that is informative, and what it went through. Two
//! histories of one branch differ at most in how often they looped.

use std::collections::BTreeSet;

use ambient_workflows::replay::RecordedHistory;
use temporalio_common::protos::temporal::api::{
    enums::v1::EventType,
    history::v1::{HistoryEvent, history_event::Attributes},
};

/// Activities beside the tables of steps.
const BESIDE: [&str; 3] = ["place-session", "report-failure", "supervise"];

/// The branch of a history.
pub(crate) fn branch_of(recorded: &RecordedHistory) -> String {
    let events = &recorded.history.events;
    let scheduled: Vec<(i64, &str)> = events.iter().filter_map(|e| Some((e.event_id, activity(e)?))).collect();
    let name = |id: i64| scheduled.iter().find(|(scheduled, _)| *scheduled == id).map_or("", |(_, name)| *name);
    let failed: Vec<&str> = events.iter().filter_map(|e| failed_activity(e).map(name)).collect();
    let superseded = events.iter().filter_map(superseded_activity).map(name).next_back();
    let last = scheduled.iter().map(|(_, name)| *name).rfind(|name| !BESIDE.contains(name));
    let has = |event_type: EventType| events.iter().any(|e| e.event_type() == event_type);
    let reported = scheduled.iter().position(|(_, name)| *name == "report-failure");

    let mut features = BTreeSet::new();
    let mut feature = |there: bool, name: &'static str| {
        if there {
            features.insert(name);
        }
    };
    let first_command = events.iter().skip_while(|e| e.event_type() != EventType::WorkflowTaskCompleted).nth(1);
    feature(
        recorded.workflow == "session-start"
            && first_command.is_some_and(|e| e.event_type() == EventType::TimerStarted),
        "after-backoff",
    );
    feature(scheduled.iter().any(|(_, name)| *name == "report-stop-incomplete"), "told");
    feature(has(EventType::ChildWorkflowExecutionCompleted), "reconciled");
    feature(has(EventType::ChildWorkflowExecutionCanceled), "reconciliation-canceled");
    feature(has(EventType::StartChildWorkflowExecutionFailed), "reconciled-before");
    feature(has(EventType::WorkflowExecutionContinuedAsNew), "at-its-longest");
    feature(has(EventType::ActivityTaskTimedOut), "step-timed-out");
    let repeats = ["session-supervise", "token-refresh", "sweep"].contains(&recorded.workflow.as_str());
    feature(repeats && has(EventType::TimerFired), "clock");
    feature(recorded.workflow != "sweep" && recorded.status == "Canceled" && !failed.is_empty(), "step-failed");
    feature(events.first().is_some_and(began_woken), "woken-before");
    feature(repeats && has(EventType::TimerCanceled), "woken");
    feature(recorded.workflow == "sweep" && !failed.is_empty(), "through-failure");
    if let Some(reported) = reported {
        feature(reported + 1 < scheduled.len(), "undone");
        let undo_failed = scheduled[reported..].iter().any(|(_, name)| failed.contains(name));
        feature(undo_failed, "undo-failed");
        feature(superseded == Some("report-failure"), "report-superseded");
    }
    let step = |step: Option<&str>| step.map_or_else(String::new, |step| format!("-at-{step}"));
    let outcome = match recorded.status {
        // What goes round has no last step.
        _ if recorded.workflow == "session-supervise" => kebab(recorded.status),
        "Completed" => superseded.map_or_else(|| "completed".to_owned(), |at| format!("superseded-at-{at}")),
        "Failed" => format!("failed{}", step(failed.first().copied())),
        "Canceled" | "Terminated" if !repeats => format!("{}{}", kebab(recorded.status), step(last)),
        other => kebab(other),
    };
    features.into_iter().fold(outcome, |branch, feature| format!("{branch}+{feature}"))
}

/// `ContinuedAsNew` -> `continued-as-new`.
fn kebab(status: &str) -> String {
    let spaced = status.char_indices().map(|(at, c)| match c.is_ascii_uppercase() && at > 0 {
        true => format!("-{}", c.to_ascii_lowercase()),
        false => c.to_ascii_lowercase().to_string(),
    });
    spaced.collect()
}

fn activity(event: &HistoryEvent) -> Option<&str> {
    match event.attributes.as_ref()? {
        Attributes::ActivityTaskScheduledEventAttributes(a) => Some(&a.activity_type.as_ref()?.name),
        _ => None,
    }
}

fn failed_activity(event: &HistoryEvent) -> Option<i64> {
    match event.attributes.as_ref()? {
        Attributes::ActivityTaskFailedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskTimedOutEventAttributes(a) => Some(a.scheduled_event_id),
        _ => None,
    }
}

/// Whether it takes a signal over from the run before.
fn began_woken(event: &HistoryEvent) -> bool {
    let Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) = &event.attributes else { return false };
    let input = a.input.iter().flat_map(|input| &input.payloads);
    input
        .flat_map(|payload| serde_json::from_slice(&payload.data))
        .any(|input: serde_json::Value| input["woken"] == true)
}

fn superseded_activity(event: &HistoryEvent) -> Option<i64> {
    let Attributes::ActivityTaskCompletedEventAttributes(a) = event.attributes.as_ref()? else { return None };
    let result = a.result.as_ref()?.payloads.first()?;
    (result.data == br#""superseded""#).then_some(a.scheduled_event_id)
}
