//! What may differ between two engines' histories: this list, and nothing else.
//!
//! * Ids that an engine generates (runs, requests, namespaces) and ids that a workflow draws from its run's seed: each becomes
//!   `id-N`, by its first appearance in the case, so that references still have to agree.
//! * Timestamps, and the identity of workers; points for a reset by build id.
//! * The size of the history in bytes, and the queue of a workflow task (sticky or not).
//! * The server's version: what its API does not have yet is left out (the cause of an activity's failure).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use temporalio_common::protos::temporal::api::{
    command::v1::Command,
    history::v1::{HistoryEvent, history_event::Attributes},
};

/// Left out wherever they are.
const LEFT_OUT: &[&str] = &[
    "identity",
    "binary_checksum",
    "worker_version",
    "worker_deployment_name",
    "worker_deployment_version",
    "deployment_version",
    "deployment",
    "versioning_behavior",
    "metering_metadata",
    "history_size_bytes",
    "workflow_execution_expiration_time",
    "prev_auto_reset_points",
    // Of local activities, in their markers.
    "complete_time",
    "original_schedule_time",
    // How often the worker was woken before one: its own business.
    "activation_index",
    // Ids of requests and namespaces: an engine may have none.
    "request_id",
    "namespace_id",
    "parent_workflow_namespace_id",
];

/// Maps ids to their names, through all of a case.
#[derive(Default)]
pub struct Ids(BTreeMap<String, usize>);

impl Ids {
    /// Gives a run its name, before it is met.
    pub fn name(&mut self, run_id: &str) {
        self.named(run_id);
    }

    fn named(&mut self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = find_uuid(rest) {
            let next = self.0.len() + 1;
            let number = *self.0.entry(rest[at..at + 36].to_owned()).or_insert(next);
            named.push_str(&rest[..at]);
            named.push_str(&format!("id-{number}"));
            rest = &rest[at + 36..];
        }
        named + rest
    }
}

fn find_uuid(text: &str) -> Option<usize> {
    let is_uuid = |at: &usize| text.get(*at..*at + 36).is_some_and(|part| uuid::Uuid::try_parse(part).is_ok());
    (0..text.len().saturating_sub(35)).find(is_uuid)
}

/// An event as it is compared.
pub fn event(event: &HistoryEvent, ids: &mut Ids) -> Value {
    let mut attributes = attributes_of(event.attributes.as_ref());
    if let (Value::Object(fields), Some(Attributes::WorkflowTaskScheduledEventAttributes(_))) =
        (&mut attributes, &event.attributes)
    {
        fields.remove("task_queue");
    }
    if let (Value::Object(fields), Some(Attributes::ActivityTaskFailedEventAttributes(_))) =
        (&mut attributes, &event.attributes)
    {
        fields.remove("cause");
    }
    let kind = event.event_type().as_str_name().trim_start_matches("EVENT_TYPE_").to_lowercase();
    json!({ "id": event.event_id, "event": kind, "attributes": cleaned(attributes, ids) })
}

/// A command as it is compared.
pub fn command(command: &Command, ids: &mut Ids) -> Value {
    let kind = command.command_type().as_str_name().trim_start_matches("COMMAND_TYPE_").to_lowercase();
    let attributes = serde_json::to_value(&command.attributes).unwrap_or_default();
    json!({ "command": kind, "attributes": cleaned(unwrapped(attributes), ids) })
}

fn attributes_of(attributes: Option<&Attributes>) -> Value {
    unwrapped(serde_json::to_value(attributes).unwrap_or_default())
}

/// The attributes themselves: their JSON names their type once more.
fn unwrapped(value: Value) -> Value {
    match value {
        Value::Object(of_type) if of_type.len() == 1 => {
            of_type.into_iter().next().map(|(_, inner)| inner).unwrap_or_default()
        }
        other => other,
    }
}

/// Any value, with ids named.
pub fn cleaned(value: Value, ids: &mut Ids) -> Value {
    match value {
        Value::Object(fields) => {
            let keep = |(key, _): &(String, Value)| !LEFT_OUT.contains(&key.as_str());
            let fields = fields.into_iter().filter(keep).map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    // A set, which the SDK writes in any order.
                    ("core_used_flags" | "lang_used_flags", Value::Array(mut flags)) => {
                        flags.sort_by_key(Value::as_u64);
                        Value::Array(flags)
                    }
                    // A payload is read, since there may be ids in it.
                    ("data", Value::String(data)) => cleaned(readable(data), ids),
                    (_, value) => cleaned(value, ids),
                };
                (key, value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(|item| cleaned(item, ids)).collect(),
        Value::String(text) => Value::String(without_numbers(&ids.named(&text))),
        other => other,
    }
}

/// Errors tell the ids of events in their text; what matters of those is compared in the events.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("event_id: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| told + "event_id: " + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// Base64 of JSON as that.
fn readable(data: String) -> Value {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(&data).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::String(data))
}

/// What can be compared when workflow tasks fall differently: events and commands by what they are about (an activity, a timer,
/// a child, a signal), without the ids of events. The SDK numbers activities and timers in the order in which a workflow comes to
/// them, which timing decides too, so here they are called by what was asked for.
pub fn chains(events: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut subjects: BTreeMap<i64, String> = BTreeMap::new();
    let mut chains: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in events {
        let kind = event["event"].as_str().unwrap_or_default();
        if kind.starts_with("workflow_task_") {
            continue;
        }
        let attributes = &event["attributes"];
        let names = ["activity_id", "timer_id", "workflow_id"];
        let own = names.iter().find_map(|name| Some(format!("{name} {}", attributes[*name].as_str()?)));
        let references = ["scheduled_event_id", "started_event_id", "initiated_event_id"];
        let origin = references.iter().find_map(|name| subjects.get(&attributes[*name].as_i64()?).cloned());
        let subject = origin.or(own).unwrap_or_else(|| "workflow".to_owned());
        subjects.insert(event["id"].as_i64().unwrap_or_default(), subject.clone());
        chains.entry(subject).or_default().push(without_ids(event.clone()));
    }
    let mut called: BTreeMap<String, Vec<Vec<Value>>> = BTreeMap::new();
    for (subject, chain) in chains {
        called.entry(asked_for(&chain).unwrap_or(subject)).or_default().push(chain);
    }
    let alike = called.into_iter().flat_map(|(name, mut chains)| {
        chains.sort_by_cached_key(|chain| Value::from(chain.clone()).to_string());
        chains.into_iter().enumerate().map(move |(at, chain)| (format!("{name}, number {}", at + 1), chain))
    });
    alike.collect()
}

/// A name for a chain whose subject has but a number.
fn asked_for(chain: &[Value]) -> Option<String> {
    let first = chain.first()?;
    let attributes = &first["attributes"];
    match first["event"].as_str()? {
        "timer_started" => Some(format!("timer {}", attributes["start_to_fire_timeout"])),
        "activity_task_scheduled" => Some(format!(
            "activity {} {}",
            attributes["activity_type"]["name"], attributes["input"]["payloads"][0]["data"]
        )),
        _ => None,
    }
}

fn without_ids(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let number = |key: &str| ["id", "activity_id", "timer_id"].contains(&key) || key.ends_with("event_id");
            let fields = fields.into_iter().filter(|(key, _)| !number(key));
            Value::Object(fields.map(|(key, value)| (key, without_ids(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(without_ids).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(id: u32, timer: &str, seconds: u32) -> Value {
        let attributes = json!({ "timer_id": timer, "start_to_fire_timeout": { "seconds": seconds }, "workflow_task_completed_event_id": 4 });
        json!({ "id": id, "event": "timer_started", "attributes": attributes })
    }

    fn ended(id: u32, event: &str, timer: &str, started: u32) -> Value {
        json!({ "id": id, "event": event, "attributes": { "timer_id": timer, "started_event_id": started } })
    }

    #[test]
    fn timers_are_compared_by_their_length_whichever_came_first() {
        let one = [
            started(5, "1", 2),
            started(6, "2", 120),
            ended(7, "timer_fired", "1", 5),
            ended(8, "timer_canceled", "2", 6),
        ];
        let two = [
            started(5, "1", 120),
            started(9, "2", 2),
            ended(12, "timer_fired", "2", 9),
            ended(13, "timer_canceled", "1", 5),
        ];
        assert_eq!(chains(&one), chains(&two));
        let names: Vec<String> = chains(&one).into_keys().collect();
        assert_eq!(names, [r#"timer {"seconds":120}, number 1"#, r#"timer {"seconds":2}, number 1"#]);
        let otherwise = [
            started(5, "1", 2),
            started(6, "2", 120),
            ended(7, "timer_fired", "2", 6),
            ended(8, "timer_canceled", "1", 5),
        ];
        assert_ne!(chains(&one), chains(&otherwise));
    }
}
