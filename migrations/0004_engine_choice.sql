-- What runs the workflows of this database: one row, written by the first server. Executions live where they began, so another
-- choice is taken only when nothing is open there.
create table ambient.engine_choice (
    only_row     boolean primary key default true check (only_row),
    -- 'embedded' or 'temporal'
    engine       text not null check (engine in ('embedded', 'temporal')),
    -- with Temporal: name of the namespace, and its id once a server has seen it
    namespace    text not null default '',
    namespace_id text not null default '',
    -- nothing new is started
    draining     boolean not null default false,
    chosen_at    timestamptz not null default clock_timestamp()
);
-- A database that has the embedded engine's tables has used it.
insert into ambient.engine_choice (engine)
select 'embedded' where to_regclass('engine.executions') is not null;
