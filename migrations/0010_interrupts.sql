-- Sessions whose agent waits for people, and those whose runner has to be told something besides messages. Rows of earlier releases have
-- neither: what the columns hold for them is their default.
alter table ambient.sessions add column waiting integer not null default 0;
alter table ambient.sessions add column runner_due boolean not null default false;
create index sessions_waiting on ambient.sessions (project_id, id) where waiting > 0 and deleted_at is null;
