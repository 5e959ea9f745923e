//! Writing a transition's activities.

use super::commit::Statement;
use crate::{
    history::{ActivityKey, Transition},
    store::Activity,
};

pub(super) fn write(s: &mut Statement, t: &Transition) {
    if !t.new_activities.is_empty() {
        insert(s, &t.new_activities);
    }
    if !t.ended_activities.is_empty() {
        s.sql.push(", activities_end as (delete from engine.activities a using run, ");
        keys(s, &t.ended_activities);
        s.sql.push(" returning 1)");
        s.expect("activities_end", t.ended_activities.len());
    }
    if !t.retried_activities.is_empty() {
        retry(s, t);
    }
    if !t.cancelled_activities.is_empty() {
        let (ids, events): (Vec<i64>, Vec<i64>) = t.cancelled_activities.iter().copied().unzip();
        s.sql.push(
            ", activities_cancel as (update engine.activities a set cancel_requested_id = k.event from run, unnest(",
        );
        s.sql.push_bind(ids).push("::bigint[], ").push_bind(events).push("::bigint[]) k(id, event)");
        s.sql.push(" where a.run_id = run.run_id and a.scheduled_event_id = k.id and a.state = 1 returning 1)");
        s.expect("activities_cancel", t.cancelled_activities.len());
    }
}

/// `unnest(...) k(id, attempt, state) where ...`: the attempts as they were when the decision was made.
fn keys(s: &mut Statement, keys: &[ActivityKey]) {
    s.sql.push("unnest(").push_bind(keys.iter().map(|k| k.scheduled_event_id).collect::<Vec<_>>());
    s.sql.push("::bigint[], ").push_bind(keys.iter().map(|k| k.attempt).collect::<Vec<_>>());
    s.sql.push("::int[], ").push_bind(keys.iter().map(|k| k.state).collect::<Vec<_>>());
    s.sql.push("::smallint[]) k(id, attempt, state) where a.run_id = run.run_id and a.scheduled_event_id = k.id");
    s.sql.push(" and a.attempt = k.attempt and a.state = k.state");
}

fn insert(s: &mut Statement, rows: &[Activity]) {
    macro_rules! column {
        ($row:ident => $value:expr, $cast:literal) => {
            s.sql.push_bind(rows.iter().map(|$row| $value).collect::<Vec<_>>()).push(concat!("::", $cast, "[]"))
        };
    }
    s.sql.push(", activities_new as (insert into engine.activities (run_id, scheduled_event_id, activity_id, ");
    s.sql.push("activity_type, task_queue, workflow_id, workflow_type, state, attributes, start_to_close_ms, ");
    s.sql.push("heartbeat_ms, scheduled_at, visible_at, start_by, expires_at, started_at, identity, process, ");
    s.sql.push("cancel_requested_id, due_at) select run.run_id, k.* from run, unnest(");
    column!(r => r.scheduled_event_id, "bigint").push(", ");
    column!(r => r.activity_id.clone(), "text").push(", ");
    column!(r => r.activity_type.clone(), "text").push(", ");
    column!(r => r.task_queue.clone(), "text").push(", ");
    column!(r => r.workflow_id.clone(), "text").push(", ");
    column!(r => r.workflow_type.clone(), "text").push(", ");
    column!(r => r.state, "smallint").push(", ");
    column!(r => r.attributes.clone(), "bytea").push(", ");
    column!(r => r.start_to_close_ms, "bigint").push(", ");
    column!(r => r.heartbeat_ms, "bigint").push(", ");
    column!(r => r.scheduled_at, "timestamptz").push(", ");
    column!(r => r.visible_at, "timestamptz").push(", ");
    column!(r => r.start_by, "timestamptz").push(", ");
    column!(r => r.expires_at, "timestamptz").push(", ");
    column!(r => r.started_at, "timestamptz").push(", ");
    column!(r => r.identity.clone(), "text").push(", ");
    column!(r => r.process, "uuid").push(", ");
    column!(r => r.cancel_requested_id, "bigint").push(", ");
    column!(r => r.due_at, "timestamptz").push(") k)");
}

fn retry(s: &mut Statement, t: &Transition) {
    let rows = &t.retried_activities;
    s.sql.push(
        ", activities_retry as (update engine.activities a set state = 0, attempt = a.attempt + 1, visible_at = ",
    );
    s.sql
        .push("n.visible_at, start_by = n.start_by, due_at = n.due_at, last_failure = n.failure, heartbeat_details = ");
    s.sql.push("coalesce(n.details, a.heartbeat_details), ended_at = ").push_bind(t.now);
    s.sql.push(", started_at = null, heartbeat_at = null, process = null from run, unnest(");
    s.sql.push_bind(rows.iter().map(|r| r.key.scheduled_event_id).collect::<Vec<_>>()).push("::bigint[], ");
    s.sql.push_bind(rows.iter().map(|r| r.visible_at).collect::<Vec<_>>()).push("::timestamptz[], ");
    s.sql.push_bind(rows.iter().map(|r| r.start_by).collect::<Vec<_>>()).push("::timestamptz[], ");
    s.sql.push_bind(rows.iter().map(|r| r.due_at).collect::<Vec<_>>()).push("::timestamptz[], ");
    s.sql.push_bind(rows.iter().map(|r| r.last_failure.clone()).collect::<Vec<_>>()).push("::bytea[], ");
    s.sql.push_bind(rows.iter().map(|r| r.heartbeat_details.clone()).collect::<Vec<_>>());
    s.sql.push("::bytea[]) n(id, visible_at, start_by, due_at, failure, details), ");
    keys(s, &rows.iter().map(|r| r.key).collect::<Vec<_>>());
    s.sql.push(" and n.id = k.id returning 1)");
    s.expect("activities_retry", rows.len());
}
