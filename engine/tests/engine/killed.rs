//! A process killed with -9 during a reset, at each point of its transaction: afterwards all of it is there, or nothing.
//!
//! One of the test's triggers holds the process at the point where it should die, until it is dead.

use std::process::{Child, Command, Stdio};

use ambient_engine::integrity;
use ambient_tests::TestDatabase;
use sqlx::PgPool;
use temporalio_client::{WorkflowGetResultOptions, WorkflowSignalOptions, grpc::WorkflowService};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution, enums::v1::WorkflowExecutionStatus as Status,
    workflowservice::v1::ResetWorkflowExecutionRequest,
};
use tonic::IntoRequest;

use crate::{
    flows,
    harness::{Host, eventually, kinds, options},
};

const CHILD_DATABASE: &str = "ENGINE_TEST_CHILD_DATABASE";
const CHILD_WORKFLOW: &str = "ENGINE_TEST_CHILD_WORKFLOW";

/// Where the process dies, and whether the reset is there afterwards. The last one dies while the database is committing for it.
const MOMENTS: &[(&str, &str, bool)] = &[
    ("the-open-run-ends", "trigger held before delete on engine.runs for each row", false),
    (
        "the-id-names-the-new-run",
        "trigger held before update on engine.workflows for each row when (new.request_id like 'reset-%')",
        false,
    ),
    ("the-new-run-is-known", "trigger held before insert on engine.executions for each row", false),
    ("the-old-one-names-it", "trigger held before update of reset_run_id on engine.executions for each row", false),
    ("its-state-is-there", "trigger held before insert on engine.runs for each row", false),
    (
        "its-history-is-there",
        "trigger held before insert on engine.history for each row when (new.first_event_id = 1)",
        false,
    ),
    ("it-goes-on", "trigger held before update on engine.runs for each row", false),
    (
        "commit",
        "constraint trigger held after insert on engine.executions deferrable initially deferred for each row",
        true,
    ),
];

/// The reset of a workflow whose first task has ended at event 4; repeated, it is the same request.
fn request(workflow_id: &str) -> ResetWorkflowExecutionRequest {
    ResetWorkflowExecutionRequest {
        namespace: "default".into(),
        workflow_execution: Some(WorkflowExecution { workflow_id: workflow_id.into(), run_id: String::new() }),
        reason: "try again".into(),
        workflow_task_finish_event_id: 4,
        request_id: format!("reset-{workflow_id}"),
        ..Default::default()
    }
}

async fn reset(host: &Host, workflow_id: &str) -> String {
    let mut service = host.engine.connection().await.unwrap();
    service.reset_workflow_execution(request(workflow_id).into_request()).await.unwrap().into_inner().run_id
}

/// Not a test of its own: the process that is killed. Its worker polls, so that the new run's first task would be its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child process"]
async fn process_that_resets() {
    let (Ok(url), Ok(workflow)) = (std::env::var(CHILD_DATABASE), std::env::var(CHILD_WORKFLOW)) else { return };
    let host = Host::start(PgPool::connect(&url).await.unwrap()).await;
    let _worker = host.worker();
    reset(&host, &workflow).await;
    panic!("the trigger was passed");
}

fn victim(database: &TestDatabase, workflow_id: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::process_that_resets", "--ignored"])
        .env(CHILD_DATABASE, database.url())
        .env(CHILD_WORKFLOW, workflow_id)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a process come as far as the trigger, and kills it there.
async fn kill_at(database: &TestDatabase, pool: &PgPool, workflow_id: &str, trigger: &str) {
    // The lock is this connection's.
    let mut holder = pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(4711)").execute(&mut *holder).await.unwrap();
    let create = format!("create {trigger} execute function hold()");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(pool).await.unwrap();
    let mut child = victim(database, workflow_id);
    let waits = "select exists (select 1 from pg_locks where locktype = 'advisory' and objid = 4711 and not granted
                 and database = (select oid from pg_database where datname = current_database()))";
    eventually("the process at the trigger", || async {
        let held: bool = sqlx::query_scalar(waits).fetch_one(pool).await.unwrap();
        held.then_some(())
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    sqlx::query("select pg_advisory_unlock(4711)").execute(&mut *holder).await.unwrap();
    // Waits for the transaction of the dead.
    let table = trigger.split_whitespace().find(|word| word.starts_with("engine.")).unwrap();
    let drop = format!("drop trigger held on {table}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(pool).await.unwrap();
}

/// Runs of a workflow id with their status, in the order of their starts.
async fn runs(pool: &PgPool, workflow_id: &str) -> Vec<(String, Status)> {
    let sql = "select run_id::text, status::int from engine.executions where workflow_id = $1 order by start_time";
    let runs: Vec<(String, i32)> = sqlx::query_as(sql).bind(workflow_id).fetch_all(pool).await.unwrap();
    runs.into_iter().map(|(run, status)| (run, Status::try_from(status).unwrap())).collect()
}

async fn sound(pool: &PgPool, moment: &str) {
    let mut problems = Vec::new();
    integrity::check(pool, |problem| problems.push(problem)).await.unwrap();
    assert_eq!(problems, [], "{moment}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_whose_process_is_killed_is_done_or_not_and_repeated_it_is_one() {
    let database = TestDatabase::new().await;
    let host = Host::on(&database).await;
    let _worker = host.worker();
    let pool = database.pool().await;
    let hold = "create function hold() returns trigger language plpgsql as
                $$ begin perform pg_advisory_xact_lock_shared(4711); return coalesce(new, old); end $$";
    sqlx::raw_sql(hold).execute(&pool).await.unwrap();
    for (moment, trigger, committed) in MOMENTS {
        host.client.start_workflow(flows::Inbox::run, 1usize, options(moment)).await.unwrap();
        eventually("the end of the first task", || async {
            kinds(&host.history(moment).await).contains(&"WorkflowTaskCompleted".to_owned()).then_some(())
        })
        .await;
        let before = runs(&pool, moment).await;
        kill_at(&database, &pool, moment, trigger).await;

        let after = runs(&pool, moment).await;
        sound(&pool, moment).await;
        if !committed {
            assert_eq!(after, before, "{moment}: nothing of it");
        }
        let run = reset(&host, moment).await;
        assert_eq!(reset(&host, moment).await, run, "{moment}: one request, one reset");
        let reset = runs(&pool, moment).await;
        assert_eq!(reset, [(before[0].0.clone(), Status::Terminated), (run, Status::Running)], "{moment}");
        if *committed {
            assert_eq!(after, reset, "{moment}: all of it");
        }
        sound(&pool, moment).await;
    }
    // Every one of them goes on, also the one whose first task went to the dead.
    for (moment, ..) in MOMENTS {
        let handle = host.client.get_workflow_handle::<flows::Inbox>(*moment);
        handle.signal(flows::Inbox::put, "a".to_owned(), WorkflowSignalOptions::default()).await.unwrap();
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.unwrap(), ["a"], "{moment}");
        host.history(moment).await;
    }
}
