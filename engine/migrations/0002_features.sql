-- Updates, and what reset needs.

-- Updates in flight (admitted or accepted), and how many there have been: an encoded record, empty for most runs.
alter table engine.runs add column updates bytea not null default '';
-- The run this one was reset to.
alter table engine.executions add column reset_run_id uuid;
create index executions_reset on engine.executions (reset_run_id) where reset_run_id is not null;

-- Updates a run has accepted, open or closed: where their events are. completed_event_id is 0 until there is an outcome.
create table engine.updates (
    run_id             uuid not null,
    update_id          text not null,
    accepted_event_id  bigint not null,
    completed_event_id bigint not null,
    primary key (run_id, update_id)
) with (fillfactor = 80);

-- A query that is not ready goes only with a workflow task of its run.
alter table engine.queries add column ready boolean not null default true;

-- Why updates were rejected, for whoever still waits for one. A rejection leaves no event; losing the row in a crash is
-- harmless: the caller asks again. Wall clock.
create unlogged table engine.update_rejections (
    admission   uuid primary key,
    rejected_at timestamptz not null default clock_timestamp(),
    failure     bytea not null
);
