//! How the embedded engine copes with load: many open runs, a long history, the work of a killed process.
//!
//! The measured engine is a separate process, this program started with [`ARGUMENT`], so that its memory is its own and
//! it can be killed.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use ambient_engine::{Engine, EngineOptions};
use ambient_tests::TestDatabase;
use sqlx::PgPool;
use temporalio_client::{Client, WorkflowGetResultOptions, WorkflowStartOptions};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    workflows::join_all,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{
    Failure,
    interleave::{millis, per_second},
    server::resident_bytes,
    table::Table,
    workflow::{QUEUE, client, room_for, spawn_worker},
};

/// Makes this program an engine with a worker on the database named next. It says when it is ready, and ends when it is killed.
pub(crate) const ARGUMENT: &str = "engine-process";

const OPEN_RUNS: i64 = 100_000;
const LONG_HISTORY: i64 = 50_000;
/// Activities at once in a step of the long workflow; each makes three events.
const WIDTH: usize = 100;
/// Steps after so many events: the run is still open when it is looked at, and for whoever takes it over.
const STEPS_LEFT: u32 = 20;
const IN_FLIGHT: usize = 1_000;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(120);

struct Acts;
#[activities]
impl Acts {
    #[activity(name = "nothing")]
    async fn nothing(_ctx: ActivityContext, _input: ()) -> Result<(), ActivityError> {
        Ok(())
    }

    /// Longer than any measurement.
    #[activity(name = "long")]
    async fn long(_ctx: ActivityContext, _input: ()) -> Result<(), ActivityError> {
        tokio::time::sleep(PATIENCE * 2).await;
        Ok(())
    }
}

fn options() -> ActivityOptions {
    ActivityOptions::start_to_close_timeout(PATIENCE * 4)
}

/// Waits a week.
#[workflow]
#[derive(Default)]
struct Sleeper;
#[workflow_methods]
impl Sleeper {
    #[run(name = "sleeper")]
    async fn run(ctx: &mut WorkflowContext<Self>, _input: ()) -> WorkflowResult<()> {
        ctx.timer(Duration::from_secs(7 * 24 * 3600)).await;
        Ok(())
    }
}

/// Waits for an activity that takes long.
#[workflow]
#[derive(Default)]
struct Waiter;
#[workflow_methods]
impl Waiter {
    #[run(name = "waiter")]
    async fn run(ctx: &mut WorkflowContext<Self>, _input: ()) -> WorkflowResult<()> {
        Ok(ctx.execute_activity(Acts::long, (), options()).await?)
    }
}

/// So many steps of [`WIDTH`] activities at once.
#[workflow]
#[derive(Default)]
struct Long;
#[workflow_methods]
impl Long {
    #[run(name = "long")]
    async fn run(ctx: &mut WorkflowContext<Self>, steps: u32) -> WorkflowResult<()> {
        for _ in 0..steps {
            let step = (0..WIDTH).map(|_| ctx.execute_activity(Acts::nothing, (), options())).collect::<Vec<_>>();
            for result in join_all(step).await {
                result?;
            }
        }
        Ok(())
    }
}

/// An engine with a worker, until it is killed.
pub(crate) async fn serve(url: &str) -> Result<(), Failure> {
    let began = Instant::now();
    let engine = Engine::start(PgPool::connect(url).await?, EngineOptions::default()).await?;
    let options = WorkerOptions::new(QUEUE).register_workflow::<Sleeper>()?.register_workflow::<Waiter>()?;
    let options = options.register_workflow::<Long>()?.register_activities(Acts).tuner(room_for(IN_FLIGHT));
    let client = client(engine.connection().await?)?;
    let (_worker, _stop) = spawn_worker(client, options.build())?;
    println!("{}", millis(began.elapsed()));
    std::future::pending().await
}

/// Such a process; killed with this value.
struct EngineProcess {
    child: Child,
    /// From the first line of its work to readiness, milliseconds.
    started_in: f64,
    _output: Lines<BufReader<ChildStdout>>,
}

impl EngineProcess {
    async fn start(url: &str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ARGUMENT, url]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let line =
            tokio::time::timeout(PATIENCE, output.next_line()).await??.ok_or("the engine's process has ended")?;
        Ok(Self { child, started_in: line.parse()?, _output: output })
    }

    fn resident(&self) -> Result<f64, Failure> {
        Ok(resident_bytes(self.child.id().ok_or("the engine's process has ended")?)? / (1024.0 * 1024.0))
    }

    /// As `kill -9`.
    async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }
}

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    open_runs(table).await?;
    long_history(table).await?;
    recovery(table).await
}

async fn start(client: &Client, id: &str, workflow: Kind) -> Result<(), Failure> {
    let options = WorkflowStartOptions::new(QUEUE, id).build();
    match workflow {
        Kind::Sleeper => drop(client.start_workflow(Sleeper::run, (), options).await?),
        Kind::Waiter => drop(client.start_workflow(Waiter::run, (), options).await?),
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Sleeper,
    Waiter,
}

/// Waits until a count of the database is what it is to be.
async fn until(pool: &PgPool, sql: &'static str, wanted: i64) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
        if found >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{found} of {wanted}: {sql}").into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// One real run that waits for a timer, copied with all its rows until there are many.
const COPIES: &str = "
with template as (select * from engine.runs where workflow_id = 'template'),
copies as (select n, gen_random_uuid() as run from generate_series(2, $1) n),
execution as (
    insert into engine.executions select (jsonb_populate_record(e, jsonb_build_object(
        'run_id', run, 'first_run_id', run, 'root_run_id', run, 'workflow_id', 'copy-' || n, 'root_workflow_id', 'copy-' || n))).*
    from engine.executions e, copies where e.workflow_id = 'template'),
workflow as (insert into engine.workflows select 'copy-' || n, run, 1, run::text from copies),
history as (
    insert into engine.history select run, h.first_event_id, h.last_event_id, h.data
    from engine.history h join template using (run_id), copies),
timer as (
    insert into engine.timers select run, x.timer_id, x.started_event_id, x.fire_at + n * interval '1 s'
    from engine.timers x join template using (run_id), copies)
insert into engine.runs select (jsonb_populate_record(t, jsonb_build_object(
    'run_id', run, 'first_run_id', run, 'root_run_id', run, 'workflow_id', 'copy-' || n, 'root_workflow_id', 'copy-' || n))).*
from engine.runs t, copies where t.workflow_id = 'template'";

async fn open_runs(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let engine = Engine::start(pool.clone(), EngineOptions::default()).await?;
    let few = EngineProcess::start(&database.url()).await?;
    let client = client(engine.connection().await?)?;
    start(&client, "template", Kind::Sleeper).await?;
    until(&pool, "select count(*) from engine.timers", 1).await?;
    let (started, memory) = (few.started_in, few.resident()?);
    few.kill().await?;
    engine.shutdown().await;

    sqlx::query(COPIES).bind(i32::try_from(OPEN_RUNS)?).execute(&pool).await?;
    until(&pool, "select count(*) from engine.runs r join engine.timers t using (run_id)", OPEN_RUNS).await?;
    sqlx::query("analyze").execute(&pool).await?;
    let many = EngineProcess::start(&database.url()).await?;
    let name = format!("{OPEN_RUNS} open runs with timers");
    let beside = "one open run";
    table.compare(format!("start with {name}"), "ms", many.started_in, started, beside);
    // Time for whatever looks at all of them to do so.
    tokio::time::sleep(Duration::from_secs(6)).await;
    table.compare(format!("resident memory with {name}"), "MiB", many.resident()?, memory, beside);
    many.kill().await?;
    pool.close().await;
    Ok(())
}

async fn long_history(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let engine = Engine::start(pool.clone(), EngineOptions::default()).await?;
    let client = client(engine.connection().await?)?;
    let process = EngineProcess::start(&database.url()).await?;
    let steps = u32::try_from(LONG_HISTORY / i64::try_from(3 * WIDTH)?)? + STEPS_LEFT;
    let options = WorkflowStartOptions::new(QUEUE, "long").build();
    let began = Instant::now();
    let handle = client.start_workflow(Long::run, steps, options).await?;
    let tenth = LONG_HISTORY / 10;
    let length = "select coalesce(max(last_event_id), 0) from engine.runs";
    until(&pool, length, tenth).await?;
    let first = began.elapsed();
    until(&pool, length, LONG_HISTORY - tenth).await?;
    let last_began = Instant::now();
    until(&pool, length, LONG_HISTORY).await?;
    let last = last_began.elapsed();
    // The worker that knows the run is gone: another one reads all of it.
    process.kill().await?;
    let _process = EngineProcess::start(&database.url()).await?;
    tokio::time::timeout(PATIENCE, handle.get_result(WorkflowGetResultOptions::default())).await??;
    let tenth = u64::try_from(tenth)?;
    let (ours, theirs) = (per_second(tenth, last), per_second(tenth, first));
    table.compare(
        format!("a history of {LONG_HISTORY} events: its last tenth"),
        "events/s",
        ours,
        theirs,
        "its first tenth",
    );
    engine.shutdown().await;
    pool.close().await;
    Ok(())
}

async fn recovery(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let engine = Engine::start(pool.clone(), EngineOptions::default()).await?;
    let client = client(engine.connection().await?)?;
    let process = EngineProcess::start(&database.url()).await?;
    let wanted = i64::try_from(IN_FLIGHT)?;
    for n in 0..IN_FLIGHT {
        start(&client, &format!("waiter-{n}"), Kind::Waiter).await?;
    }
    until(&pool, "select count(*) from engine.activities where state = 1", wanted).await?;
    process.kill().await?;
    let began = Instant::now();
    let again = EngineProcess::start(&database.url()).await?;
    until(&pool, "select count(*) from engine.activities where state = 1 and attempt = 2", wanted).await?;
    let recovered = millis(began.elapsed());
    let name = format!("kill -9 with {IN_FLIGHT} activities under way, until all run again");
    table.compare(name, "ms", recovered, 1_000.0, "their retry policy's first wait");
    again.kill().await?;
    engine.shutdown().await;
    pool.close().await;
    Ok(())
}
