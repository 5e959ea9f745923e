//! Writing activities: new, ended, retried, asked to cancel.

use uuid::Uuid;

use super::statement::{OF_CHANGED, Statement, column};
use crate::model::{Activity, ActivityKey, ActivityRetry, Transition};

pub(super) fn write(s: &mut Statement, open: &[&Transition]) {
    let new: Vec<&Activity> = open.iter().flat_map(|t| &t.new_activities).collect();
    if !new.is_empty() {
        insert(s, &new);
    }
    let ended: Vec<_> = open.iter().flat_map(|t| t.ended_activities.iter().map(|key| (t.run.run_id, *key))).collect();
    if !ended.is_empty() {
        s.keys("activities_end");
        attempts(s, &ended);
        s.keys_end("run_id, id, attempt, state");
        s.keyed(
            "activities_end",
            "delete from engine.activities a using activities_end_keys k where a.run_id = k.run_id \
             and a.scheduled_event_id = k.id and a.attempt = k.attempt and a.state = k.state",
        );
    }
    let retried: Vec<_> = open.iter().flat_map(|t| t.retried_activities.iter().map(move |r| (*t, r))).collect();
    if !retried.is_empty() {
        retry(s, &retried);
    }
    let cancelled: Vec<_> = open
        .iter()
        .flat_map(|t| t.cancelled_activities.iter().map(|(id, event)| (t.run.run_id, *id, *event)))
        .collect();
    if !cancelled.is_empty() {
        s.keys("activities_cancel");
        column!(s, cancelled, (run, ..) => *run, "uuid");
        column!(s, cancelled, (_, id, _) => *id, "bigint");
        column!(s, cancelled, (.., event) => *event, "bigint");
        s.keys_end("run_id, id, event");
        s.keyed(
            "activities_cancel",
            "update engine.activities a set cancel_requested_id = k.event from activities_cancel_keys k \
             where a.run_id = k.run_id and a.scheduled_event_id = k.id and a.state = 1",
        );
    }
}

/// The attempts as they were when the decision was made.
fn attempts(s: &mut Statement, keys: &[(Uuid, ActivityKey)]) {
    column!(s, keys, (run, _) => *run, "uuid");
    column!(s, keys, (_, key) => key.scheduled_event_id, "bigint");
    column!(s, keys, (_, key) => key.attempt, "int");
    column!(s, keys, (_, key) => key.state, "smallint");
}

fn insert(s: &mut Statement, rows: &[&Activity]) {
    const COLUMNS: &str = "run_id, scheduled_event_id, activity_id, activity_type, task_queue, workflow_id, \
         workflow_type, state, attributes, start_to_close_ms, heartbeat_ms, scheduled_at, visible_at, start_by, \
         expires_at, started_at, identity, process, cancel_requested_id, due_at";
    s.section("activities_new", "insert into engine.activities (").text(COLUMNS).text(") select k.* from ").rows();
    column!(s, rows, r => r.run_id, "uuid");
    column!(s, rows, r => r.scheduled_event_id, "bigint");
    column!(s, rows, r => r.activity_id.clone(), "text");
    column!(s, rows, r => r.activity_type.clone(), "text");
    column!(s, rows, r => r.task_queue.clone(), "text");
    column!(s, rows, r => r.workflow_id.clone(), "text");
    column!(s, rows, r => r.workflow_type.clone(), "text");
    column!(s, rows, r => r.state, "smallint");
    column!(s, rows, r => r.attributes.clone(), "bytea");
    column!(s, rows, r => r.start_to_close_ms, "bigint");
    column!(s, rows, r => r.heartbeat_ms, "bigint");
    column!(s, rows, r => r.scheduled_at, "timestamptz");
    column!(s, rows, r => r.visible_at, "timestamptz");
    column!(s, rows, r => r.start_by, "timestamptz");
    column!(s, rows, r => r.expires_at, "timestamptz");
    column!(s, rows, r => r.started_at, "timestamptz");
    column!(s, rows, r => r.identity.clone(), "text");
    column!(s, rows, r => r.process, "uuid");
    column!(s, rows, r => r.cancel_requested_id, "bigint");
    column!(s, rows, r => r.due_at, "timestamptz");
    s.rows_end(COLUMNS).end(OF_CHANGED);
}

fn retry(s: &mut Statement, rows: &[(&Transition, &ActivityRetry)]) {
    let keys: Vec<_> = rows.iter().map(|(t, r)| (t.run.run_id, r.key)).collect();
    s.keys("activities_retry");
    attempts(s, &keys);
    column!(s, rows, (t, _) => t.now, "timestamptz");
    column!(s, rows, (_, r) => r.visible_at, "timestamptz");
    column!(s, rows, (_, r) => r.start_by, "timestamptz");
    column!(s, rows, (_, r) => r.due_at, "timestamptz");
    column!(s, rows, (_, r) => r.last_failure.clone(), "bytea");
    column!(s, rows, (_, r) => r.heartbeat_details.clone(), "bytea");
    s.keys_end("run_id, id, attempt, state, ended_at, visible_at, start_by, due_at, failure, details");
    s.keyed(
        "activities_retry",
        "update engine.activities a set state = 0, attempt = a.attempt + 1, visible_at = k.visible_at, \
         start_by = k.start_by, due_at = k.due_at, last_failure = k.failure, \
         heartbeat_details = coalesce(k.details, a.heartbeat_details), ended_at = k.ended_at, started_at = null, \
         heartbeat_at = null, process = null from activities_retry_keys k where a.run_id = k.run_id \
         and a.scheduled_event_id = k.id and a.attempt = k.attempt and a.state = k.state",
    );
}
