-- Key of the advisory lock that a process holds as long as it has its connection.
create function engine.presence(process uuid) returns bigint language sql immutable as
$$ select hashtextextended('ambient engine ' || process, 0) $$;
