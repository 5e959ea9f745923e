//! A history as shown to people: what each event is about.

use std::collections::BTreeMap;

use ambient_wire::execution::HistoryEvent;
use chrono::SecondsFormat;
use serde_json::Value;

use crate::output::table::{Table, cut};

/// Longest text of an event, characters.
const MAX_WHAT: usize = 100;

pub(super) fn table(events: &[HistoryEvent]) -> Table {
    let mut table = Table::new(["EVENT", "TIME", "TYPE", "WHAT"]);
    let mut scheduled = BTreeMap::new();
    for event in events {
        let what = what(&event.attributes, &scheduled);
        if event.event_type.ends_with("Scheduled") {
            scheduled.insert(event.event_id, what.clone());
        }
        let time = event.at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default();
        table.row([event.event_id.to_string(), time, event.event_type.clone(), cut(&what, MAX_WHAT)]);
    }
    table
}

/// What an event is about: a name from its attributes or from the event they refer to, and why it failed.
fn what(attributes: &Value, scheduled: &BTreeMap<i64, String>) -> String {
    let names = ["activity_type", "workflow_type", "signal_name", "marker_name"];
    let named = names.into_iter().find_map(|name| text(&attributes[name]));
    let refers = || scheduled.get(&attributes["scheduled_event_id"].as_i64()?).cloned();
    let timer = || Some(format!("timer {}", text(&attributes["timer_id"])?));
    let what = named.or_else(refers).or_else(timer);
    let more = failure(&attributes["failure"])
        .or_else(|| text(&attributes["reason"]))
        .or_else(|| text(&attributes["start_to_fire_timeout"]).map(|span| seconds(&span)));
    [what, more].into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// The innermost cause, which is the informative one.
fn failure(failure: &Value) -> Option<String> {
    let mut failure = failure;
    while failure["cause"]["message"].is_string() {
        failure = &failure["cause"];
    }
    text(&failure["message"])
}

fn text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["name"].as_str()).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// `300.000000000s` as `300 s`.
fn seconds(span: &str) -> String {
    let number = span.trim_end_matches('s');
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} s")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_history_says_what_each_event_is_about() {
        let event = |(event_id, (event_type, attributes)): (i64, (&str, Value))| HistoryEvent {
            event_id,
            event_type: event_type.to_owned(),
            at: DateTime::from_timestamp_millis(event_id * 1_500),
            attributes,
        };
        let cause = json!({"message": "Activity task failed", "cause": {"message": "disk\u{1b} full"}});
        let told = [
            ("WorkflowExecutionStarted", json!({"workflow_type": {"name": "session-stop"}})),
            ("WorkflowTaskScheduled", json!({"task_queue": {"name": "ambient"}})),
            ("WorkflowTaskStarted", json!({"scheduled_event_id": 2})),
            ("ActivityTaskScheduled", json!({"activity_type": {"name": "raise-fence"}})),
            ("ActivityTaskStarted", json!({"scheduled_event_id": 4})),
            ("ActivityTaskFailed", json!({"scheduled_event_id": 4, "failure": cause})),
            ("TimerStarted", json!({"timer_id": "1", "start_to_fire_timeout": "300.000000000s"})),
            ("WorkflowExecutionSignaled", json!({"signal_name": "wake"})),
            ("WorkflowExecutionFailed", json!({"failure": cause})),
            ("WorkflowExecutionTerminated", json!({"reason": "stuck", "identity": "x"})),
        ];
        let events: Vec<_> = (1..).zip(told).map(event).collect();
        insta::assert_snapshot!(table(&events).render(""), @r"
        EVENT   TIME                       TYPE                          WHAT
        1       1970-01-01T00:00:01.500Z   WorkflowExecutionStarted      session-stop
        2       1970-01-01T00:00:03.000Z   WorkflowTaskScheduled         -
        3       1970-01-01T00:00:04.500Z   WorkflowTaskStarted           -
        4       1970-01-01T00:00:06.000Z   ActivityTaskScheduled         raise-fence
        5       1970-01-01T00:00:07.500Z   ActivityTaskStarted           raise-fence
        6       1970-01-01T00:00:09.000Z   ActivityTaskFailed            raise-fence: disk\u{1b} full
        7       1970-01-01T00:00:10.500Z   TimerStarted                  timer 1: 300 s
        8       1970-01-01T00:00:12.000Z   WorkflowExecutionSignaled     wake
        9       1970-01-01T00:00:13.500Z   WorkflowExecutionFailed       disk\u{1b} full
        10      1970-01-01T00:00:15.000Z   WorkflowExecutionTerminated   stuck
        ");
    }
}
