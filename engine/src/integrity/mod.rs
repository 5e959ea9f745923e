//! Verifies what is stored: every history by itself, and every open run against its history. Writes nothing.
//!
//! Reads one snapshot of the database, runs in pages and their histories as streams, so memory is bounded by what one run has pending;
//! it may run while engines are working.

mod history;
mod run;
mod tables;

use std::collections::HashMap;

use futures::TryStreamExt;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use self::{
    history::Course,
    run::{OpenRun, Rows},
};
use crate::{error::EngineError, store};

/// Runs whose rows are held in memory at once.
const PAGE: i64 = 200;

/// Something that should not be possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The workflow; empty if no row says.
    pub workflow_id: String,
    /// The run; none if the problem is about a workflow id.
    pub run_id: Option<Uuid>,
    /// The event, if it is about one.
    pub event_id: Option<i64>,
    /// What is wrong, for people.
    pub what: String,
}

/// What has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Open runs.
    pub open: u64,
    /// Closed runs.
    pub closed: u64,
    /// Events of both.
    pub events: u64,
    /// Problems reported.
    pub problems: u64,
}

/// A row of `engine.executions`.
#[derive(sqlx::FromRow)]
struct Execution {
    run_id: Uuid,
    workflow_id: String,
    status: i16,
    close_time: Option<chrono::DateTime<chrono::Utc>>,
    history_length: i64,
}

/// An append of a history.
#[derive(sqlx::FromRow)]
struct Append {
    run_id: Uuid,
    first_event_id: i64,
    last_event_id: i64,
    data: Vec<u8>,
}

/// Verifies the engine's tables; each problem goes to `report` as it is found.
///
/// # Errors
/// When the database cannot be read. A history that cannot be decoded is a problem, not an error.
pub async fn check(pool: &PgPool, mut report: impl FnMut(Problem) + Send) -> Result<Checked, EngineError> {
    let mut snapshot = store::begin(pool).await?;
    sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *snapshot).await?;
    let checked = check_within(&mut snapshot, &mut report).await?;
    snapshot.rollback().await?;
    Ok(checked)
}

/// Like [`check`], on a connection that sees a single state of the database.
///
/// # Errors
/// As [`check`].
#[doc(hidden)]
pub async fn check_within(
    connection: &mut PgConnection,
    mut report: impl FnMut(Problem) + Send,
) -> Result<Checked, EngineError> {
    let mut checked = Checked::default();
    let mut problems = 0;
    let mut report = |problem: Problem| {
        problems += 1;
        report(problem);
    };
    tables::check(connection, &mut report).await?;
    let mut after = None;
    loop {
        let page = executions(connection, after).await?;
        let Some(last) = page.last().map(|e| e.run_id) else { break };
        after = Some(last);
        runs(connection, page, &mut checked, &mut report).await?;
    }
    checked.problems = problems;
    Ok(checked)
}

async fn executions(connection: &mut PgConnection, after: Option<Uuid>) -> Result<Vec<Execution>, sqlx::Error> {
    sqlx::query_as(
        "select run_id, workflow_id, status, close_time, history_length from engine.executions
         where $1::uuid is null or run_id > $1 order by run_id limit $2",
    )
    .bind(after)
    .bind(PAGE)
    .fetch_all(connection)
    .await
}

async fn runs(
    connection: &mut PgConnection,
    page: Vec<Execution>,
    checked: &mut Checked,
    report: &mut (dyn FnMut(Problem) + Send),
) -> Result<(), EngineError> {
    let ids: Vec<Uuid> = page.iter().map(|e| e.run_id).collect();
    let mut rows: HashMap<Uuid, Rows> = run::load(connection, &ids).await?;
    let mut executions = page.into_iter();
    let mut current: Option<(Execution, Course)> = executions.next().map(|e| (e, Course::default()));
    let mut appends = sqlx::query_as::<_, Append>(
        "select run_id, first_event_id, last_event_id, data from engine.history
         where run_id = any($1) order by run_id, first_event_id",
    )
    .bind(&ids)
    .fetch(connection);
    while let Some(append) = appends.try_next().await? {
        while let Some((execution, _)) = &current
            && execution.run_id != append.run_id
        {
            let done = current.take();
            finish(done, &mut rows, checked, report);
            current = executions.next().map(|e| (e, Course::default()));
        }
        if let Some((_, course)) = &mut current {
            course.append(append.first_event_id, append.last_event_id, &append.data);
        }
    }
    drop(appends);
    while current.is_some() {
        finish(current.take(), &mut rows, checked, report);
        current = executions.next().map(|e| (e, Course::default()));
    }
    Ok(())
}

/// Checks a run whose history has been read to its end.
fn finish(
    run: Option<(Execution, Course)>,
    rows: &mut HashMap<Uuid, Rows>,
    checked: &mut Checked,
    report: &mut (dyn FnMut(Problem) + Send),
) {
    let Some((execution, mut course)) = run else { return };
    let rows = rows.remove(&execution.run_id).unwrap_or_default();
    checked.events += u64::try_from(course.last_event_id()).unwrap_or(0);
    if execution.status == 1 {
        checked.open += 1;
    } else {
        checked.closed += 1;
    }
    rows.all_readable(&mut course);
    course.compare_execution(execution.status, execution.close_time, execution.history_length);
    match (&rows.run, execution.status == 1) {
        (Some(open), true) => {
            let open: &OpenRun = open;
            course.compare_open(open, &rows);
        }
        (None, true) => course.note(None, "the run is open and has no row in engine.runs"),
        (Some(_), false) => course.note(None, "the run is closed and has a row in engine.runs"),
        (None, false) => rows.none_left(&mut course),
    }
    for (event_id, what) in course.into_problems() {
        let workflow_id = execution.workflow_id.clone();
        report(Problem { workflow_id, run_id: Some(execution.run_id), event_id, what });
    }
}
