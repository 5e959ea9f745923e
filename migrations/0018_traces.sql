-- What servers export as traces (decision 0020). The queues are written only by servers that export, and emptied by the one that has the lease.

create table ambient.trace_export (
    only_row   boolean primary key default true check (only_row),
    -- The server that exports, until expires_at on the database's clock; the epoch grows with every change of holder.
    holder     text        not null,
    epoch      bigint      not null,
    expires_at timestamptz not null,
    -- The last operation of the feed that was exported.
    xid        xid8        not null,
    position   bigint      not null,
    -- Operations, turns and executions that were given up since the row was made.
    dropped    bigint      not null default 0
);

-- Turns that are over and not exported, written with the record that says so.
create table ambient.trace_turns (
    session_id text collate "C" not null,
    run        bigint      not null,
    number     bigint      not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (session_id, run, number)
);
create index trace_turns_by_age on ambient.trace_turns (created_at);

-- Executions and the operations that started them, written before the start is sent to the engine. Due until exported; kept for a while
-- afterwards, since what an execution reports names it as its cause.
create table ambient.trace_executions (
    workflow_id  text collate "C" primary key,
    operation_id text collate "C" not null,
    entity_id    text collate "C" not null,
    created_at   timestamptz not null default clock_timestamp(),
    due_at       timestamptz default clock_timestamp()
);
create index trace_executions_due on ambient.trace_executions (due_at) where due_at is not null;
create index trace_executions_due_of_entity on ambient.trace_executions (entity_id) where due_at is not null;
create index trace_executions_by_age on ambient.trace_executions (created_at);
