-- Where a session's workspace is, and which of its runs' tokens are revoked.
alter table ambient.session_runtime
    -- Tokens of runs up to this one open nothing any more.
    add column revoked_run bigint not null default 0,
    add column workspace_deleted_at timestamptz;
