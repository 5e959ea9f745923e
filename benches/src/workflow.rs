//! The measured workflows, and a client and a worker for them on any connection: the embedded engine, one that stores
//! nothing, a Temporal server.

use std::{
    cell::Cell,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, WorkflowGetResultOptions, WorkflowStartOptions,
};
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, LocalActivityOptions, Runtime, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    runtime::worker_tuner::{FixedSizeSlotSupplier, TunerHolder},
};

use crate::{
    Failure, ceiling,
    interleave::{millis, per_second, percentile},
};

/// Task queue of everything measured.
pub(crate) const QUEUE: &str = "bench";
/// Workflows under way at once, at most.
pub(crate) const IN_FLIGHT: usize = 200;

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

/// A connection to an engine that stores nothing.
pub(crate) async fn storing_nothing() -> Result<Connection, Failure> {
    let target = url::Url::parse("http://ceiling.in-process")?;
    let options = ConnectionOptions::new(target).service_override(ceiling::service()).dns_load_balancing(None).build();
    Ok(Connection::connect(options).await?)
}

/// What a measured workflow does; each returns its input with three letters more.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Steps {
    /// Three activities, one after the other.
    Activities,
    /// Three local activities, one after the other.
    Local,
}

impl Steps {
    /// Of a workflow of them.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Activities => "three activities",
            Self::Local => "three local activities",
        }
    }
}

/// A client and a worker on one engine.
pub(crate) struct Workflows {
    client: Client,
    worker: WorkerThread,
    stop: Box<dyn Fn()>,
    rounds: Cell<usize>,
}

impl Workflows {
    /// Starts them, and warms them up.
    pub(crate) async fn on(connection: Connection) -> Result<Self, Failure> {
        let client = client(connection)?;
        let options = WorkerOptions::new(QUEUE).register_workflow::<Three>()?.register_workflow::<ThreeLocal>()?;
        let options = options.register_activities(Acts).tuner(room_for(IN_FLIGHT));
        let (worker, stop) = spawn_worker(client.clone(), options.build())?;
        let workflows = Self { client, worker, stop: Box::new(stop), rounds: Cell::new(0) };
        workflows.run(Steps::Activities, 100, 10).await?;
        Ok(workflows)
    }

    /// So many workflows, so many of them at once.
    pub(crate) async fn run(&self, steps: Steps, count: usize, in_flight: usize) -> Result<Run, Failure> {
        let round = self.rounds.replace(self.rounds.get() + 1);
        many(count, in_flight, |n| workflow(&self.client, steps, format!("{round}-{n}"))).await
    }

    pub(crate) fn end(self) -> Result<(), Failure> {
        (self.stop)();
        self.worker.join().map_err(|_| "the worker panicked")?
    }
}

#[workflow]
#[derive(Default)]
struct ThreeLocal;
#[workflow_methods]
impl ThreeLocal {
    #[run(name = "three-local")]
    async fn run(ctx: &mut WorkflowContext<Self>, s: String) -> WorkflowResult<String> {
        let options = LocalActivityOptions::default;
        let a = ctx.execute_local_activity(Acts::step, s, options()).await?;
        let b = ctx.execute_local_activity(Acts::step, a, options()).await?;
        Ok(ctx.execute_local_activity(Acts::step, b, options()).await?)
    }
}

/// Room for every activity of that many workflows: not the worker's limits are measured.
pub(crate) fn room_for(workflows: usize) -> TunerHolder {
    let (slots, activities) = (FixedSizeSlotSupplier::new(100), FixedSizeSlotSupplier::new(2 * workflows));
    let tuner = TunerHolder::builder().workflow_task_slot_supplier(slots).activity_task_slot_supplier(activities);
    tuner.local_activity_task_slot_supplier(slots).nexus_task_slot_supplier(slots).build()
}

/// How a worker ended.
pub(crate) type WorkerThread = JoinHandle<Result<(), Failure>>;

/// A client of the only namespace.
pub(crate) fn client(connection: Connection) -> Result<Client, Failure> {
    Ok(Client::new(connection, ClientOptions::new("default").build())?)
}

/// The worker is not Send: it lives on a thread of its own. Comes with what stops it.
pub(crate) fn spawn_worker(client: Client, options: WorkerOptions) -> Result<(WorkerThread, impl Fn()), Failure> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let sdk = Runtime::from_current_tokio(Default::default())?;
            let mut worker = Worker::new(&sdk, client, options)?;
            send.send(worker.shutdown_handle())?;
            worker.run().await?;
            Ok(())
        })
    });
    Ok((thread, receive.recv()?))
}

async fn workflow(client: &Client, steps: Steps, id: String) -> Result<(), Failure> {
    let options = WorkflowStartOptions::new(QUEUE, id).build();
    let input = "a".to_owned();
    let result = match steps {
        Steps::Activities => {
            let handle = client.start_workflow(Three::run, input, options).await?;
            handle.get_result(WorkflowGetResultOptions::default()).await?
        }
        Steps::Local => {
            let handle = client.start_workflow(ThreeLocal::run, input, options).await?;
            handle.get_result(WorkflowGetResultOptions::default()).await?
        }
    };
    if result == "axxx" { Ok(()) } else { Err(format!("wrong result {result}").into()) }
}

/// Figures of a round.
pub(crate) struct Run {
    /// Milliseconds from start to result, of the median.
    pub(crate) p50: f64,
    pub(crate) per_second: f64,
}

/// The same `count` times, `in_flight` at once.
pub(crate) async fn many<F>(count: usize, in_flight: usize, one: impl Fn(usize) -> F) -> Result<Run, Failure>
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
