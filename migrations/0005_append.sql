-- The append at full speed (decision 0013).

-- What is asked for stands apart from how it is, so that a fact does not write a long prompt anew. Null for a kind without spec.
alter table ambient.projects add column spec jsonb;
update ambient.projects set spec = state -> 'spec', state = state - 'spec';
alter table ambient.sessions add column spec jsonb;
update ambient.sessions set spec = state -> 'spec', state = state - 'spec';
-- Room in a page for the next version of a row: then no index is written for it.
alter table ambient.projects set (fillfactor = 80);
alter table ambient.sessions set (fillfactor = 70);

-- Messages of people and the agent that began, which pages of them tell as their total.
alter table ambient.session_streams add column messages bigint not null default 0;
update ambient.session_streams s set messages = e.messages from (
    select session_id, count(*) as messages from ambient.session_events
    where type in ('user.message', 'TEXT_MESSAGE_START') group by session_id) e
where e.session_id = s.session_id;

-- An answer is that of the entity at a version, which its operations give.
alter table ambient.idempotency drop column state;

-- Events of the platform have no place in a runner's log, and no entry in its index.
alter table ambient.session_events drop constraint session_events_session_id_log_id_runner_seq_key;
create unique index session_events_of_runner on ambient.session_events (session_id, log_id, runner_seq) where log_id is not null;

-- Ends a statement that has not written all it had to, so that nothing of it stays.
create function ambient.expect(written boolean) returns boolean language plpgsql as $$
begin
    if written is not true then
        raise exception 'not all was written' using errcode = 'AM001';
    end if;
    return true;
end $$;
