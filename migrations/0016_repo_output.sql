-- Where a repository's commits go is an output and a switch; it was the name of a branch. The operations stay as they were written (their
-- hashes cover the bytes) and are read in both forms; rows are what this release makes of them.
update ambient.sessions s
set spec = jsonb_set(s.spec, '{repos}', (
    select jsonb_agg(case when repo ? 'push_to'
                          then (repo - 'push_to') || jsonb_build_object(
                              'output', jsonb_build_object('push_to', 'same', 'target_branch', repo -> 'push_to'), 'auto_push', true)
                          else repo end order by place)
    from jsonb_array_elements(s.spec -> 'repos') with ordinality as given (repo, place)))
where exists (select from jsonb_array_elements(s.spec -> 'repos') as given (repo) where repo ? 'push_to');

-- What runs came to: written with the events of the runners' logs that say so, and kept when those are removed.
create table ambient.session_runs (
    session_id    text   not null,
    run           bigint not null,
    -- By name: {status, url, branch, commit, message, at}.
    repo_statuses jsonb  not null default '{}',
    -- What the agent said last, as of the end of the last turn.
    results       text,
    -- Why the last turn did not finish.
    error         text,
    primary key (session_id, run)
);
