//! What retention would remove now. Nothing is changed.

use ambient_domain::retention::KeptDays;
use sqlx::{AssertSqlSafe, FromRow};

use crate::{
    database::Database,
    error::StoreError,
    retention::{WORKSPACE, over},
};

/// Events of a session whose sizes are looked at.
const SAMPLE: i64 = 100;

/// A session that would lose something.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct SessionLoss {
    /// Session id.
    pub id: String,
    /// Its name.
    pub display_name: String,
    /// Events that would be removed.
    pub events: i64,
    /// Their payloads as they are stored, bytes, estimated from the first 100.
    pub event_bytes: i64,
    /// Whether its workspace would be.
    pub workspace: bool,
    /// The host that has it.
    pub host: Option<String>,
    /// Stored packs of its turns' snapshots, bytes, as its turns say.
    pub snapshot_bytes: i64,
    /// Sessions in all, of which this list has the first.
    pub all_sessions: i64,
    /// Events of all of them.
    pub all_events: i64,
    /// Workspaces.
    pub all_workspaces: i64,
    /// Packs, bytes.
    pub all_snapshot_bytes: i64,
}

impl Database {
    /// Sessions of a project that would lose something if this were in force, the first by id, at most `limit`; with the totals.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn retention_preview(
        &self,
        project_id: &str,
        kept: KeptDays,
        limit: i64,
    ) -> Result<Vec<SessionLoss>, StoreError> {
        let sql = format!(
            "with finished as (
                 select s.id, s.display_name, t.launch_host, coalesce(r.retained_from_seq, 1) as first, n.covers_seq, n.created_at,
                        {WORKSPACE} as has_workspace, t.last_activity_at, r.snapshots_removed_at,
                        s.deleted_at is null as has_snapshots
                 from ambient.sessions s
                 left join ambient.session_runtime t on t.session_id = s.id
                 left join ambient.session_retention r on r.session_id = s.id
                 left join lateral (
                     select covers_seq, created_at from ambient.snapshots where session_id = s.id order by covers_seq desc limit 1) n on true
                 where s.project_id = $1 and {}),
             due as (
                 select id, display_name, launch_host as host, first, covers_seq,
                        case when $2 > 0 and created_at < clock_timestamp() - $2 * interval '1 day'
                             then greatest(covers_seq - first + 1, 0) else 0 end as events,
                        $3 > 0 and has_workspace and last_activity_at < clock_timestamp() - $3 * interval '1 day' as workspace,
                        case when $4 > 0 and has_snapshots and last_activity_at < clock_timestamp() - $4 * interval '1 day'
                                  and (snapshots_removed_at is null or snapshots_removed_at < last_activity_at) then (
                            select case when max(coalesce(u.ended_at, u.started_at)) < clock_timestamp() - $4 * interval '1 day'
                                        then least(sum(u.bytes), 9e18)::bigint else 0 end
                            from (select t.started_at, t.ended_at, (
                                      select sum((p ->> 'bytes')::numeric) from jsonb_path_query(t.repos, '$[*].snapshot.packs[*]') p
                                      where p ->> 'base' is null) as bytes
                                  from ambient.session_turns t where t.session_id = f.id) u) end as snapshot_bytes
                 from finished f),
             counted as (
                 select id, display_name, host, first, covers_seq, events, coalesce(workspace, false) as workspace,
                        coalesce(snapshot_bytes, 0) as snapshot_bytes
                 from due),
             listed as (
                 select *, count(*) over () as all_sessions, (sum(events) over ())::bigint as all_events,
                        count(*) filter (where workspace) over () as all_workspaces,
                        least(sum(snapshot_bytes) over (), 9e18)::bigint as all_snapshot_bytes
                 from counted where events > 0 or workspace or snapshot_bytes > 0 order by id limit $5)
             select l.id, l.display_name, l.events, l.workspace, l.host, l.snapshot_bytes, l.all_sessions, l.all_events, l.all_workspaces,
                    l.all_snapshot_bytes, case when l.events > 0 then (
                        select coalesce(avg(bytes) * l.events, 0)::bigint from (
                            select pg_column_size(e.data) as bytes from ambient.session_events e
                            where e.session_id = l.id and e.seq between l.first and l.covers_seq order by e.seq limit $6) sample) else 0 end
                        as event_bytes
             from listed l order by l.id",
            over()
        );
        let [events, workspaces, snapshots] = [kept.events, kept.workspaces, kept.snapshots].map(f64::from);
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(project_id).bind(events).bind(workspaces).bind(snapshots);
        Ok(query.bind(limit).bind(SAMPLE).fetch_all(self.pool()).await?)
    }
}
