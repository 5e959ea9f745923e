//! What the tables say about each other, without histories.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Problem;

/// What is wrong, and the affected rows: workflow id and run.
const RULES: &[(&str, &str)] = &[
    (
        "a row in engine.runs without an execution",
        "select r.workflow_id, r.run_id from engine.runs r
         where not exists (select 1 from engine.executions e where e.run_id = r.run_id)",
    ),
    (
        "the run is open and is not the latest of its workflow id",
        "select r.workflow_id, r.run_id from engine.runs r
         where not exists (select 1 from engine.workflows w where w.workflow_id = r.workflow_id and w.run_id = r.run_id)",
    ),
    (
        "the latest run of the workflow id does not exist",
        "select w.workflow_id, w.run_id from engine.workflows w
         where not exists (select 1 from engine.executions e where e.run_id = w.run_id)",
    ),
    (
        "the status of the workflow id is not that of its latest run",
        "select w.workflow_id, w.run_id from engine.workflows w join engine.executions e using (run_id)
         where e.status <> w.status or e.workflow_id <> w.workflow_id",
    ),
    (
        "engine.runs and engine.executions differ in workflow id, type or task queue",
        "select r.workflow_id, r.run_id from engine.runs r join engine.executions e using (run_id)
         where (r.workflow_id, r.workflow_type, r.task_queue) is distinct from (e.workflow_id, e.workflow_type, e.task_queue)",
    ),
    (
        "a history without an execution",
        "select distinct null::text, h.run_id from engine.history h
         where not exists (select 1 from engine.executions e where e.run_id = h.run_id)",
    ),
    (
        "an activity of no run",
        "select distinct a.workflow_id, a.run_id from engine.activities a
         where not exists (select 1 from engine.runs r where r.run_id = a.run_id)",
    ),
    (
        "a timer of no run",
        "select distinct null::text, x.run_id from engine.timers x
         where not exists (select 1 from engine.runs r where r.run_id = x.run_id)",
    ),
    (
        "a child of no run",
        "select distinct null::text, x.run_id from engine.children x
         where not exists (select 1 from engine.runs r where r.run_id = x.run_id)",
    ),
    (
        "a request id of no run",
        "select distinct null::text, x.run_id from engine.requests x
         where not exists (select 1 from engine.runs r where r.run_id = x.run_id)",
    ),
    (
        "work is owed by a run that does not exist",
        "select distinct null::text, x.source_run_id from engine.effects x
         where not exists (select 1 from engine.executions e where e.run_id = x.source_run_id)",
    ),
];

/// Rows shown of each kind; if there are more, one line says so.
const SHOWN: i64 = 1000;

pub(super) async fn check(
    connection: &mut PgConnection,
    report: &mut (dyn FnMut(Problem) + Send),
) -> Result<(), sqlx::Error> {
    for (what, sql) in RULES {
        let limited = format!("{sql} limit {}", SHOWN + 1);
        let rows: Vec<(Option<String>, Uuid)> =
            sqlx::query_as(sqlx::AssertSqlSafe(limited)).fetch_all(&mut *connection).await?;
        let more = i64::try_from(rows.len()).is_ok_and(|n| n > SHOWN);
        for (workflow_id, run_id) in rows.into_iter().take(usize::try_from(SHOWN).unwrap_or(0)) {
            let workflow_id = workflow_id.unwrap_or_default();
            report(Problem { workflow_id, run_id: Some(run_id), event_id: None, what: (*what).to_owned() });
        }
        if more {
            let what = format!("{what}: more than {SHOWN}");
            report(Problem { workflow_id: String::new(), run_id: None, event_id: None, what });
        }
    }
    Ok(())
}
