//! The one place that changes runs and appends to their histories.
//!
//! A run's row is updated (or deleted, when it closes) where revision and last event id are still those the decision was
//! based on, and everything else depends on that row: see [`Statement`]. One statement writes any number of runs;
//! it returns which of them were changed.

use prost::Message;
use sqlx::{Connection, PgConnection, postgres::PgDatabaseError};
use temporalio_common::protos::temporal::api::enums::v1::WorkflowExecutionStatus;
use uuid::Uuid;

use super::{
    activities, parts, start,
    statement::{AND_CHANGED, OF_CHANGED, Statement, Written, column},
};
use crate::{
    model::{NewRun, Start, StartPolicy, Transition},
    recorded,
    search_attributes::indexed,
};

/// Why a transition was not written. None of it was.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// A conflict: read again and decide again.
    Conflict,
    /// The run has already taken in this request.
    Duplicate,
    Db(sqlx::Error),
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        let Some(pg) = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>()) else {
            return Self::Db(error);
        };
        match pg.code() {
            "23505" if pg.constraint() == Some("requests_pkey") => Self::Duplicate,
            // lost races: our own check, unique keys, serialization failure, deadlock
            "AE001" | "23505" | "40001" | "40P01" => Self::Conflict,
            _ => Self::Db(error),
        }
    }
}

/// Writes transitions and starts in one statement; returns which of them were written. The starts share one policy.
pub(super) async fn write(
    connection: &mut PgConnection,
    transitions: &[&Transition],
    starts: &[&Start],
) -> Result<Written, sqlx::Error> {
    let mut statement = if transitions.len() + starts.len() == 1 { Statement::for_one() } else { Statement::new() };
    // Sorted: two processes that write the same rows lock them in the same order.
    let mut transitions = transitions.to_vec();
    transitions.sort_by_key(|t| t.run.run_id);
    let (open, closed): (Vec<_>, Vec<_>) = transitions.iter().partition(|t| !t.is_closed());
    runs(&mut statement, &open, &closed);
    history(&mut statement, &transitions);
    if !closed.is_empty() {
        close(&mut statement, &closed);
    }
    activities::write(&mut statement, &open);
    parts::write(&mut statement, &open, &transitions);
    let mut starts = starts.to_vec();
    starts.sort_by(|a, b| a.run.workflow_id.cmp(&b.run.workflow_id));
    start::write(&mut statement, &starts);
    statement.execute(connection).await
}

/// Continue-as-new: the end of one run and the start of the next, in one transaction. False: a conflict.
pub(super) async fn write_and_continue(
    connection: &mut PgConnection,
    t: &Transition,
    next: &NewRun,
) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    if write(&mut transaction, &[t], &[]).await?.changed.is_empty() {
        transaction.rollback().await?;
        return Ok(false);
    }
    let next = Start::new(next.clone(), StartPolicy::Continue, t.now, t.wall);
    write(&mut transaction, &[], &[&next]).await?;
    transaction.commit().await?;
    Ok(true)
}

/// What identifies a run as it was when the decision was made.
const AS_DECIDED: &str =
    " where r.run_id = k.run_id and r.revision = k.expected_revision and r.last_event_id = k.expected_last";

fn runs(s: &mut Statement, open: &[&Transition], closed: &[&Transition]) {
    if !open.is_empty() {
        update(s, open);
    }
    if !closed.is_empty() {
        s.section("removed", "delete from engine.runs r using ").rows();
        expected(s, closed);
        s.rows_end("run_id, expected_revision, expected_last").text(AS_DECIDED).end(" returning r.run_id");
    }
    let changed = match (open.is_empty(), closed.is_empty()) {
        (false, true) => "select run_id from updated",
        (true, false) => "select run_id from removed",
        (false, false) => "select run_id from updated union all select run_id from removed",
        (true, true) => "select null::uuid as run_id where false",
    };
    s.section("changed", changed).end("");
}

fn expected(s: &mut Statement, transitions: &[&Transition]) {
    column!(s, transitions, t => t.run.run_id, "uuid");
    column!(s, transitions, t => t.expected_revision, "bigint");
    column!(s, transitions, t => t.expected_last_event_id, "bigint");
}

fn update(s: &mut Statement, open: &[&Transition]) {
    s.section("updated", "update engine.runs r set revision = r.revision + 1, last_event_id = k.last_event_id, ");
    s.text("history_bytes = k.history_bytes, buffered = k.buffered, previous_started_id = k.previous_started_id, ");
    s.text("cancel_requested = k.cancel_requested, open_children = k.open_children, sticky_queue = k.sticky_queue, ");
    s.text("sticky_process = k.sticky_process, sticky_timeout_ms = k.sticky_timeout_ms, wft_state = k.wft_state, ");
    s.text("wft_queue = k.wft_queue, wft_scheduled_id = k.wft_scheduled_id, wft_attempt = k.wft_attempt, ");
    s.text("wft_base_id = k.wft_base_id, wft_scheduled_at = k.wft_scheduled_at, wft_started_at = k.wft_started_at, ");
    s.text("wft_ready_at = k.wft_ready_at, wft_due_at = k.wft_due_at, wft_process = k.wft_process, ");
    s.text("wft_identity = k.wft_identity, updates = k.updates from ").rows();
    expected(s, open);
    column!(s, open, t => t.run.last_event_id, "bigint");
    column!(s, open, t => t.run.history_bytes, "bigint");
    column!(s, open, t => t.run.buffered.clone(), "bytea");
    column!(s, open, t => t.run.previous_started_id, "bigint");
    column!(s, open, t => t.run.cancel_requested, "boolean");
    column!(s, open, t => t.run.open_children, "int");
    column!(s, open, t => t.run.sticky_queue.clone(), "text");
    column!(s, open, t => t.run.sticky_process, "uuid");
    column!(s, open, t => t.run.sticky_timeout_ms, "bigint");
    column!(s, open, t => t.run.wft_state as i16, "smallint");
    column!(s, open, t => t.run.wft_queue.clone(), "text");
    column!(s, open, t => t.run.wft_scheduled_id, "bigint");
    column!(s, open, t => t.run.wft_attempt, "int");
    column!(s, open, t => t.run.wft_base_id, "bigint");
    column!(s, open, t => t.run.wft_scheduled_at, "timestamptz");
    column!(s, open, t => t.run.wft_started_at, "timestamptz");
    column!(s, open, t => t.run.wft_ready_at, "timestamptz");
    column!(s, open, t => t.run.wft_due_at, "timestamptz");
    column!(s, open, t => t.run.wft_process, "uuid");
    column!(s, open, t => t.run.wft_identity.clone(), "text");
    column!(s, open, t => t.run.updates.encode_to_vec(), "bytea");
    s.rows_end(
        "run_id, expected_revision, expected_last, last_event_id, history_bytes, buffered, previous_started_id, \
         cancel_requested, open_children, sticky_queue, sticky_process, sticky_timeout_ms, wft_state, wft_queue, \
         wft_scheduled_id, wft_attempt, wft_base_id, wft_scheduled_at, wft_started_at, wft_ready_at, wft_due_at, \
         wft_process, wft_identity, updates",
    );
    s.text(AS_DECIDED).end(" returning r.run_id");
}

fn history(s: &mut Statement, transitions: &[&Transition]) {
    let appends: Vec<_> = transitions.iter().filter(|t| !t.events.is_empty()).collect();
    if appends.is_empty() {
        return;
    }
    s.section("appended", "insert into engine.history (run_id, first_event_id, last_event_id, data) select k.* from ");
    s.rows();
    column!(s, appends, t => t.run.run_id, "uuid");
    column!(s, appends, t => t.expected_last_event_id + 1, "bigint");
    column!(s, appends, t => t.run.last_event_id, "bigint");
    column!(s, appends, t => recorded::history(&t.events), "bytea");
    s.rows_end("run_id, first_event_id, last_event_id, data").end(OF_CHANGED);
}

fn status(t: &Transition) -> i16 {
    i16::try_from(t.closed.unwrap_or(WorkflowExecutionStatus::Unspecified) as i32).unwrap_or(0)
}

/// What the end of a run does besides removing its row.
fn close(s: &mut Statement, closed: &[&Transition]) {
    s.section("executions", "update engine.executions e set status = k.status, close_time = k.at, ");
    s.text("history_length = k.length, history_bytes = k.bytes, memo = coalesce(k.memo, e.memo), ");
    s.text("search_attributes = coalesce(k.search_attributes, e.search_attributes), ");
    s.text("attributes = case when k.search_attributes is null then e.attributes else k.attributes end from ").rows();
    column!(s, closed, t => t.run.run_id, "uuid");
    column!(s, closed, t => status(t), "smallint");
    column!(s, closed, t => t.now, "timestamptz");
    column!(s, closed, t => t.run.last_event_id, "bigint");
    column!(s, closed, t => t.run.history_bytes, "bigint");
    column!(s, closed, t => t.memo.as_ref().map(Message::encode_to_vec), "bytea");
    column!(s, closed, t => t.search_attributes.as_ref().map(Message::encode_to_vec), "bytea");
    column!(s, closed, t => t.search_attributes.as_ref().and_then(indexed), "jsonb");
    s.rows_end("run_id, status, at, length, bytes, memo, search_attributes, attributes");
    s.text(" where e.run_id = k.run_id").end(AND_CHANGED);

    s.section("latest", "update engine.workflows w set status = k.status from ").rows();
    column!(s, closed, t => t.run.run_id, "uuid");
    column!(s, closed, t => t.run.workflow_id.clone(), "text");
    column!(s, closed, t => status(t), "smallint");
    s.rows_end("run_id, workflow_id, status");
    s.text(" where w.workflow_id = k.workflow_id and w.run_id = k.run_id").end(AND_CHANGED);

    let runs: Vec<Uuid> = closed.iter().map(|t| t.run.run_id).collect();
    for (name, delete) in [
        ("no_activities", "delete from engine.activities x using "),
        ("no_timers", "delete from engine.timers x using "),
        ("no_children", "delete from engine.children x using "),
        ("no_requests", "delete from engine.requests x using "),
    ] {
        s.section(name, delete).rows().column(runs.clone(), "uuid");
        s.rows_end("run_id").text(" where x.run_id = k.run_id").end(AND_CHANGED);
    }
}
