//! The one place that changes a run and appends to its history.
//!
//! One statement per transition: the row of the run is updated (or deleted, when it closes) where revision and last event
//! id are still those the decision was made on, and everything else hangs on that row. A secondary row that is not as
//! expected aborts the whole statement (`engine.expect`).

use prost::Message;
use sqlx::{Connection, PgConnection, Postgres, QueryBuilder, postgres::PgDatabaseError};
use temporalio_common::protos::temporal::api::{enums::v1::WorkflowExecutionStatus, history::v1::History};

use super::{NewRun, StartPolicy, Store, activities, start::insert_run};
use crate::history::Transition;

/// Why a transition was not written. Nothing of it was.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Somebody was faster: read again and decide again.
    Conflict,
    /// The run has taken in this request before.
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

/// A statement under construction, and how many secondary rows it must have met.
pub(super) struct Statement {
    pub(super) sql: QueryBuilder<Postgres>,
    expectations: Vec<(&'static str, i64)>,
}

impl Statement {
    /// The CTE just written must return exactly `count` rows.
    pub(super) fn expect(&mut self, cte: &'static str, count: usize) {
        self.expectations.push((cte, i64::try_from(count).unwrap_or(i64::MAX)));
    }

    fn finish(mut self) -> QueryBuilder<Postgres> {
        self.sql.push(" select (select count(*) from run) as changed");
        if !self.expectations.is_empty() {
            self.sql.push(", engine.expect(not exists (select 1 from run) or (true");
            for (cte, count) in self.expectations {
                self.sql.push(" and (select count(*) from ").push(cte).push(") = ").push_bind(count);
            }
            self.sql.push("))");
        }
        self.sql
    }
}

impl Store {
    /// Writes a transition. With continue-as-new, the new run in the same transaction.
    pub(crate) async fn commit(&self, t: &Transition) -> Result<(), CommitError> {
        let mut lane = self.lanes.take().await?;
        let changed = match &t.continued {
            None => write(&mut lane.connection, t).await,
            Some(next) => write_and_continue(&mut lane.connection, t, next).await,
        };
        if lane.finish(changed)? { Ok(()) } else { Err(CommitError::Conflict) }
    }
}

/// False: somebody was faster, nothing was written.
async fn write_and_continue(connection: &mut PgConnection, t: &Transition, next: &NewRun) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    if !write(&mut transaction, t).await? {
        transaction.rollback().await?;
        return Ok(false);
    }
    insert_run(&mut transaction, next, StartPolicy::Continue, t.now).await?;
    transaction.commit().await?;
    Ok(true)
}

/// False: somebody was faster, nothing was written.
async fn write(connection: &mut PgConnection, t: &Transition) -> Result<bool, sqlx::Error> {
    let mut statement = Statement { sql: QueryBuilder::new("with run as ("), expectations: Vec::new() };
    if let Some(status) = t.closed {
        close_run(&mut statement, t, status);
    } else {
        update_run(&mut statement, t);
        activities::write(&mut statement, t);
        timers(&mut statement, t);
        children(&mut statement, t);
    }
    history(&mut statement, t);
    request(&mut statement, t);
    visibility(&mut statement, t);
    effects(&mut statement, t);
    let changed: i64 = {
        use sqlx::Row;
        statement.finish().build().fetch_one(connection).await?.try_get("changed")?
    };
    Ok(changed == 1)
}

fn compare(s: &mut Statement, t: &Transition) {
    s.sql.push(" where run_id = ").push_bind(t.run.run_id);
    s.sql.push(" and revision = ").push_bind(t.expected_revision);
    s.sql.push(" and last_event_id = ").push_bind(t.expected_last_event_id);
    s.sql.push(" returning run_id)");
}

fn update_run(s: &mut Statement, t: &Transition) {
    let run = &t.run;
    s.sql.push("update engine.runs set revision = revision + 1, last_event_id = ").push_bind(run.last_event_id);
    s.sql.push(", history_bytes = ").push_bind(run.history_bytes);
    s.sql.push(", buffered = ").push_bind(run.buffered.clone());
    s.sql.push(", previous_started_id = ").push_bind(run.previous_started_id);
    s.sql.push(", cancel_requested = ").push_bind(run.cancel_requested);
    s.sql.push(", open_children = ").push_bind(run.open_children);
    s.sql.push(", sticky_queue = ").push_bind(run.sticky_queue.clone());
    s.sql.push(", sticky_process = ").push_bind(run.sticky_process);
    s.sql.push(", sticky_timeout_ms = ").push_bind(run.sticky_timeout_ms);
    s.sql.push(", wft_state = ").push_bind(run.wft_state as i16);
    s.sql.push(", wft_queue = ").push_bind(run.wft_queue.clone());
    s.sql.push(", wft_scheduled_id = ").push_bind(run.wft_scheduled_id);
    s.sql.push(", wft_attempt = ").push_bind(run.wft_attempt);
    s.sql.push(", wft_base_id = ").push_bind(run.wft_base_id);
    s.sql.push(", wft_scheduled_at = ").push_bind(run.wft_scheduled_at);
    s.sql.push(", wft_started_at = ").push_bind(run.wft_started_at);
    s.sql.push(", wft_ready_at = ").push_bind(run.wft_ready_at);
    s.sql.push(", wft_due_at = ").push_bind(run.wft_due_at);
    s.sql.push(", wft_process = ").push_bind(run.wft_process);
    s.sql.push(", wft_identity = ").push_bind(run.wft_identity.clone());
    compare(s, t);
}

fn close_run(s: &mut Statement, t: &Transition, status: WorkflowExecutionStatus) {
    let status = i16::try_from(status as i32).unwrap_or(0);
    s.sql.push("delete from engine.runs");
    compare(s, t);
    s.sql.push(", executions as (update engine.executions e set status = ").push_bind(status);
    s.sql.push(", close_time = ").push_bind(t.now);
    s.sql.push(", history_length = ").push_bind(t.run.last_event_id);
    s.sql.push(", history_bytes = ").push_bind(t.run.history_bytes);
    set_visibility(s, t);
    s.sql.push(" from run where e.run_id = run.run_id)");
    s.sql.push(", latest as (update engine.workflows w set status = ").push_bind(status);
    s.sql.push(" from run where w.run_id = run.run_id and w.workflow_id = ").push_bind(t.run.workflow_id.clone());
    s.sql.push(")");
    for table in ["activities", "timers", "children", "requests"] {
        s.sql
            .push(format_args!(", no_{table} as (delete from engine.{table} x using run where x.run_id = run.run_id)"));
    }
}

fn history(s: &mut Statement, t: &Transition) {
    if t.events.is_empty() {
        return;
    }
    let data = History { events: t.events.clone() }.encode_to_vec();
    s.sql
        .push(", history as (insert into engine.history (run_id, first_event_id, last_event_id, data) select run_id, ");
    s.sql.push_bind(t.expected_last_event_id + 1).push(", ").push_bind(t.run.last_event_id);
    s.sql.push(", ").push_bind(data).push(" from run)");
}

fn timers(s: &mut Statement, t: &Transition) {
    if !t.new_timers.is_empty() {
        let ids: Vec<String> = t.new_timers.iter().map(|(id, ..)| id.clone()).collect();
        let started: Vec<i64> = t.new_timers.iter().map(|(_, event, _)| *event).collect();
        let fire_at: Vec<_> = t.new_timers.iter().map(|(.., at)| *at).collect();
        s.sql.push(", timers_new as (insert into engine.timers select run.run_id, k.* from run, unnest(");
        s.sql.push_bind(ids).push("::text[], ").push_bind(started).push("::bigint[], ").push_bind(fire_at);
        s.sql.push("::timestamptz[]) k)");
    }
    if !t.ended_timers.is_empty() {
        s.sql.push(", timers_end as (delete from engine.timers x using run where x.run_id = run.run_id");
        s.sql.push(" and x.timer_id = any(").push_bind(t.ended_timers.clone()).push(") returning 1)");
        s.expect("timers_end", t.ended_timers.len());
    }
}

fn children(s: &mut Statement, t: &Transition) {
    if !t.new_children.is_empty() {
        let ids: Vec<i64> = t.new_children.iter().map(|c| c.initiated_event_id).collect();
        let workflows: Vec<String> = t.new_children.iter().map(|c| c.workflow_id.clone()).collect();
        let types: Vec<String> = t.new_children.iter().map(|c| c.workflow_type.clone()).collect();
        let policies: Vec<i16> = t.new_children.iter().map(|c| c.close_policy).collect();
        s.sql.push(", children_new as (insert into engine.children (run_id, initiated_event_id, workflow_id, ");
        s.sql.push("workflow_type, close_policy) select run.run_id, k.* from run, unnest(").push_bind(ids);
        s.sql.push("::bigint[], ").push_bind(workflows).push("::text[], ").push_bind(types).push("::text[], ");
        s.sql.push_bind(policies).push("::smallint[]) k)");
    }
    // A child may start and end in one flush: what has ended needs no start.
    let started: Vec<_> = t.started_children.iter().filter(|(id, ..)| !t.ended_children.contains(id)).collect();
    if !started.is_empty() {
        let ids: Vec<i64> = started.iter().map(|(id, ..)| *id).collect();
        let events: Vec<i64> = started.iter().map(|(_, event, _)| *event).collect();
        let runs: Vec<_> = started.iter().map(|(.., run)| *run).collect();
        s.sql.push(", children_started as (update engine.children x set started_event_id = k.event, ");
        s.sql.push("child_run_id = k.child from run, unnest(").push_bind(ids).push("::bigint[], ").push_bind(events);
        s.sql.push("::bigint[], ").push_bind(runs).push("::uuid[]) k(id, event, child)");
        s.sql.push(" where x.run_id = run.run_id and x.initiated_event_id = k.id)");
    }
    if !t.ended_children.is_empty() {
        s.sql.push(", children_end as (delete from engine.children x using run where x.run_id = run.run_id");
        s.sql.push(" and x.initiated_event_id = any(").push_bind(t.ended_children.clone()).push(") returning 1)");
        s.expect("children_end", t.ended_children.len());
    }
}

fn request(s: &mut Statement, t: &Transition) {
    if let Some(id) = t.request_id.as_ref().filter(|_| t.closed.is_none()) {
        s.sql.push(", request as (insert into engine.requests (run_id, request_id) select run_id, ");
        s.sql.push_bind(id.clone()).push(" from run)");
    }
}

fn set_visibility(s: &mut Statement, t: &Transition) {
    if let Some(memo) = &t.memo {
        s.sql.push(", memo = ").push_bind(memo.encode_to_vec());
    }
    if let Some(attributes) = &t.search_attributes {
        s.sql.push(", search_attributes = ").push_bind(attributes.encode_to_vec());
    }
}

/// Memo and search attributes of a run that stays open.
fn visibility(s: &mut Statement, t: &Transition) {
    if t.closed.is_none() && (t.memo.is_some() || t.search_attributes.is_some()) {
        s.sql.push(", visibility as (update engine.executions e set status = status");
        set_visibility(s, t);
        s.sql.push(" from run where e.run_id = run.run_id)");
    }
}

fn effects(s: &mut Statement, t: &Transition) {
    if !t.effects.is_empty() {
        let ids: Vec<_> = t.effects.iter().map(|e| e.id).collect();
        let data: Vec<Vec<u8>> = t.effects.iter().map(|e| e.data.encode_to_vec()).collect();
        s.sql.push(
            ", effects_new as (insert into engine.effects (effect_id, process, source_run_id, data) select k.id, ",
        );
        s.sql.push_bind(t.circumstances.process).push(", run.run_id, k.data from run, unnest(").push_bind(ids);
        s.sql.push("::uuid[], ").push_bind(data).push("::bytea[]) k(id, data))");
    }
    if let Some(id) = t.settles {
        s.sql.push(", effect_settled as (delete from engine.effects x using run where x.effect_id = ");
        s.sql.push_bind(id).push(" returning 1)");
        s.expect("effect_settled", 1);
    }
}
