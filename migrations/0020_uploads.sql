-- Files that people hand in while no run of the session is underway. They wait here until a runner has them.
create table ambient.uploads (
    session_id  text collate "C" not null,
    path        text collate "C" not null,
    content     bytea       not null,
    sha256      text        not null,
    executable  boolean     not null,
    uploaded_by text        not null,
    uploaded_at timestamptz not null default now(),
    primary key (session_id, path)
);
alter table ambient.uploads alter column content set storage external;
