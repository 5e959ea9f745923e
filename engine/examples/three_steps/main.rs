//! How fast a workflow of three no-op activities runs: p50 at concurrency 1, and per second at 200 in flight, with client,
//! worker, engine and Postgres on one machine. The same is measured with an engine that stores nothing: the ceiling that
//! client, worker and SDK set.
//!
//! `ENGINE_DATABASE_URL=postgres://... cargo run --release -p ambient-engine --example three_steps [workflows] [in flight]`
//! `ENGINE_ROUNDS=n` measures n times, ceiling and engine in turn. Without the URL only the ceiling is measured.

mod ceiling;

use std::time::{Duration, Instant};

use ambient_engine::{Engine, EngineOptions};
use futures::{StreamExt, stream};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, WorkflowGetResultOptions, WorkflowStartOptions,
};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;
const QUEUE: &str = "bench";

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

type WorkerThread = std::thread::JoinHandle<Result<(), Failure>>;

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

async fn one(client: &Client, id: String) -> Result<Duration, Failure> {
    let began = Instant::now();
    let options = WorkflowStartOptions::new(QUEUE, id).build();
    let handle = client.start_workflow(Three::run, "a".to_owned(), options).await?;
    let result = handle.get_result(WorkflowGetResultOptions::default()).await?;
    if result != "axxx" {
        return Err(format!("wrong result {result}").into());
    }
    Ok(began.elapsed())
}

/// What one run came to.
struct Figures {
    per_second: f64,
    p50: Duration,
}

async fn run(client: &Client, name: &str, count: usize, in_flight: usize) -> Result<Figures, Failure> {
    let began = Instant::now();
    let mut times = Vec::with_capacity(count);
    let mut results = stream::iter(0..count).map(|n| one(client, format!("{name}-{n}"))).buffer_unordered(in_flight);
    while let Some(time) = results.next().await {
        times.push(time?);
    }
    let total = began.elapsed().as_secs_f64();
    times.sort();
    let per_second = f64::from(u32::try_from(count)?) / total;
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{name}: {count} workflows, {in_flight} in flight: {per_second:.0}/s, p50 {:?}, p99 {:?}", at(50), at(99));
    Ok(Figures { per_second, p50: at(50) })
}

/// A worker on the connection, and both measurements: one in flight, many in flight.
async fn measure(name: &str, connection: Connection, size: (usize, usize)) -> Result<(Figures, Figures), Failure> {
    let client = Client::new(connection, ClientOptions::new("default").build())?;
    let (worker, stop) = spawn_worker(client.clone())?;
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    run(&client, &format!("{name}-warm-up-{stamp}"), 200, 10).await?;
    let one = run(&client, &format!("{name}-unloaded-{stamp}"), 200, 1).await?;
    let many = run(&client, &format!("{name}-loaded-{stamp}"), size.0, size.1).await?;
    stop();
    worker.join().map_err(|_| "the worker panicked")??;
    Ok((one, many))
}

async fn ceiling(size: (usize, usize)) -> Result<(Figures, Figures), Failure> {
    let target = url::Url::parse("http://ceiling.in-process")?;
    let options = ConnectionOptions::new(target).service_override(ceiling::service()).dns_load_balancing(None).build();
    measure("ceiling", Connection::connect(options).await?, size).await
}

async fn engine(url: &str, size: (usize, usize)) -> Result<(Figures, Figures), Failure> {
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(16).connect(url).await?;
    let engine = Engine::start(pool, EngineOptions::default()).await?;
    let figures = measure("engine", engine.connection().await?, size).await?;
    engine.shutdown().await;
    Ok(figures)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("ENGINE_DATABASE_URL").ok();
    let rounds: usize = std::env::var("ENGINE_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(1);
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let size = (arguments.next().unwrap_or(2000), arguments.next().unwrap_or(200));
    let skip_ceiling = std::env::var_os("ENGINE_ONLY").is_some();
    for _ in 0..rounds {
        let top = if skip_ceiling { None } else { Some(ceiling(size).await?) };
        let Some(url) = &url else { continue };
        let ours = engine(url, size).await?;
        if let Some(top) = top {
            println!(
                "share of the ceiling: {:.0} % per second; p50 at one {:?} of which the ceiling is {:?}",
                100.0 * ours.1.per_second / top.1.per_second,
                ours.0.p50,
                top.0.p50
            );
        }
    }
    Ok(())
}
