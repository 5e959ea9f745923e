-- Definitions: agents and repository references. Their names are claimed in ambient.names, so no index makes them unique here.

create table ambient.agents (
    id                text collate "C" primary key,
    project_id        text collate "C" not null,
    version           bigint not null,
    schema_version    integer not null,
    last_operation_id text collate "C" not null,
    last_hash         bytea not null,
    state             jsonb not null,
    spec              jsonb,
    created_at        timestamptz not null,
    updated_at        timestamptz not null,
    deleted_at        timestamptz,
    name              text collate "C" not null,
    created_by        text not null,
    labels            jsonb not null,
    display_name      text not null,
    -- null = left to the session
    agent_type        text,
    llm_model         text
);
create index agents_of_project on ambient.agents (project_id, created_at, id) where deleted_at is null;

create table ambient.repository_refs (
    id                text collate "C" primary key,
    project_id        text collate "C" not null,
    version           bigint not null,
    schema_version    integer not null,
    last_operation_id text collate "C" not null,
    last_hash         bytea not null,
    state             jsonb not null,
    spec              jsonb,
    created_at        timestamptz not null,
    updated_at        timestamptz not null,
    deleted_at        timestamptz,
    name              text collate "C" not null,
    created_by        text not null,
    labels            jsonb not null,
    url               text not null,
    -- null = the remote's default
    branch            text,
    -- as given, else the URL's
    provider          text not null,
    owner             text,
    repo_name         text not null
);
create index repository_refs_of_project on ambient.repository_refs (project_id, created_at, id) where deleted_at is null;
