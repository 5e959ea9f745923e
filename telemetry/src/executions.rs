//! Spans of executions and their activities, from their histories.

use std::collections::HashMap;

use ambient_persistence::TracedExecution;
use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use crate::{
    ids::{Context, span_of},
    origin::execution_span,
    span::{Draft, SpanKind},
};

/// Most events of a history that are looked at.
pub(crate) const MAX_HISTORY: i64 = 5_000;
/// Most activities of an execution that get spans.
const MAX_ACTIVITIES: usize = 1_000;

/// The engine's executions, whichever engine it is.
#[async_trait]
pub trait ExecutionHistories: Send + Sync {
    /// An execution's newest run; none if the engine does not know it (any more).
    ///
    /// # Errors
    /// In words, when the engine cannot be asked.
    async fn execution(&self, workflow_id: &str) -> Result<Option<WorkflowExecution>, String>;
    /// Events of its newest run, at most `limit`.
    ///
    /// # Errors
    /// In words, when the engine cannot be asked.
    async fn history(&self, workflow_id: &str, limit: i64) -> Result<Vec<HistoryEvent>, String>;
}

/// What a history says of an activity.
struct Activity {
    name: String,
    scheduled: DateTime<Utc>,
    attempt: i64,
    identity: i64,
}

/// Spans of an execution that is closed. `context` is that of the operation that started it.
pub(crate) fn spans(
    started: &TracedExecution,
    execution: &WorkflowExecution,
    history: &[HistoryEvent],
    context: Context,
) -> Vec<Span> {
    let id = execution_span(&started.workflow_id);
    let begun = execution.started_at.unwrap_or(started.created_at);
    let over = execution.closed_at.unwrap_or(begun);
    let name = format!("RunWorkflow:{}", execution.workflow);
    let draft = Draft::new(context, id, &name, SpanKind::Internal, (begun, over))
        .word("temporal.workflow.id", &started.workflow_id)
        .word("temporal.workflow.run_id", &execution.run_id)
        .word("temporal.workflow.type", &execution.workflow)
        .word("temporal.workflow.status", &execution.status)
        .word("ambient.entity.id", &started.entity_id)
        .number("ambient.history.length", execution.history_length);
    // Canceled is what a stop does to a start that is no longer wanted.
    let is_failure = matches!(execution.status.as_str(), "Failed" | "TimedOut" | "Terminated");
    let message = if is_failure { failure(history.last().map(|last| &last.attributes)) } else { String::new() };
    let root = if is_failure { draft.failed(&execution.status, &message) } else { draft };
    let mut spans = vec![root.done()];
    spans.extend(activities(&execution.run_id, history, context.below(id)));
    spans
}

fn activities(run_id: &str, history: &[HistoryEvent], context: Context) -> Vec<Span> {
    let mut open: HashMap<i64, Activity> = HashMap::new();
    let mut spans = Vec::new();
    for event in history {
        let Some(at) = event.at else { continue };
        let attributes = &event.attributes;
        if event.event_type == "ActivityTaskScheduled" {
            let name = attributes.pointer("/activity_type/name").and_then(Value::as_str).unwrap_or("unknown");
            let activity = Activity { name: name.to_owned(), scheduled: at, attempt: 1, identity: event.event_id };
            open.insert(event.event_id, activity);
            continue;
        }
        let Some(scheduled) = attributes.get("scheduled_event_id").and_then(number) else { continue };
        if event.event_type == "ActivityTaskStarted" {
            if let Some(activity) = open.get_mut(&scheduled) {
                activity.attempt = attributes.get("attempt").and_then(number).unwrap_or(1);
            }
            continue;
        }
        let end = match event.event_type.as_str() {
            "ActivityTaskCompleted" => None,
            "ActivityTaskFailed" => Some("Failed"),
            "ActivityTaskTimedOut" => Some("TimedOut"),
            "ActivityTaskCanceled" => Some("Canceled"),
            _ => continue,
        };
        let Some(activity) = open.remove(&scheduled) else { continue };
        if spans.len() < MAX_ACTIVITIES {
            spans.push(activity.span(run_id, at, end, &failure(Some(attributes)), context));
        }
    }
    spans
}

impl Activity {
    fn span(&self, run_id: &str, over: DateTime<Utc>, end: Option<&str>, message: &str, context: Context) -> Span {
        let id = span_of("activity", &[run_id, &self.identity.to_string()]);
        let name = format!("RunActivity:{}", self.name);
        let draft = Draft::new(context, id, &name, SpanKind::Internal, (self.scheduled, over))
            .word("temporal.activity.type", &self.name)
            .number("temporal.activity.attempt", self.attempt);
        match end {
            None => draft.done(),
            // Asked for, and no failure.
            Some(end @ "Canceled") => draft.word("temporal.activity.status", end).done(),
            Some(end) => draft.word("temporal.activity.status", end).failed(end, message).done(),
        }
    }
}

/// The type that a failure's application gave it: a word, such as a condition's reason. Its message may repeat what an agent or an origin
/// said, so it is left out.
fn failure(attributes: Option<&Value>) -> String {
    let (mut failure, mut kind) = (attributes.and_then(|attributes| attributes.get("failure")), "");
    while let Some(current) = failure {
        // The innermost cause is the informative one.
        if let Some(of_application) = current.pointer("/application_failure_info/type").and_then(Value::as_str) {
            kind = of_application;
        }
        failure = current.get("cause");
    }
    kind.to_owned()
}

/// Temporal's JSON writes numbers of 64 bits as texts.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(event_id: i64, event_type: &str, second: i64, attributes: Value) -> HistoryEvent {
        let at = DateTime::from_timestamp(second, 0);
        HistoryEvent { event_id, event_type: event_type.to_owned(), at, attributes }
    }

    #[test]
    fn a_history_becomes_an_execution_with_its_activities() {
        let history = [
            event(1, "WorkflowExecutionStarted", 10, json!({})),
            event(5, "ActivityTaskScheduled", 11, json!({"activity_type": {"name": "launch"}})),
            event(6, "ActivityTaskScheduled", 12, json!({"activity_type": {"name": "clone"}})),
            event(7, "ActivityTaskStarted", 13, json!({"scheduled_event_id": "5", "attempt": 3})),
            event(8, "ActivityTaskCompleted", 14, json!({"scheduled_event_id": "5"})),
            event(
                9,
                "ActivityTaskFailed",
                15,
                json!({"scheduled_event_id": 6, "failure": {"message": "secret words", "cause":
                {"message": "secret words", "application_failure_info": {"type": "RepoCloneFailed"}}}}),
            ),
            event(10, "WorkflowExecutionFailed", 16, json!({"failure": {"message": "secret words"}})),
        ];
        let started = TracedExecution {
            workflow_id: "session-start/s/1.1".to_owned(),
            operation_id: "o".to_owned(),
            entity_id: "s".to_owned(),
            created_at: DateTime::UNIX_EPOCH,
        };
        let execution: WorkflowExecution = serde_json::from_value(json!({
            "kind": "WorkflowExecution", "id": "session-start/s/1.1", "href": "", "run_id": "r", "workflow": "session-start",
            "status": "Failed", "started_at": "1970-01-01T00:00:10Z", "closed_at": "1970-01-01T00:00:16Z", "history_length": 10
        }))
        .unwrap();
        let context = Context { trace: [7; 16], parent: Some([1; 8]), sampled: true };
        let spans = spans(&started, &execution, &history, context);
        let told: Vec<(&str, u64)> =
            spans.iter().map(|span| (&*span.name, span.end_time_unix_nano / 1_000_000_000)).collect();
        assert_eq!(told, [("RunWorkflow:session-start", 16), ("RunActivity:launch", 14), ("RunActivity:clone", 15)]);
        assert_eq!(spans[0].parent_span_id, [1; 8]);
        assert!(spans[1..].iter().all(|span| span.parent_span_id == spans[0].span_id));
        assert!(spans.iter().map(|span| span.status.is_some()).eq([true, false, true]));
        let failed = spans[2].status.as_ref().map(|status| status.message.as_str());
        assert_eq!(failed, Some("RepoCloneFailed"));
        assert!(!format!("{spans:?}").contains("secret"), "{spans:#?}");
    }
}
