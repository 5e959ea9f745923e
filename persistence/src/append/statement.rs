//! The one statement that writes everything of an append.
//!
//! It relies on nothing that it does not check: versions and guards are compared under the locks it takes itself (a row is
//! locked before anything that depends on it is written), keys are claimed. It says how much it wrote; whoever runs it rolls
//! back unless that is everything. All that is written hangs on `op`, the operations, so that a part whose version is not
//! the expected one writes nothing.

use crate::{
    entity::{COMMON, Table},
    idempotency,
};

/// Parameters `$1` to `$31`; those of the tables follow, two each: rows to create, rows to change.
pub(super) const FIRST_OF_TABLES: usize = 32;

/// What is relied on, and the operations.
const OPERATIONS: &str = "
    guard as (select id from ambient.projects where id = any($1::text[]) and phase = 'Active' and deleted_at is null
              order by id for share),
    holds as (select count(*) = cardinality($1::text[]) as yes from guard),
    {heads},
    op as (insert into ambient.operations (id, entity_kind, entity_id, version, project_id, command, schema_version, input,
               events, context, principal, correlation_id, causation_id, trace_parent, occurred_at, previous_hash, hash)
           select p.id, p.kind, p.entity_id, p.version, p.project_id, p.command, p.schema_version, p.input, p.events, p.context,
               p.principal, p.correlation_id, p.causation_id, p.trace_parent, p.at,
               coalesce(h.last_hash, $18::bytea), sha256($19::bytea || coalesce(h.last_hash, $18::bytea) || p.hashed)
           from unnest($3::text[], $4::text[], $2::text[], $5::bigint[], $6::text[], $7::text[], $8::integer[], $9::bytea[],
               $10::bytea[], $11::bytea[], $12::text[], $13::text[], $14::text[], $15::text[], $16::timestamptz[], $17::bytea[])
               with ordinality as p(id, kind, entity_id, version, project_id, command, schema_version, input, events, context,
               principal, correlation_id, causation_id, trace_parent, at, hashed, place)
           left join head h on h.kind = p.kind and h.id = p.entity_id
           where coalesce(h.version, 0) = p.version - 1 and (select yes from holds)
           order by p.place
           returning id, entity_kind as kind, entity_id, hash)";

/// Live logs: the stream's row is locked before the rest, and gives the events their places.
const LIVE: &str = "
    wanted as (select c.session_id, c.n, c.is_new from unnest($20::text[], $21::bigint[], $22::boolean[]) as c(session_id, n, is_new)
               join op o on o.entity_id = c.session_id),
    begun as (insert into ambient.session_streams (session_id, next_seq) select session_id, 1 + n from wanted where is_new
              returning session_id, next_seq),
    moved as (update ambient.session_streams s set next_seq = s.next_seq + w.n from wanted w
              where not w.is_new and s.session_id = w.session_id and s.session_id = any($20::text[])
              returning s.session_id, s.next_seq),
    stream as (select session_id, next_seq from begun union all select session_id, next_seq from moved),
    runtime as (insert into ambient.session_runtime (session_id, last_activity_at) select session_id, now() from begun),
    event as (insert into ambient.session_events (session_id, seq, at, type, data, message_id, run, operation_id)
              select e.session_id, s.next_seq - e.from_end, e.at, e.type, e.data, e.message_id, e.run, e.operation_id
              from jsonb_to_recordset($23::jsonb) as e(session_id text, from_end bigint, at timestamptz, type text, data jsonb,
                  message_id text, run bigint, operation_id text)
              join stream s on s.session_id = e.session_id),
    active as (update ambient.session_runtime r set last_activity_at = now() from moved s
               where r.session_id = s.session_id and r.session_id = any($24::text[]))";

/// Effects in order (their position is the order in which they are carried out), and names given back.
const EFFECTS: &str = "
    effect as (insert into ambient.outbox (entity_kind, entity_id, operation_id, workflow_id, effect)
               select o.kind, o.entity_id, o.id, e.workflow_id, e.effect
               from unnest($25::text[], $26::text[], $27::jsonb[]) with ordinality as e(operation_id, workflow_id, effect, place)
               join op o on o.id = e.operation_id order by e.place),
    released as (delete from ambient.names n using unnest($28::text[], $29::text[], $30::text[]) as c(scope, name, entity_id)
                 where n.scope = c.scope and n.name = c.name and n.entity_id = c.entity_id and exists (select from op))";

/// How much was written. The order of these is that of the locks: rows, streams, keys.
const WRITTEN: &str = "
    select (select count(*) from op) as operations, {rows} as rows,
        coalesce((select jsonb_object_agg(session_id, next_seq - 1) from stream), '{}') as last_seqs,
        (select count(*) from remembered) as records";

/// The statement for entities of these tables (kind and table), by lock rank.
pub(super) fn sql(tables: &[(&'static str, &'static Table)]) -> String {
    let each = |part: fn(usize, &str, &Table) -> String| {
        tables.iter().enumerate().map(|(i, (kind, table))| part(i, kind, table)).collect::<Vec<_>>()
    };
    let heads = each(head).join(",\n    ");
    let all_heads = each(|i, _, _| format!("select * from head_{i}")).join(" union all ");
    let operations = OPERATIONS.replace("{heads}", &format!("{heads},\n    head as ({all_heads})"));
    let rows = each(|i, _, _| format!("(select count(*) from created_{i}) + (select count(*) from changed_{i})"));
    let remembered = idempotency::insert_sql("$31::jsonb", "exists (select from op)");
    format!(
        "with {operations},\n    {},{LIVE},{EFFECTS},\n    remembered as ({remembered} returning 1){}",
        each(written_rows).join(",\n    "),
        WRITTEN.replace("{rows}", &rows.join(" + "))
    )
}

/// Locks rows of a table, after the guards. A row at another version than the expected one is neither locked nor waited for.
fn head(i: usize, kind: &str, table: &Table) -> String {
    let table = table.name;
    format!(
        "head_{i} as (select '{kind}' as kind, t.id, t.version, t.last_hash from {table} t
            join unnest($2::text[], $5::bigint[]) as e(id, version) on t.id = e.id and t.version = e.version - 1
            where t.id = any($2::text[]) and (select yes from holds) order by t.id for no key update of t)"
    )
}

/// Rows of a table; the operation's hash becomes `last_hash`.
fn written_rows(i: usize, kind: &str, table: &Table) -> String {
    let columns: Vec<&str> = COMMON.iter().chain(table.columns).copied().collect();
    let value = |column: &&str| if *column == "last_hash" { "o.hash".to_owned() } else { format!("r.{column}") };
    let values = columns.iter().map(value).collect::<Vec<_>>().join(", ");
    let (columns, table) = (columns.join(", "), table.name);
    let (created, changed) = (FIRST_OF_TABLES + 2 * i, FIRST_OF_TABLES + 2 * i + 1);
    let from = |parameter: usize| {
        format!(
            "jsonb_populate_recordset(null::{table}, ${parameter}) r join op o on o.kind = '{kind}' and o.entity_id = r.id"
        )
    };
    format!(
        "created_{i} as (insert into {table} ({columns}) select {values} from {} order by r.id
            on conflict (id) do nothing returning 1),
    changed_{i} as (update {table} t set ({columns}) = row({values}) from {}
            where t.id = r.id and t.id = any($2::text[]) returning 1)",
        from(created),
        from(changed)
    )
}
