-- What a repository reference leaves to its URL is derived with more care: hosts in any case and with a port, repeated slashes, `/.git`
-- at the end, percent-encoding (`provider`, `owner` and `repo_name` of `domain/src/repository_ref.rs`). The operations stay as they are.
with urls as (
    select id, spec, substring(url from '^[^:]*://([^/:]*)') as host,
        rtrim(regexp_replace(rtrim(substring(url from '^[^:]*://[^/]*/(.*)$'), '/'), '/\.git$', ''), '/') as path
    from ambient.repository_refs
), parts as (
    select id, spec, lower(host) as host, substring(path from '[^/]*$') as last,
        array_remove(string_to_array(case when host = '' then '' else path end, '/'), '') as segments
    from urls
)
update ambient.repository_refs r
set provider = coalesce(p.spec ->> 'provider', case
        when p.host = 'github.com' then 'github'
        when p.host = 'gitlab.com' then 'gitlab'
        else 'git'
    end),
    owner = coalesce(p.spec ->> 'owner', (
        select nullif(array_to_string(p.segments[:cardinality(p.segments) - 1], '/'), '')
        where array_to_string(p.segments[:cardinality(p.segments) - 1], '/') not like '%\%%'
    )),
    repo_name = coalesce(p.spec ->> 'repo_name', nullif(left(ltrim(regexp_replace(
        regexp_replace(p.last, '(\.git)+$', ''), '(%.{0,2}|[^A-Za-z0-9._-])+', '-', 'g'
    ), '.-'), 100), ''), 'repo')
from parts p
where p.id = r.id;
