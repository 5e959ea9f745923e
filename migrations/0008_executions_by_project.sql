-- Executions of the embedded engine that began before executions had a search attribute of their project. Those of a database that the
-- engine is new to all have it.
do $$ begin
    if to_regclass('engine.search_attributes') is not null then
        update engine.executions e
        set attributes = coalesce(e.attributes, '{}') || jsonb_build_object('AmbientProjectId', entity.project_id)
        from (
            select id, project_id from ambient.sessions
            union all
            select id, id from ambient.projects
        ) entity
        where entity.id = split_part(e.workflow_id, '/', 2);
    end if;
end $$;
