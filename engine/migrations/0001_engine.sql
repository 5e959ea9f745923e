-- The engine's whole state. Times are engine time (engine.now()) unless a comment says wall clock.

-- One row. `shift` moves engine time forward in tests; leases and workflow-task timeouts do not follow it.
create table engine.clock (
    only_row boolean primary key default true check (only_row),
    shift    interval not null default '0'
);
insert into engine.clock default values;

create function engine.now() returns timestamptz language sql stable as
$$ select clock_timestamp() + (select shift from engine.clock) $$;

-- Aborts the statement it is called in: the all-or-nothing part of a compare-and-set that spans several tables.
create function engine.expect(held boolean) returns boolean language plpgsql as
$$ begin
    if not held then
        raise exception 'state changed underneath' using errcode = 'AE001';
    end if;
    return held;
end $$;

-- Processes that share this database. Wall clock.
create table engine.processes (
    process_id uuid primary key,
    identity   text not null,
    started_at timestamptz not null default clock_timestamp(),
    renewed_at timestamptz not null default clock_timestamp()
);

-- The latest run of every workflow id: what start, reuse and conflict policies are decided on.
create table engine.workflows (
    workflow_id text primary key,
    run_id      uuid not null,
    status      smallint not null,
    request_id  text not null
) with (fillfactor = 80);

-- Every run, open or closed: what list, count and describe read. Written at start, at upserts and at close.
create table engine.executions (
    run_id             uuid primary key,
    workflow_id        text not null,
    workflow_type      text not null,
    task_queue         text not null,
    status             smallint not null,
    start_time         timestamptz not null,
    close_time         timestamptz,
    first_run_id       uuid not null,
    parent_workflow_id text,
    parent_run_id      uuid,
    root_workflow_id   text not null,
    root_run_id        uuid not null,
    history_length     bigint not null default 0,
    history_bytes      bigint not null default 0,
    memo               bytea not null default '',
    search_attributes  bytea not null default ''
) with (fillfactor = 90);
create index executions_by_start on engine.executions (start_time desc, run_id desc);
create index executions_by_workflow on engine.executions (workflow_id, start_time desc);
create index executions_by_type on engine.executions (workflow_type, start_time desc);
create index executions_by_status on engine.executions (status, start_time desc);

-- The mutable state of every open run. A row goes when its run closes, so the table stays as small as the work in flight.
create table engine.runs (
    run_id               uuid primary key,
    workflow_id          text not null,
    workflow_type        text not null,
    task_queue           text not null,
    first_run_id         uuid not null,
    parent_workflow_id   text,
    parent_run_id        uuid,
    parent_initiated_id  bigint not null default 0,
    root_workflow_id     text not null,
    root_run_id          uuid not null,
    -- moves with every change of the run; with last_event_id what every append is compared with
    revision             bigint not null default 0,
    last_event_id        bigint not null,
    history_bytes        bigint not null,
    -- events that arrived while a workflow task was in flight: an encoded History, ids not yet given
    buffered             bytea not null default '',
    previous_started_id  bigint not null default 0,
    cancel_requested     boolean not null default false,
    -- rows of engine.children
    open_children        integer not null default 0,
    timeout_at           timestamptz,
    execution_expires_at timestamptz,
    wft_timeout_ms       bigint not null,
    sticky_queue         text,
    sticky_process       uuid,
    sticky_timeout_ms    bigint not null default 0,
    -- the workflow task: 0 none, 1 scheduled, 2 started
    wft_state            smallint not null default 0,
    wft_queue            text not null,
    -- 0 while transient (a further attempt whose Scheduled event is not written yet)
    wft_scheduled_id     bigint not null default 0,
    wft_attempt          integer not null default 1,
    -- last event when the attempt before failed; events after it make the next attempt a first one
    wft_base_id          bigint not null default 0,
    wft_scheduled_at     timestamptz,
    wft_started_at       timestamptz,
    -- wall clock: may be given out from; must be looked at (sticky, start-to-close, back-off over)
    wft_ready_at         timestamptz,
    wft_due_at           timestamptz,
    wft_process          uuid,
    wft_identity         text not null default ''
) with (fillfactor = 70);
create index runs_dispatch on engine.runs (wft_queue, wft_ready_at) where wft_state = 1;
create index runs_task_due on engine.runs (wft_due_at) where wft_due_at is not null;
create index runs_timeout on engine.runs (timeout_at) where timeout_at is not null;

-- One row per append: an encoded History of the events first_event_id ..= last_event_id.
create table engine.history (
    run_id         uuid not null,
    first_event_id bigint not null,
    last_event_id  bigint not null,
    data           bytea not null,
    primary key (run_id, first_event_id)
);

create table engine.activities (
    run_id             uuid not null,
    scheduled_event_id bigint not null,
    activity_id        text not null,
    activity_type      text not null,
    task_queue         text not null,
    workflow_id        text not null,
    workflow_type      text not null,
    -- 0 waiting (for a worker or for the next attempt), 1 started
    state              smallint not null,
    attempt            integer not null default 1,
    -- encoded ActivityTaskScheduledEventAttributes
    attributes         bytea not null,
    start_to_close_ms  bigint not null,
    heartbeat_ms       bigint not null,
    scheduled_at       timestamptz not null,
    -- this attempt may start from
    visible_at         timestamptz not null,
    -- schedule-to-start and schedule-to-close deadlines
    start_by           timestamptz,
    expires_at         timestamptz,
    started_at         timestamptz,
    ended_at           timestamptz,
    heartbeat_at       timestamptz,
    heartbeat_details  bytea not null default '',
    last_failure       bytea not null default '',
    cancel_requested_id bigint not null default 0,
    identity           text not null default '',
    process            uuid,
    -- when the timer loop has to look at this row
    due_at             timestamptz,
    primary key (run_id, scheduled_event_id)
) with (fillfactor = 80);
create index activities_dispatch on engine.activities (task_queue, visible_at) where state = 0;
create index activities_due on engine.activities (due_at) where due_at is not null;
create index activities_process on engine.activities (process) where state = 1;

create table engine.timers (
    run_id           uuid not null,
    timer_id         text not null,
    started_event_id bigint not null,
    fire_at          timestamptz not null,
    primary key (run_id, timer_id)
);
create index timers_fire on engine.timers (fire_at);

create table engine.children (
    run_id             uuid not null,
    initiated_event_id bigint not null,
    started_event_id   bigint not null default 0,
    workflow_id        text not null,
    workflow_type      text not null,
    child_run_id       uuid,
    close_policy       smallint not null,
    primary key (run_id, initiated_event_id)
);

-- Work on another run that a committed change still owes (start a child, tell a parent, signal): done by its process,
-- or by whoever finds the process gone. The row goes in the transaction that settles it.
create table engine.effects (
    effect_id     uuid primary key,
    process       uuid not null,
    source_run_id uuid not null,
    -- wall clock
    owed_since    timestamptz not null default clock_timestamp(),
    data          bytea not null
);
create index effects_process on engine.effects (process);
create index effects_source on engine.effects (source_run_id);

-- Request ids of signals and cancels already taken in by an open run.
create table engine.requests (
    run_id     uuid not null,
    request_id text not null,
    primary key (run_id, request_id)
);

-- Queries waiting for a worker, of whatever process. Losing them in a crash is harmless: the caller asks again.
create unlogged table engine.queries (
    query_id   uuid primary key,
    run_id     uuid not null,
    task_queue text not null,
    asked_at   timestamptz not null default clock_timestamp(),
    taken      boolean not null default false,
    query      bytea not null,
    answer     bytea
);
create index queries_waiting on engine.queries (task_queue, asked_at) where not taken;
