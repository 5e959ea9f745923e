-- What turns came to, and what model calls have used: written with the events of the runners' logs that say so, and kept when those are
-- removed. Turns that earlier releases recorded are not in it.
create table ambient.session_turns (
    session_id          text        not null,
    run                 bigint      not null,
    number              bigint      not null,
    message_id          text        not null,
    first_seq           bigint      not null,
    last_seq            bigint,
    started_at          timestamptz not null,
    ended_at            timestamptz,
    outcome             text,
    code                text,
    message             text,
    exit_code           integer,
    stop_reason         text,
    tool_calls          bigint      not null default 0,
    permission_requests bigint      not null default 0,
    -- In the order in which they were told: [{repo, snapshot | failed | pushed | position}].
    repos               jsonb       not null default '[]',
    primary key (session_id, run, number)
);

-- A row per turn, counter and model. Calls outside of any turn are in turn 0.
create table ambient.model_usage (
    session_id          text        not null,
    run                 bigint      not null,
    turn                bigint      not null,
    source              text        not null,
    model               text        not null,
    project_id          text        not null,
    at                  timestamptz not null,
    calls               bigint      not null,
    input_tokens        bigint      not null,
    cached_input_tokens bigint      not null,
    output_tokens       bigint      not null,
    reasoning_tokens    bigint      not null,
    cost_micros         bigint      not null,
    currency            text        not null,
    primary key (session_id, run, turn, source, model)
);
create index model_usage_of_projects on ambient.model_usage (project_id, at);

insert into ambient.model_usage
    select e.session_id, e.run, 0, 'proxy', '', s.project_id, max(e.at), count(*),
           sum(coalesce((e.data->>'input_tokens')::numeric, 0))::bigint, sum(coalesce((e.data->>'cached_input_tokens')::numeric, 0))::bigint,
           sum(coalesce((e.data->>'output_tokens')::numeric, 0))::bigint, sum(coalesce((e.data->>'reasoning_tokens')::numeric, 0))::bigint,
           sum(coalesce((e.data->>'cost_micros')::numeric, 0))::bigint, coalesce(max(e.data->>'currency'), '')
    from ambient.session_events e join ambient.sessions s on s.id = e.session_id
    where e.type = 'usage' and e.data->>'source' = 'proxy' and e.run is not null
    group by e.session_id, e.run, s.project_id;
drop index ambient.session_events_usage;
