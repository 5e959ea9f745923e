-- What retention has removed of a session, so that everyone who misses it is told. Not a function of operations, like session_runtime.
create table ambient.session_retention (
    session_id              text collate "C" primary key,
    -- Events before this one are gone; there was a snapshot of all of them.
    retained_from_seq       bigint not null default 1,
    events_removed          bigint not null default 0,
    event_bytes_removed     bigint not null default 0,
    events_removed_at       timestamptz,
    -- The last run of which the workspace was removed; 0 = none. Once this is committed nothing works with those files any more.
    workspace_run           bigint not null default 0,
    workspace_removed_at    timestamptz,
    -- Its files are gone too.
    workspace_gone          boolean not null default true,
    workspace_bytes_removed bigint,
    snapshots_removed_at    timestamptz
);
create index session_retention_unfinished on ambient.session_retention (session_id) where not workspace_gone;

-- Projects of which somebody wants retention to be applied at once.
create table ambient.retention_requests (
    project_id   text collate "C" primary key,
    requested_at timestamptz not null,
    requested_by text not null,
    done_at      timestamptz
);
