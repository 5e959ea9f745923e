-- How far the facts of a runner's log have been reported: they are derived from the stored log, so that they never overtake it,
-- and a crash between storing and reporting loses none.
alter table ambient.runner_cursors
    add column facts_reported bigint not null default 0,
    -- Attempt in force at facts_reported; 0 = none has begun.
    add column facts_attempt  integer not null default 0;

-- Messages of a run after delivered_seq, without a walk through what the agent said since.
create index session_events_messages on ambient.session_events (session_id, run, seq) where message_id is not null;
