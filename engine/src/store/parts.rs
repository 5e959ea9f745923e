//! Writing what belongs to a run besides its activities: timers, children, requests, visibility, effects.

use prost::Message;

use super::statement::{AND_CHANGED, OF_CHANGED, Statement, column};
use crate::{model::Transition, search_attributes::indexed};

pub(super) fn write(s: &mut Statement, open: &[&Transition], all: &[&Transition]) {
    timers(s, open);
    children(s, open);
    requests(s, open);
    visibility(s, open);
    effects(s, all);
    updates(s, all);
}

fn timers(s: &mut Statement, open: &[&Transition]) {
    let new: Vec<_> = open.iter().flat_map(|t| t.new_timers.iter().map(|n| (t.run.run_id, n))).collect();
    if !new.is_empty() {
        s.section(
            "timers_new",
            "insert into engine.timers (run_id, timer_id, started_event_id, fire_at) select k.* from ",
        );
        s.rows();
        column!(s, new, (run, _) => *run, "uuid");
        column!(s, new, (_, (id, ..)) => id.clone(), "text");
        column!(s, new, (_, (_, event, _)) => *event, "bigint");
        column!(s, new, (_, (.., at)) => *at, "timestamptz");
        s.rows_end("run_id, timer_id, started_event_id, fire_at").end(OF_CHANGED);
    }
    let ended: Vec<_> = open.iter().flat_map(|t| t.ended_timers.iter().map(|id| (t.run.run_id, id))).collect();
    if !ended.is_empty() {
        s.keys("timers_end");
        column!(s, ended, (run, _) => *run, "uuid");
        column!(s, ended, (_, id) => (*id).clone(), "text");
        s.keys_end("run_id, timer_id");
        s.keyed(
            "timers_end",
            "delete from engine.timers x using timers_end_keys k where x.run_id = k.run_id and x.timer_id = k.timer_id",
        );
    }
}

fn children(s: &mut Statement, open: &[&Transition]) {
    let new: Vec<_> = open.iter().flat_map(|t| t.new_children.iter().map(|c| (t.run.run_id, c))).collect();
    if !new.is_empty() {
        s.section("children_new", "insert into engine.children (run_id, initiated_event_id, workflow_id, ");
        s.text("workflow_type, close_policy, started_event_id, child_run_id) select k.* from ").rows();
        column!(s, new, (run, _) => *run, "uuid");
        column!(s, new, (_, c) => c.initiated_event_id, "bigint");
        column!(s, new, (_, c) => c.workflow_id.clone(), "text");
        column!(s, new, (_, c) => c.workflow_type.clone(), "text");
        column!(s, new, (_, c) => c.close_policy, "smallint");
        column!(s, new, (_, c) => c.started.map_or(0, |(event, _)| event), "bigint");
        column!(s, new, (_, c) => c.started.map(|(_, run)| run), "uuid");
        s.rows_end(
            "run_id, initiated_event_id, workflow_id, workflow_type, close_policy, started_event_id, child_run_id",
        )
        .end(OF_CHANGED);
    }
    // A child may start and end in one flush: one that has ended needs no start.
    let started: Vec<_> = open
        .iter()
        .flat_map(|t| t.started_children.iter().map(move |c| (*t, c)))
        .filter(|(t, (id, ..))| !t.ended_children.contains(id))
        .collect();
    if !started.is_empty() {
        s.section(
            "children_started",
            "update engine.children x set started_event_id = k.event, child_run_id = k.child ",
        );
        s.text("from ").rows();
        column!(s, started, (t, _) => t.run.run_id, "uuid");
        column!(s, started, (_, (id, ..)) => *id, "bigint");
        column!(s, started, (_, (_, event, _)) => *event, "bigint");
        column!(s, started, (_, (.., run)) => *run, "uuid");
        s.rows_end("run_id, id, event, child");
        s.text(" where x.run_id = k.run_id and x.initiated_event_id = k.id").end(AND_CHANGED);
    }
    let ended: Vec<_> = open.iter().flat_map(|t| t.ended_children.iter().map(|id| (t.run.run_id, *id))).collect();
    if !ended.is_empty() {
        s.keys("children_end");
        column!(s, ended, (run, _) => *run, "uuid");
        column!(s, ended, (_, id) => *id, "bigint");
        s.keys_end("run_id, id");
        s.keyed(
            "children_end",
            "delete from engine.children x using children_end_keys k \
             where x.run_id = k.run_id and x.initiated_event_id = k.id",
        );
    }
}

fn requests(s: &mut Statement, open: &[&Transition]) {
    let new: Vec<_> = open.iter().filter_map(|t| t.request_id.as_ref().map(|id| (t.run.run_id, id))).collect();
    if new.is_empty() {
        return;
    }
    s.section("requests", "insert into engine.requests (run_id, request_id) select k.* from ").rows();
    column!(s, new, (run, _) => *run, "uuid");
    column!(s, new, (_, id) => (*id).clone(), "text");
    s.rows_end("run_id, request_id").end(OF_CHANGED);
}

/// Memo and search attributes of runs that stay open.
fn visibility(s: &mut Statement, open: &[&Transition]) {
    let seen: Vec<_> = open.iter().filter(|t| t.memo.is_some() || t.search_attributes.is_some()).collect();
    if seen.is_empty() {
        return;
    }
    s.section("visibility", "update engine.executions e set memo = coalesce(k.memo, e.memo), ");
    s.text("search_attributes = coalesce(k.search_attributes, e.search_attributes), ");
    s.text("attributes = case when k.search_attributes is null then e.attributes else k.attributes end from ").rows();
    column!(s, seen, t => t.run.run_id, "uuid");
    column!(s, seen, t => t.memo.as_ref().map(Message::encode_to_vec), "bytea");
    column!(s, seen, t => t.search_attributes.as_ref().map(Message::encode_to_vec), "bytea");
    column!(s, seen, t => t.search_attributes.as_ref().and_then(indexed), "jsonb");
    s.rows_end("run_id, memo, search_attributes, attributes");
    s.text(" where e.run_id = k.run_id").end(AND_CHANGED);
}

fn effects(s: &mut Statement, all: &[&Transition]) {
    let new: Vec<_> = all.iter().flat_map(|t| t.effects.iter().map(move |e| (*t, e))).collect();
    if !new.is_empty() {
        s.section(
            "effects_new",
            "insert into engine.effects (source_run_id, effect_id, process, data) select k.* from ",
        );
        s.rows();
        column!(s, new, (t, _) => t.run.run_id, "uuid");
        column!(s, new, (_, e) => e.id, "uuid");
        column!(s, new, (t, _) => t.circumstances.process, "uuid");
        column!(s, new, (_, e) => e.data.encode_to_vec(), "bytea");
        s.rows_end("run_id, effect_id, process, data").end(OF_CHANGED);
    }
    let settled: Vec<_> = all.iter().filter_map(|t| t.settles.map(|id| (t.run.run_id, id))).collect();
    if !settled.is_empty() {
        s.keys("effects_settled");
        column!(s, settled, (run, _) => *run, "uuid");
        column!(s, settled, (_, id) => *id, "uuid");
        s.keys_end("run_id, effect_id");
        s.keyed(
            "effects_settled",
            "delete from engine.effects x using effects_settled_keys k where x.effect_id = k.effect_id",
        );
    }
}

fn updates(s: &mut Statement, all: &[&Transition]) {
    let recorded: Vec<_> = all.iter().flat_map(|t| t.recorded_updates.iter().map(move |u| (t.run.run_id, u))).collect();
    if !recorded.is_empty() {
        s.section("updates_recorded", "insert into engine.updates (run_id, update_id, accepted_event_id, ");
        s.text("completed_event_id) select k.* from ").rows();
        column!(s, recorded, (run, _) => *run, "uuid");
        column!(s, recorded, (_, u) => u.id.clone(), "text");
        column!(s, recorded, (_, u) => u.accepted_event_id, "bigint");
        column!(s, recorded, (_, u) => u.completed_event_id, "bigint");
        s.rows_end("run_id, update_id, accepted_event_id, completed_event_id").text(OF_CHANGED);
        s.end(" on conflict (run_id, update_id) do update set completed_event_id = excluded.completed_event_id");
    }
    let rejected: Vec<_> = all.iter().flat_map(|t| t.rejected_updates.iter().map(move |r| (t.run.run_id, r))).collect();
    if !rejected.is_empty() {
        s.section("updates_rejected", "insert into engine.update_rejections (admission, failure) ");
        s.text("select k.admission, k.failure from ").rows();
        column!(s, rejected, (run, _) => *run, "uuid");
        column!(s, rejected, (_, (admission, _)) => *admission, "uuid");
        column!(s, rejected, (_, (_, failure)) => failure.encode_to_vec(), "bytea");
        s.rows_end("run_id, admission, failure").text(OF_CHANGED).end(" on conflict do nothing");
    }
}
