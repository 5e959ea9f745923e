//! A workflow of three activities that do nothing, on the embedded engine: client, worker, engine and Postgres on one machine.
//!
//! Beside two ceilings. What any engine owes to durability, without an engine: the commits of such a workflow in a row; a start,
//! three times "task done, activity scheduled" and "activity done", and a close make eight. And what client, worker and SDK
//! cost by themselves: the same on an engine that stores nothing.

use std::{
    cell::Cell,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ambient_engine::{Engine, EngineOptions};
use ambient_tests::TestDatabase;
use futures::{StreamExt, TryStreamExt, stream};
use sqlx::PgPool;
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, WorkflowGetResultOptions, WorkflowStartOptions,
};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};

use crate::{
    Failure, ceiling,
    interleave::{interleave, millis, per_second, percentile},
    table::Table,
};

const QUEUE: &str = "bench";
/// Durable steps of a workflow of three activities.
const COMMITS: usize = 8;
const ROUNDS: usize = 3;
const ALONE: usize = 50;
const LOADED: usize = 600;
const IN_FLIGHT: usize = 200;

struct Acts;
#[activities]
impl Acts {
    #[activity(name = "step")]
    async fn step(_ctx: ActivityContext, input: String) -> Result<String, ActivityError> {
        Ok(input + "x")
    }
}

#[workflow]
#[derive(Default)]
struct Three;
#[workflow_methods]
impl Three {
    #[run(name = "three")]
    async fn run(ctx: &mut WorkflowContext<Self>, s: String) -> WorkflowResult<String> {
        let options = || ActivityOptions::start_to_close_timeout(Duration::from_secs(30));
        let a = ctx.execute_activity(Acts::step, s, options()).await?;
        let b = ctx.execute_activity(Acts::step, a, options()).await?;
        Ok(ctx.execute_activity(Acts::step, b, options()).await?)
    }
}

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    sqlx::query("create table public.steps (run text, step integer, data text)").execute(&pool).await?;
    let engine = Engine::start(pool.clone(), EngineOptions::default()).await?;
    let ours = Workflows::on(engine.connection().await?).await?;
    let ceiling = Workflows::on(storing_nothing().await?).await?;

    let name = "three-step workflow alone, p50";
    let alone = async || Ok(ours.run(ALONE, 1).await?.p50);
    let pair = interleave(ROUNDS, alone, async || Ok(many(ALONE, 1, |_| commits(&pool)).await?.p50)).await?;
    table.add(name, "ms", pair, format!("{COMMITS} commits in a row, p50"));
    let pair = interleave(ROUNDS, alone, async || Ok(ceiling.run(ALONE, 1).await?.p50)).await?;
    table.add(name, "ms", pair, "SDK alone: an engine that stores nothing");

    let name = format!("three-step workflows, {IN_FLIGHT} in flight");
    let loaded = async || Ok(ours.run(LOADED, IN_FLIGHT).await?.per_second);
    let commits = async || Ok(many(LOADED, IN_FLIGHT, |_| commits(&pool)).await?.per_second);
    let beside = format!("{COMMITS} commits in a row, {IN_FLIGHT} in flight on 16 connections");
    table.add(&name, "workflows/s", interleave(ROUNDS, loaded, commits).await?, beside);
    let top = async || Ok(ceiling.run(LOADED, IN_FLIGHT).await?.per_second);
    table.add(name, "workflows/s", interleave(ROUNDS, loaded, top).await?, "SDK alone: an engine that stores nothing");

    ours.end()?;
    ceiling.end()?;
    engine.shutdown().await;
    pool.close().await;
    Ok(())
}

async fn storing_nothing() -> Result<Connection, Failure> {
    let target = url::Url::parse("http://ceiling.in-process")?;
    let options = ConnectionOptions::new(target).service_override(ceiling::service()).dns_load_balancing(None).build();
    Ok(Connection::connect(options).await?)
}

/// A client and a worker on one engine.
struct Workflows {
    client: Client,
    worker: WorkerThread,
    stop: Box<dyn Fn()>,
    rounds: Cell<usize>,
}

impl Workflows {
    async fn on(connection: Connection) -> Result<Self, Failure> {
        let client = Client::new(connection, ClientOptions::new("default").build())?;
        let (worker, stop) = spawn_worker(client.clone())?;
        let workflows = Self { client, worker, stop: Box::new(stop), rounds: Cell::new(0) };
        workflows.run(100, 10).await?;
        Ok(workflows)
    }

    async fn run(&self, count: usize, in_flight: usize) -> Result<Run, Failure> {
        let round = self.rounds.replace(self.rounds.get() + 1);
        many(count, in_flight, |n| workflow(&self.client, format!("{round}-{n}"))).await
    }

    fn end(self) -> Result<(), Failure> {
        (self.stop)();
        self.worker.join().map_err(|_| "the worker panicked")?
    }
}

type WorkerThread = JoinHandle<Result<(), Failure>>;

/// The worker is not Send: it lives on a thread of its own.
fn spawn_worker(client: Client) -> Result<(WorkerThread, impl Fn()), Failure> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let sdk = Runtime::from_current_tokio(Default::default())?;
            let options = WorkerOptions::new(QUEUE).register_workflow::<Three>()?.register_activities(Acts).build();
            let mut worker = Worker::new(&sdk, client, options)?;
            send.send(worker.shutdown_handle())?;
            worker.run().await?;
            Ok(())
        })
    });
    Ok((thread, receive.recv()?))
}

async fn workflow(client: &Client, id: String) -> Result<(), Failure> {
    let options = WorkflowStartOptions::new(QUEUE, id).build();
    let handle = client.start_workflow(Three::run, "a".to_owned(), options).await?;
    match handle.get_result(WorkflowGetResultOptions::default()).await?.as_str() {
        "axxx" => Ok(()),
        other => Err(format!("wrong result {other}").into()),
    }
}

async fn commits(pool: &PgPool) -> Result<(), Failure> {
    for step in 0..i32::try_from(COMMITS)? {
        let sql = "insert into public.steps (run, step, data) values ($1, $2, $3)";
        sqlx::query(sql).bind("run").bind(step).bind(crate::domain::TEXT).execute(pool).await?;
    }
    Ok(())
}

struct Run {
    /// Milliseconds.
    p50: f64,
    per_second: f64,
}

/// The same `count` times, `in_flight` at once.
async fn many<F>(count: usize, in_flight: usize, one: impl Fn(usize) -> F) -> Result<Run, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let began = Instant::now();
    let timed = |n| {
        let work = one(n);
        async {
            let began = Instant::now();
            work.await.map(|()| millis(began.elapsed()))
        }
    };
    let times: Vec<f64> = stream::iter(0..count).map(timed).buffer_unordered(in_flight).try_collect().await?;
    Ok(Run { p50: percentile(&times, 50), per_second: per_second(count as u64, began.elapsed()) })
}
