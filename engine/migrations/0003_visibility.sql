-- What list and count can ask for, and what operators see of task queues.

-- Search attributes as JSON by name; null when there are none, so that runs without any cost the index nothing. Rows written before this
-- column have null as well: their attributes are described, not found.
alter table engine.executions add column attributes jsonb;
create index executions_by_attribute on engine.executions using gin (attributes jsonb_path_ops) where attributes is not null;
create index executions_by_close on engine.executions (close_time, run_id) where close_time is not null;
create index executions_by_parent on engine.executions (parent_workflow_id, start_time desc) where parent_workflow_id is not null;
create index executions_by_queue on engine.executions (task_queue, start_time desc);

-- Custom search attributes that may be set; a type (IndexedValueType) never changes.
create table engine.search_attributes (
    name text primary key,
    type smallint not null
);

-- Who polls which queue (kind: 1 workflow tasks, 2 activities) through which process, for people. Wall clock. Each process writes its own.
create unlogged table engine.pollers (
    process        uuid not null,
    kind           smallint not null,
    task_queue     text not null,
    identity       text not null,
    last_access_at timestamptz not null,
    primary key (process, kind, task_queue, identity)
);
create index pollers_queue on engine.pollers (task_queue, kind);
