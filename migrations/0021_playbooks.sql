-- What the playbook of a session has, as its runner has read it: for people who look when no run is underway.
create table ambient.playbooks (
    session_id text collate "C" primary key,
    commit     text  not null,
    metadata   jsonb not null
);
