//! The text of the statement that writes changes of entities in one table.
//!
//! It relies on nothing that it does not check: a row is changed only if version and hash are those that were decided on,
//! and everything else depends on the rows that were changed (`changed`), so that a part that was overtaken writes nothing and
//! its neighbours write everything. Requests' records are the exception, because a key may be taken while the statement
//! runs: if one cannot be written, the statement aborts with an error and nothing of it remains.
//!
//! There is one text for each combination of [`Sections`] and table, built once. Every part is a row of `k`, made from arrays; each
//! section reads the rows of the previous one, so that the only joins are with a table, by its key.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use crate::{
    entity::{COMMON, Table},
    idempotency,
};

/// What the parts of a statement need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Sections {
    /// Entities are created.
    pub(super) created: bool,
    /// Entities are changed, but none of their own columns except `updated_at`.
    pub(super) narrow: bool,
    /// Entities are changed with their own columns.
    pub(super) wide: bool,
    /// There are live events, or live logs are started.
    pub(super) live: bool,
    /// There are effects.
    pub(super) effects: bool,
    /// There are records of requests.
    pub(super) records: bool,
    /// Projects have to be active.
    pub(super) guarded: bool,
}

/// Columns of `k` in binding order, with their types. Those of a section only if it is included.
pub(super) const ALWAYS: &[(&str, &str)] = &[
    ("id", "text"),
    ("version", "bigint"),
    ("project_id", "text"),
    ("command", "text"),
    ("schema_version", "integer"),
    ("operation_id", "text"),
    ("at", "timestamptz"),
    ("previous_hash", "bytea"),
    ("hash", "bytea"),
    ("state", "text"),
    ("input", "bytea"),
    ("events", "bytea"),
    ("context", "bytea"),
    ("principal", "text"),
    ("correlation_id", "text"),
    ("causation_id", "text"),
    ("trace_parent", "text"),
];
const OWN: &[(&str, &str)] = &[("columns", "text"), ("spec", "text")];
const LIVE: &[(&str, &str)] = &[("live", "text"), ("live_count", "bigint"), ("messages", "bigint")];
const EFFECTS: &[(&str, &str)] = &[("effects", "text")];
const RECORDS: &[(&str, &str)] = &[("method", "text"), ("path", "text"), ("key", "text"), ("request_hash", "bytea")];

impl Sections {
    pub(super) fn own(self) -> bool {
        self.created || self.wide
    }

    fn columns(self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let optional =
            [(self.own(), OWN), (self.live, LIVE), (self.effects, EFFECTS), (self.records, RECORDS)].into_iter();
        ALWAYS.iter().chain(optional.filter(|(wanted, _)| *wanted).flat_map(|(_, columns)| columns))
    }
}

type Texts = HashMap<(&'static str, Sections), &'static str>;

/// The text for these sections and this table. Kept for good: there are few.
pub(super) fn text(kind: &'static str, table: &'static Table, sections: Sections) -> &'static str {
    static TEXTS: Mutex<Option<Texts>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    texts.entry((kind, sections)).or_insert_with(|| Box::leak(build(kind, table, sections).into_boxed_str()))
}

fn build(kind: &str, table: &Table, sections: Sections) -> String {
    let mut ctes = vec![given(sections)];
    let guard = if sections.guarded { " and (select yes from holds)" } else { "" };
    if sections.guarded {
        // Bound after the columns.
        let parameter = sections.columns().count() + 1;
        ctes.push(format!(
            "guard as (select id from ambient.projects where id = any(${parameter}::text[]) and phase = 'Active'
                and deleted_at is null order by id for share)"
        ));
        ctes.push(format!("holds as (select count(*) = cardinality(${parameter}::text[]) as yes from guard)"));
    }
    // A key that was used before is not an error: its request gets the same response.
    let unused = if sections.records { idempotency::UNUSED } else { "" };
    let mut changed = Vec::new();
    if sections.narrow {
        ctes.push(narrow(table, sections, guard, unused));
        changed.push("select * from narrow");
    }
    if sections.wide {
        ctes.push(wide(table, guard, unused));
        changed.push("select * from wide");
    }
    if sections.created {
        ctes.push(created(table, guard, unused));
        changed.push("select k.* from created c join k on k.id = c.id");
    }
    ctes.push(format!("changed as ({})", changed.join(" union all ")));
    ctes.push(operations(kind));
    if sections.live {
        ctes.extend(live(sections));
    }
    if sections.effects {
        ctes.push(effects(kind));
    }
    if sections.records {
        ctes.push(format!("recorded as ({} returning 1)", idempotency::insert_sql(kind)));
    }
    let mut text = format!("with {}\nselect array(select id from changed) as ids", ctes.join(",\n"));
    // Writing to a String cannot fail.
    let _ = match sections.live {
        true => write!(
            text,
            ", array(select session_id from stream) as streams, array(select next_seq - 1 from stream) as last_seqs"
        ),
        false => write!(text, ", '{{}}'::text[] as streams, '{{}}'::bigint[] as last_seqs"),
    };
    if sections.records {
        text.push_str(
            ", ambient.expect((select count(*) from recorded) = (select count(*) from changed where key is not null))",
        );
    }
    text
}

/// The parts.
fn given(sections: Sections) -> String {
    let columns: Vec<_> = sections.columns().collect();
    let arrays: Vec<_> = columns.iter().enumerate().map(|(i, (_, kind))| format!("${}::{kind}[]", i + 1)).collect();
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    format!("k as (select * from unnest({}) as k({}))", arrays.join(", "), names.join(", "))
}

const BOOKKEEPING: &str = "version = k.version, schema_version = k.schema_version, last_operation_id = k.operation_id, \
    last_hash = k.hash, state = k.state::jsonb";
const AS_DECIDED_ON: &str = "t.id = k.id and t.version = k.version - 1 and t.last_hash = k.previous_hash";

fn narrow(table: &Table, sections: Sections, guard: &str, unused: &str) -> String {
    let only = if sections.own() { " and k.columns is null" } else { "" };
    format!(
        "narrow as (update {} t set {BOOKKEEPING}, updated_at = k.at from k
            where {AS_DECIDED_ON}{only}{guard}{unused} returning k.*)",
        table.name
    )
}

/// Columns of the table that are written from `columns`: its own, and those times that the entity knows.
fn own(table: &Table) -> impl Iterator<Item = &'static str> {
    let times = COMMON.iter().filter(|column| matches!(**column, "created_at" | "updated_at" | "deleted_at"));
    times.chain(table.columns).copied()
}

fn wide(table: &Table, guard: &str, unused: &str) -> String {
    let columns: Vec<_> = own(table).collect();
    let values: Vec<_> = columns.iter().map(|column| format!("r.{column}")).collect();
    // An unchanged spec is not written: the row keeps pointing to it.
    format!(
        "wide as (update {0} t set {BOOKKEEPING}, spec = coalesce(k.spec::jsonb, t.spec), ({1}) = row({2})
            from k cross join lateral jsonb_populate_record(null::{0}, k.columns::jsonb) r
            where {AS_DECIDED_ON} and k.columns is not null{guard}{unused} returning k.*)",
        table.name,
        columns.join(", "),
        values.join(", ")
    )
}

fn created(table: &Table, guard: &str, unused: &str) -> String {
    let columns: Vec<_> = own(table).collect();
    let values: Vec<_> = columns.iter().map(|column| format!("r.{column}")).collect();
    format!(
        "created as (insert into {0} (id, project_id, version, schema_version, last_operation_id, last_hash, state, spec, {1})
            select k.id, k.project_id, k.version, k.schema_version, k.operation_id, k.hash, k.state::jsonb, k.spec::jsonb, {2}
            from k cross join lateral jsonb_populate_record(null::{0}, k.columns::jsonb) r
            where k.version = 1{guard}{unused} on conflict (id) do nothing returning id)",
        table.name,
        columns.join(", "),
        values.join(", ")
    )
}

fn operations(kind: &str) -> String {
    format!(
        "operation as (insert into ambient.operations (id, entity_kind, entity_id, version, project_id, command,
            schema_version, input, events, context, principal, correlation_id, causation_id, trace_parent, occurred_at,
            previous_hash, hash)
        select operation_id, '{kind}', id, version, project_id, command, schema_version, input, events, context, principal,
            correlation_id, causation_id, trace_parent, at, previous_hash, hash from changed)"
    )
}

/// The stream's row assigns the events their places; its lock makes commit order equal seq order.
fn live(sections: Sections) -> Vec<String> {
    let columns = "live, at, operation_id";
    let mut ctes = vec![
        "moved as (update ambient.session_streams s set next_seq = s.next_seq + c.live_count,
                messages = s.messages + c.messages from changed c
            where s.session_id = c.id and c.live_count > 0 and c.version > 1
            returning s.session_id, s.next_seq, c.live, c.at, c.operation_id, c.messages > 0 as is_active)"
            .to_owned(),
    ];
    let mut streams = format!("select session_id, next_seq, {columns} from moved");
    if sections.created {
        ctes.push(
            "begun as (insert into ambient.session_streams (session_id, next_seq, messages)
                select id, 1 + live_count, messages from changed where version = 1 returning session_id, next_seq)"
                .to_owned(),
        );
        ctes.push(
            "runtime as (insert into ambient.session_runtime (session_id, last_activity_at)
                select session_id, now() from begun)"
                .to_owned(),
        );
        streams.push_str(
            " union all select b.session_id, b.next_seq, c.live, c.at, c.operation_id
              from begun b join changed c on c.id = b.session_id where c.live_count > 0",
        );
    }
    ctes.push(format!("stream as ({streams})"));
    ctes.push(
        "event as (insert into ambient.session_events (session_id, seq, at, type, data, message_id, run, operation_id)
            select s.session_id, s.next_seq - e.from_end, s.at, e.type, e.data, e.message_id, e.run, s.operation_id
            from stream s cross join lateral jsonb_to_recordset(s.live::jsonb)
                as e(from_end bigint, type text, data jsonb, message_id text, run bigint))"
            .to_owned(),
    );
    ctes.push(
        "active as (update ambient.session_runtime r set last_activity_at = now() from moved s
            where r.session_id = s.session_id and s.is_active)"
            .to_owned(),
    );
    ctes
}

/// Those of an entity in their order: their position is the order in which they are carried out.
fn effects(kind: &str) -> String {
    format!(
        "effect as (insert into ambient.outbox (entity_kind, entity_id, operation_id, workflow_id, effect)
            select '{kind}', c.id, c.operation_id, e.value ->> 'workflow_id', e.value -> 'effect'
            from changed c cross join lateral jsonb_array_elements(c.effects::jsonb) as e where c.effects is not null)"
    )
}
