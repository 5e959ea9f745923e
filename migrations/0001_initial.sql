-- First schema. Forward only: a published file never changes.
-- Ids are KSUIDs and sort by byte, whatever the database's locale: every id column is COLLATE "C", so that rows locked
-- "in order of id" are locked in the same order everywhere.

------------------------------------------------------------------------------------------------------------------------
-- Operations: the append-only truth.
------------------------------------------------------------------------------------------------------------------------

create table ambient.operations (
    id             text collate "C" not null,
    entity_kind    text collate "C" not null,
    entity_id      text collate "C" not null,
    version        bigint not null check (version > 0),
    project_id     text collate "C" not null,
    command        text not null,
    schema_version integer not null,
    -- Canonical JSON (RFC 8785): the bytes are what the hash covers, so they are kept as bytes.
    input          bytea not null,
    events         bytea not null,
    context        bytea not null,
    principal      text not null,
    correlation_id text not null,
    causation_id   text,
    trace_parent   text,
    occurred_at    timestamptz not null,
    -- Feeds over many entities read by (xid, position) below the oldest running transaction: identity order is not commit order.
    xid            xid8 not null default pg_current_xact_id(),
    position       bigint generated always as identity,
    previous_hash  bytea not null,
    hash           bytea not null,
    -- The single-writer guarantee: of two servers that both decide on version n, one appends n + 1.
    primary key (entity_kind, entity_id, version),
    unique (id)
);
create index operations_feed on ambient.operations (xid, position);
create index operations_of_project on ambient.operations (project_id, xid, position);
create index operations_of_correlation on ambient.operations (correlation_id);
create index operations_of_principal on ambient.operations (principal, xid, position);

create function ambient.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'ambient.% is append-only', tg_table_name;
end $$;
create trigger operations_append_only before update or delete or truncate on ambient.operations
    for each statement execute function ambient.refuse_change();

------------------------------------------------------------------------------------------------------------------------
-- Entity rows: what lists and searches read. Pure functions of the operations.
-- Every entity table has: id, project_id, version, schema_version, last_operation_id, last_hash, state, created_at,
-- updated_at, deleted_at; the other columns are for filters and order.
------------------------------------------------------------------------------------------------------------------------

create table ambient.projects (
    id                text collate "C" primary key,
    project_id        text collate "C" not null,
    version           bigint not null,
    schema_version    integer not null,
    last_operation_id text collate "C" not null,
    last_hash         bytea not null,
    state             jsonb not null,
    created_at        timestamptz not null,
    updated_at        timestamptz not null,
    deleted_at        timestamptz,
    name              text collate "C" not null,
    display_name      text not null,
    phase             text not null,
    provisioned       boolean not null,
    -- 'user:alice', 'group:staff'
    members           text[] not null,
    labels            jsonb not null
);
create index projects_by_name on ambient.projects (name) where deleted_at is null;
create index projects_by_creation on ambient.projects (created_at, id) where deleted_at is null;
create index projects_by_member on ambient.projects using gin (members) where deleted_at is null;

create table ambient.sessions (
    id                  text collate "C" primary key,
    project_id          text collate "C" not null,
    version             bigint not null,
    schema_version      integer not null,
    last_operation_id   text collate "C" not null,
    last_hash           bytea not null,
    state               jsonb not null,
    created_at          timestamptz not null,
    updated_at          timestamptz not null,
    deleted_at          timestamptz,
    display_name        text not null,
    -- null = never started
    phase               text,
    agent               text not null,
    interactive         boolean not null,
    llm_model           text,
    run                 bigint not null,
    attempt             integer not null,
    generation          bigint not null,
    observed_generation bigint not null,
    created_by          text not null,
    parent_session_id   text collate "C",
    start_time          timestamptz,
    completion_time     timestamptz,
    labels              jsonb not null
);
create index sessions_of_project on ambient.sessions (project_id, created_at, id) where deleted_at is null;
create index sessions_by_creation on ambient.sessions (created_at, id) where deleted_at is null;
create index sessions_underway on ambient.sessions (id)
    where deleted_at is null and phase in ('Pending', 'Creating', 'Running', 'Stopping');
create index sessions_by_labels on ambient.sessions using gin (labels jsonb_path_ops) where deleted_at is null;

-- Hot values of a session that are not functions of its operations.
create table ambient.session_runtime (
    session_id       text collate "C" primary key,
    last_activity_at timestamptz not null,
    -- Last message the runner has recorded as accepted; moves forwards only.
    delivered_seq    bigint not null default 0,
    -- Compute host of the current run.
    launch_host      text,
    usage            jsonb not null default '{}'
) with (fillfactor = 70);

------------------------------------------------------------------------------------------------------------------------
-- Names, effects, repeated requests.
------------------------------------------------------------------------------------------------------------------------

create table ambient.names (
    scope     text collate "C" not null,
    name      text collate "C" not null,
    entity_id text collate "C" not null,
    primary key (scope, name)
);

create table ambient.outbox (
    position      bigint generated always as identity primary key,
    entity_kind   text collate "C" not null,
    entity_id     text collate "C" not null,
    operation_id  text collate "C" not null,
    workflow_id   text collate "C" not null,
    effect        jsonb not null,
    attempts      integer not null default 0,
    next_at       timestamptz not null default now(),
    claimed_until timestamptz,
    last_error    text,
    parked_reason text,
    parked_at     timestamptz,
    done_at       timestamptz,
    created_at    timestamptz not null default now()
);
create index outbox_open on ambient.outbox (position) where done_at is null and parked_reason is null;
create index outbox_open_of_entity on ambient.outbox (entity_kind, entity_id, position)
    where done_at is null and parked_reason is null;
create index outbox_open_of_workflow on ambient.outbox (workflow_id) where done_at is null;
create index outbox_done on ambient.outbox (done_at) where done_at is not null;

create table ambient.idempotency (
    principal    text not null,
    method       text not null,
    path         text not null,
    key          text not null,
    request_hash bytea not null,
    -- null when there was nothing to do
    operation_id text collate "C",
    outcome      text not null check (outcome in ('applied', 'already')),
    entity_kind  text collate "C" not null,
    entity_id    text collate "C" not null,
    version      bigint not null,
    state        jsonb not null,
    created_at   timestamptz not null default now(),
    primary key (principal, method, path, key)
);
create index idempotency_by_age on ambient.idempotency (created_at);

------------------------------------------------------------------------------------------------------------------------
-- Live log.
------------------------------------------------------------------------------------------------------------------------

-- The row's lock makes commit order equal seq order.
create table ambient.session_streams (
    session_id text collate "C" primary key,
    -- The next seq to be given; the first is 1.
    next_seq   bigint not null default 1 check (next_seq > 0)
) with (fillfactor = 50);

create table ambient.session_events (
    session_id   text collate "C" not null,
    seq          bigint not null,
    at           timestamptz not null,
    type         text not null,
    data         jsonb not null,
    message_id   text collate "C",
    run          bigint,
    -- Position in the runner's own log; null for events of the platform.
    log_id       text collate "C",
    runner_seq   bigint,
    operation_id text collate "C",
    primary key (session_id, seq),
    unique (session_id, log_id, runner_seq)
) partition by hash (session_id);
create unique index session_events_message on ambient.session_events (session_id, message_id) where message_id is not null;

do $$ begin
    for i in 0..15 loop
        execute format(
            'create table ambient.session_events_%s partition of ambient.session_events for values with (modulus 16, remainder %s)',
            lpad(i::text, 2, '0'), i);
    end loop;
end $$;

create table ambient.runner_leases (
    session_id text collate "C" not null,
    run        bigint not null,
    holder     text not null,
    -- Grows with every change of holder; fences off the former one.
    epoch      bigint not null,
    expires_at timestamptz not null,
    primary key (session_id, run)
);

create table ambient.runner_cursors (
    session_id text collate "C" not null,
    log_id     text collate "C" not null,
    run        bigint not null,
    cursor     bigint not null,
    epoch      bigint not null,
    primary key (session_id, log_id)
);

-- Messages up to covers_seq in one piece; the tail begins at covers_seq + 1.
create table ambient.snapshots (
    session_id text collate "C" not null,
    covers_seq bigint not null,
    data       jsonb not null,
    created_at timestamptz not null default now(),
    primary key (session_id, covers_seq)
);

------------------------------------------------------------------------------------------------------------------------
-- Vault.
------------------------------------------------------------------------------------------------------------------------

-- Keys of the server, sealed under the key-encryption key that the binary reads from a file.
create table ambient.server_keys (
    id         text collate "C" primary key,
    purpose    text not null check (purpose in ('seal', 'token')),
    sealed     bytea not null,
    active     boolean not null default true,
    created_at timestamptz not null default now()
);
create unique index server_keys_active on ambient.server_keys (purpose) where active;

create table ambient.sealed_values (
    id         text collate "C" primary key,
    key_id     text collate "C" not null references ambient.server_keys (id),
    sealed     bytea not null,
    updated_at timestamptz not null default now()
);
create index sealed_values_of_key on ambient.sealed_values (key_id);
