-- What a session runs is its agent type; an agent is a definition, which a session may name. The operations stay as they were
-- written (their hashes cover the bytes) and are read under both names; rows are what this release makes of them.
alter table ambient.sessions rename column agent to agent_type;
alter table ambient.sessions add column agent_id text collate "C";
update ambient.sessions
set spec = (spec - 'agent') || jsonb_build_object('agent_type', spec -> 'agent')
where spec ? 'agent';
create index sessions_of_agent on ambient.sessions (agent_id, created_at, id) where agent_id is not null and deleted_at is null;
