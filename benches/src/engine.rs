//! Speed of the embedded engine: a workflow of three steps that do nothing; client, worker, engine and Postgres on one machine.
//!
//! Compared with three kinds of others. The cost of client, worker and SDK alone: the same on an engine that stores nothing, which
//! is the ceiling. The cost of durability for an engine: consecutive one-row commits. And peers, other durable engines on the same
//! machine in the same run.

use ambient_engine::{Engine, EngineOptions};
use ambient_tests::TestDatabase;
use sqlx::PgPool;
use temporalio_client::{Connection, ConnectionOptions};

use crate::{
    Failure,
    interleave::interleave,
    peers::{self, PeerProcess},
    table::Table,
    workflow::{IN_FLIGHT, Run, Steps, Workflows, many, storing_nothing},
};

const ROUNDS: usize = 3;
const ALONE: usize = 50;
const LOADED: usize = 600;
/// For peers that need seconds for a hundred.
const LOADED_SLOW: usize = 200;
/// Commits of a workflow of three activities: start, first task, three times an activity's end together with the task it causes.
const COMMITS: usize = 5;
/// Address of a Temporal server, `host:port`; without it there is none in the table.
const TEMPORAL: &str = "AMBIENT_TEST_TEMPORAL";

/// A peer, and what its steps are.
struct Peer {
    name: &'static str,
    /// Variable of the environment that names its program.
    program: &'static str,
    arguments: &'static [&'static str],
    /// Which of ours they stand beside, the likest first.
    beside: &'static [Steps],
    loaded: usize,
}

/// Steps in the workflow's own process are like local activities, what an engine brings to a worker like activities. As many
/// people will think of any step as an activity, they stand beside these too.
const PEERS: [Peer; 4] = [
    Peer {
        name: "Restate, calls of a service",
        program: peers::RESTATE,
        arguments: &["calls"],
        beside: &[Steps::Activities],
        loaded: LOADED,
    },
    Peer {
        name: "Restate, steps in the workflow's process",
        program: peers::RESTATE,
        arguments: &[],
        beside: &[Steps::Local, Steps::Activities],
        loaded: LOADED,
    },
    Peer {
        name: "DBOS for Rust, steps in the workflow's process",
        program: peers::DBOS,
        arguments: &[],
        beside: &[Steps::Local, Steps::Activities],
        loaded: LOADED,
    },
    Peer {
        name: "DBOS for Python, steps in the workflow's process",
        program: peers::DBOS_PYTHON,
        arguments: &[],
        beside: &[Steps::Local, Steps::Activities],
        loaded: LOADED_SLOW,
    },
];

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    sqlx::query("create table public.steps (run text, step integer, data text)").execute(&pool).await?;
    let engine = Engine::start(pool.clone(), EngineOptions::default()).await?;
    let ours = Workflows::on(engine.connection().await?).await?;

    let ceiling = Workflows::on(storing_nothing().await?).await?;
    let nothing = "SDK alone: an engine that stores nothing";
    let run = async |count, concurrency| ceiling.run(Steps::Activities, count, concurrency).await;
    beside(table, &ours, Steps::Activities, nothing, LOADED, run).await?;
    local(table, &ours, &ceiling).await?;
    ceiling.end()?;

    let name = format!("{COMMITS} commits of a row, one after the other");
    let run = async |count, concurrency| many(count, concurrency, |_| commits(&pool)).await;
    beside(table, &ours, Steps::Activities, &name, LOADED, run).await?;
    temporal(table, &ours).await?;
    for other in &PEERS {
        // What a peer cannot do costs its rows, not the others'.
        if let Err(error) = peer(table, &ours, other).await {
            eprintln!("skipped: {}: {error}", other.name);
        }
    }

    ours.end()?;
    engine.shutdown().await;
    pool.close().await;
    Ok(())
}

async fn temporal(table: &mut Table, ours: &Workflows) -> Result<(), Failure> {
    let address = std::env::var(TEMPORAL).ok().filter(|address| !address.is_empty());
    let Some(address) = address else { return Ok(()) };
    let options = ConnectionOptions::new(url::Url::parse(&format!("http://{address}"))?).build();
    let server = Workflows::on(Connection::connect(options).await?).await?;
    let name = "Temporal's development server, same worker";
    let run = async |count, concurrency| server.run(Steps::Activities, count, concurrency).await;
    beside(table, ours, Steps::Activities, name, LOADED_SLOW, run).await?;
    server.end()
}

async fn peer(table: &mut Table, ours: &Workflows, other: &Peer) -> Result<(), Failure> {
    let database = TestDatabase::new().await;
    let peer = PeerProcess::from_environment(other.program, other.arguments, &database.url()).await?;
    let Some(mut peer) = peer else { return Ok(()) };
    let name = format!("{} ({})", other.name, peer.version());
    for steps in other.beside {
        let run = async |count, concurrency| {
            let run = peer.run(count, concurrency).await?;
            Ok(Run { p50: run.p50, per_second: run.per_second })
        };
        beside(table, ours, *steps, &name, other.loaded, run).await?;
    }
    peer.end().await
}

/// Alone and loaded, in turns with somebody else who is told how many workflows, and how many at once.
async fn beside(
    table: &mut Table,
    ours: &Workflows,
    steps: Steps,
    name: &str,
    loaded: usize,
    mut theirs: impl AsyncFnMut(usize, usize) -> Result<Run, Failure>,
) -> Result<(), Failure> {
    eprintln!("  {} beside {name}", steps.name());
    let alone = async || Ok(ours.run(steps, ALONE, 1).await?.p50);
    let pair = interleave(ROUNDS, alone, async || Ok(theirs(ALONE, 1).await?.p50)).await?;
    table.add(format!("{}, alone, p50", steps.name()), "ms", pair, name);
    let all = async || Ok(ours.run(steps, LOADED, IN_FLIGHT).await?.per_second);
    let pair = interleave(ROUNDS, all, async || Ok(theirs(loaded, IN_FLIGHT).await?.per_second)).await?;
    table.add(format!("{}, {IN_FLIGHT} in flight", steps.name()), "workflows/s", pair, name);
    Ok(())
}

/// Local activities beside remote ones, and beside the ceiling.
async fn local(table: &mut Table, ours: &Workflows, ceiling: &Workflows) -> Result<(), Failure> {
    let alone = async |workflows: &Workflows, steps| Ok(workflows.run(steps, ALONE, 1).await?.p50);
    let all = async |workflows: &Workflows, steps| Ok(workflows.run(steps, LOADED, IN_FLIGHT).await?.per_second);
    let (local, remote) = (Steps::Local.name(), Steps::Activities.name());
    let name = format!("{local}, {IN_FLIGHT} in flight");
    let pair =
        interleave(ROUNDS, async || alone(ours, Steps::Local).await, async || alone(ours, Steps::Activities).await)
            .await?;
    table.add(format!("{local}, alone, p50"), "ms", pair, remote);
    let pair =
        interleave(ROUNDS, async || all(ours, Steps::Local).await, async || all(ours, Steps::Activities).await).await?;
    table.add(&name, "workflows/s", pair, remote);
    let pair =
        interleave(ROUNDS, async || all(ours, Steps::Local).await, async || all(ceiling, Steps::Local).await).await?;
    table.add(&name, "workflows/s", pair, "SDK alone: an engine that stores nothing");
    Ok(())
}

async fn commits(pool: &PgPool) -> Result<(), Failure> {
    for step in 0..i32::try_from(COMMITS)? {
        let sql = "insert into public.steps (run, step, data) values ($1, $2, $3)";
        sqlx::query(sql).bind("run").bind(step).bind(crate::domain::TEXT).execute(pool).await?;
    }
    Ok(())
}
