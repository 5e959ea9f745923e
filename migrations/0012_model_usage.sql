-- What model calls have used is added up before a session starts; nothing else of a log is looked for by its type.
create index session_events_usage on ambient.session_events (session_id, run) where type = 'usage';
