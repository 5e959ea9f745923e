//! The check of what is stored: silent on what engines write, but not on anything else. Retention.
#![allow(clippy::disallowed_methods, reason = "nobody gives a test's transactions up")]

use std::time::Duration;

use ambient_engine::integrity::{self, Problem};
use ambient_tests::TestDatabase;
use sqlx::{AssertSqlSafe, PgPool};
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions};

use crate::{
    flows,
    harness::{Host, eventually, options},
};

async fn problems(pool: &PgPool) -> Vec<Problem> {
    let mut found = Vec::new();
    let checked = integrity::check(pool, |problem| found.push(problem)).await.unwrap();
    assert_eq!(checked.problems, found.len() as u64);
    found
}

/// Runs of several kinds, closed and open: with a timer, a pending activity, a child, waiting for a signal.
async fn various(host: &Host) {
    let done = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("done")).await.unwrap();
    done.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    let inbox = host.client.start_workflow(flows::Inbox::run, 2usize, options("inbox")).await.unwrap();
    inbox.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    host.client.start_workflow(flows::Sleeper::run, 3600u64, options("sleeper")).await.unwrap();
    host.client.start_workflow(flows::Hangs::run, 0u64, options("hangs")).await.unwrap();
    let guardian = flows::Policy::Terminate;
    host.client.start_workflow(flows::Guardian::run, guardian, options("guardian")).await.unwrap();
    host.probe.started.notified().await;
    let inbox = host.client.get_workflow_handle::<flows::Inbox>("inbox");
    eventually("the first signal", || async {
        let got = inbox.query(flows::Inbox::list, (), Default::default()).await.ok()?;
        (got.len() == 1).then_some(())
    })
    .await;
}

async fn settled(pool: &PgPool) {
    eventually("all is quiet", || async {
        let quiet: bool = sqlx::query_scalar(
            "select not exists (select from engine.runs where wft_state <> 0) and not exists (select from engine.effects)
                and exists (select from engine.timers) and exists (select from engine.activities)
                and exists (select from engine.children where started_event_id > 0)",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        quiet.then_some(())
    })
    .await;
}

/// One damage of each kind, and a word of the problem it must cause.
const DAMAGES: &[(&str, &str)] = &[
    ("delete from engine.history where run_id = (select run_id from engine.executions where workflow_id = 'done') and first_event_id = 1", "gap"),
    ("delete from engine.history h where first_event_id > 1 and run_id = (select run_id from engine.executions where workflow_id = 'done')
        and first_event_id = (select max(first_event_id) from engine.history x where x.run_id = h.run_id)", "history has no end"),
    ("delete from engine.history where run_id = (select run_id from engine.executions where workflow_id = 'inbox')", "no history"),
    ("update engine.history set data = '\\x0aff01' where run_id = (select run_id from engine.executions where workflow_id = 'done') and first_event_id = 1", "cannot be read"),
    ("update engine.history set last_event_id = last_event_id + 1 where run_id = (select run_id from engine.executions where workflow_id = 'done') and first_event_id = 1", "the append says"),
    ("insert into engine.history select gen_random_uuid(), 1, 1, ''", "a history without an execution"),
    ("update engine.executions set status = 3 where workflow_id = 'done'", "ends as Completed"),
    ("update engine.executions set close_time = close_time + interval '1 s' where workflow_id = 'done'", "close time"),
    ("update engine.executions set history_length = 3 where workflow_id = 'done'", "is said to have 3"),
    ("update engine.executions set status = 1, close_time = null where workflow_id = 'done'", "no row in engine.runs"),
    ("update engine.executions set status = 2 where workflow_id = 'sleeper'", "the run is closed and has a row in engine.runs"),
    ("delete from engine.executions where workflow_id = 'sleeper'", "without an execution"),
    ("delete from engine.runs where workflow_id = 'hangs'", "an activity of no run"),
    ("delete from engine.workflows where workflow_id = 'inbox'", "not the latest of its workflow id"),
    ("update engine.workflows set status = 2 where workflow_id = 'inbox'", "status of the workflow id"),
    ("update engine.runs set last_event_id = last_event_id + 1 where workflow_id = 'inbox'", "last event is said to be"),
    ("update engine.runs set previous_started_id = 0 where workflow_id = 'inbox'", "last completed workflow task"),
    ("update engine.runs set wft_state = 1, wft_ready_at = clock_timestamp(), wft_scheduled_id = 7 where workflow_id = 'sleeper'", "scheduled workflow task"),
    ("update engine.runs set wft_state = 2 where workflow_id = 'sleeper'", "started by nobody"),
    ("delete from engine.timers where run_id = (select run_id from engine.runs where workflow_id = 'sleeper')", "has no row"),
    ("update engine.timers set timer_id = 'other'", "pending in no event"),
    ("delete from engine.activities where workflow_id = 'hangs'", "has no row"),
    ("update engine.activities set scheduled_event_id = 99 where workflow_id = 'hangs'", "pending in no event"),
    ("update engine.activities set process = null where workflow_id = 'hangs'", "started by nobody"),
    ("update engine.activities set cancel_requested_id = 5 where workflow_id = 'hangs'", "to be cancelled"),
    ("delete from engine.children", "has no row"),
    ("update engine.children set started_event_id = 0", "said to have been started by event 0"),
    ("update engine.runs set open_children = 0 where workflow_id = 'guardian'", "0 open children"),
    ("insert into engine.requests select gen_random_uuid(), 'r'", "a request id of no run"),
    ("insert into engine.effects (effect_id, process, source_run_id, data) select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), ''", "work is owed"),
    // A signal that nobody will tell the workflow of.
    ("update engine.runs set wft_state = 0, wft_scheduled_id = 0 where workflow_id = 'late'", "cannot make progress"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_engines_write_is_sound_and_every_damage_is_found() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let host = Host::on(&database).await;
    let worker = host.worker();
    various(&host).await;
    settled(&pool).await;
    // Nobody polls for this one.
    host.client
        .start_workflow(
            flows::Inbox::run,
            1usize,
            temporalio_client::WorkflowStartOptions::new("nobody", "late").build(),
        )
        .await
        .unwrap();
    assert_eq!(problems(&pool).await, [], "as it is");
    for (damage, word) in DAMAGES {
        let mut found = Vec::new();
        // What follows sees the damage and leaves nothing of it.
        let mut template = pool.begin().await.unwrap();
        let changed = sqlx::query(AssertSqlSafe(*damage)).execute(&mut *template).await.unwrap();
        assert!(changed.rows_affected() > 0, "{damage}");
        integrity::check_within(&mut template, |problem| found.push(problem)).await.unwrap();
        template.rollback().await.unwrap();
        assert!(found.iter().any(|p| p.what.contains(word)), "{damage}: {word}: {found:?}");
    }
    assert_eq!(problems(&pool).await, [], "the check has changed nothing");
    host.probe.release.notify_waiters();
    host.probe.release.notify_one();
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_histories_go_after_their_time_and_open_ones_never() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    for n in 0..3 {
        let id = format!("old{n}");
        let done = host.client.start_workflow(flows::Three::run, "a".to_owned(), options(&id)).await.unwrap();
        done.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    }
    host.client.start_workflow(flows::Inbox::run, 1usize, options("open")).await.unwrap();
    assert_eq!(host.engine.remove_old().await.unwrap(), 0, "a week has not passed");
    host.engine.advance_clock(Duration::from_secs(7 * 24 * 3600 + 60)).await.unwrap();
    let young = host.client.start_workflow(flows::Three::run, "a".to_owned(), options("young")).await.unwrap();
    young.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    let (one, two) = tokio::join!(host.engine.remove_old(), host.engine.remove_old());
    assert_eq!(one.unwrap() + two.unwrap() + host.engine.remove_old().await.unwrap(), 3);
    let left: Vec<String> =
        sqlx::query_scalar("select workflow_id from engine.workflows order by 1").fetch_all(&pool).await.unwrap();
    assert_eq!(left, ["open", "young"]);
    let histories: i64 =
        sqlx::query_scalar("select count(distinct run_id) from engine.history").fetch_one(&pool).await.unwrap();
    assert_eq!(histories, 2);
    assert_eq!(problems(&pool).await, []);
    let open = host.client.get_workflow_handle::<flows::Inbox>("open");
    open.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
    open.get_result(WorkflowGetResultOptions::default()).await.unwrap();
}
