//! What an idle session's actor costs a server: 100,000 of them in a process, beside as many of the framework's actors with nothing but an id.
//!
//! The sessions are rows of a real one that is Running and waits for a message, with its conditions, copied by SQL. Each actor is asked
//! something that changes nothing, for which it reads its row and then keeps it.

use std::{collections::HashMap, process::Stdio, time::Duration};

use ambient_actors::{ActorOptions, Actors};
use ambient_domain::session::{Fact, Session};
use ambient_persistence::{Database, DatabaseOptions, Hints};
use futures::{StreamExt, TryStreamExt, stream};
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::oneshot,
};

use crate::{
    Failure,
    domain::{World, fact_request},
    server::resident_bytes,
    table::Table,
};

/// Makes this program a process with actors: how many, and the database, are named next; without a database they are bare. It says
/// what each costs, and how many there are.
pub(crate) const ARGUMENT: &str = "resident-actors";

const ACTORS: usize = 100_000;
/// Those that come first: what a process makes once is not counted to them.
const FIRST: usize = 1_000;
const AT_ONCE: usize = 64;
/// What one may cost, KiB.
const ALLOWED: f64 = 12.0;
const SETTLE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let world = World::start().await?;
    let bytes = copies(&world).await?;
    let ours = process(&world.database.url()).await?;
    let bare = process("").await?;
    let figure = format!("an idle session's actor, state of {bytes} bytes as JSON, {ACTORS} of them");
    table.compare(&*figure, "KiB", ours, bare, "a bare actor of the framework (ractor), id only");
    table.compare(figure, "KiB", ours, ALLOWED, "what it may be");
    world.end().await;
    Ok(())
}

/// Many sessions like one that is Running and idle; how long its state is as JSON.
async fn copies(world: &World) -> Result<i64, Failure> {
    let sessions = world.sessions(1).await?;
    let model = &sessions.first().ok_or("no session")?.id;
    let facts = [Fact::Provisioning, Fact::RunnerReady { missing_confinement: Vec::new() }, Fact::MarkRunning];
    for fact in facts {
        world.actors.call::<Session>(model, fact_request(fact)).await?;
    }
    let pool = world.db.pool();
    let columns: Vec<String> = sqlx::query_scalar(
        "select column_name::text from information_schema.columns
         where table_schema = 'ambient' and table_name = 'sessions' and column_name <> 'id' and is_generated = 'NEVER'
         order by ordinal_position",
    )
    .fetch_all(pool)
    .await?;
    let columns = columns.join(", ");
    let sql = format!(
        "insert into ambient.sessions (id, {columns})
         select 'idle-' || lpad(i::text, 22, '0'), {columns} from ambient.sessions, generate_series(1, $2::int) i where id = $1"
    );
    let count = i32::try_from(ACTORS)?;
    sqlx::query(AssertSqlSafe(sql)).bind(model).bind(count).execute(pool).await?;
    sqlx::query("analyze ambient.sessions").execute(pool).await?;
    let length = "select octet_length(state::text)::bigint from ambient.sessions where id = $1";
    Ok(sqlx::query_scalar(length).bind(model).fetch_one(pool).await?)
}

/// KiB that an actor costs in a process of its own.
async fn process(url: &str) -> Result<f64, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([ARGUMENT, url]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let said = tokio::time::timeout(PATIENCE, output.next_line()).await??.ok_or("the actors' process has ended")?;
    let (each, resident) = said.split_once(' ').ok_or("it says something else")?;
    if resident != ACTORS.to_string() {
        return Err(format!("{resident} actors are resident").into());
    }
    Ok(each.parse()?)
}

pub(crate) async fn serve(url: &str) -> Result<(), Failure> {
    let (each, resident) = if url.is_empty() { bare().await? } else { sessions(url).await? };
    println!("{each} {resident}");
    Ok(())
}

async fn sessions(url: &str) -> Result<(f64, usize), Failure> {
    let db = Database::connect(url, DatabaseOptions::default()).await?;
    let ids = ids(db.pool()).await?;
    let hints = Hints::start(&db);
    let idle_after = Duration::from_secs(3_600);
    let options = ActorOptions { max_resident: 2 * ACTORS, idle_after, ..ActorOptions::default() };
    let actors = Actors::start(db, hints, options);
    let (first, rest) = ids.split_at(FIRST);
    woken(&actors, first).await?;
    let before = settled().await?;
    woken(&actors, rest).await?;
    Ok((each(before, settled().await?), actors.resident()))
}

async fn ids(pool: &PgPool) -> Result<Vec<String>, Failure> {
    let sql = "select id from ambient.sessions where id like 'idle-%' order by id";
    Ok(sqlx::query_scalar(sql).fetch_all(pool).await?)
}

/// Tells each what it knows already.
async fn woken(actors: &Actors, ids: &[String]) -> Result<(), Failure> {
    let told = ids.iter().map(|id| async move {
        let reply = actors.call::<Session>(id, fact_request(Fact::Provisioning)).await;
        reply.map(drop).map_err(Failure::from)
    });
    stream::iter(told).buffer_unordered(AT_ONCE).try_collect().await
}

async fn settled() -> Result<f64, Failure> {
    tokio::time::sleep(SETTLE).await;
    resident_bytes(std::process::id())
}

#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
fn each(before: f64, after: f64) -> f64 {
    (after - before) / 1024.0 / (ACTORS - FIRST) as f64
}

/// Ends with its last actor.
struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Knows its id.
struct Idle;

impl Actor for Idle {
    type Msg = oneshot::Sender<usize>;
    type State = String;
    type Arguments = String;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, id: String) -> Result<String, ActorProcessingErr> {
        Ok(id)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        asked: Self::Msg,
        id: &mut String,
    ) -> Result<(), ActorProcessingErr> {
        // Whoever asks waits.
        let _ = asked.send(id.len());
        Ok(())
    }
}

async fn bare() -> Result<(f64, usize), Failure> {
    let (parent, _) = ActorRuntime::spawn_instant(None, Parent, ())?;
    let mut actors = HashMap::new();
    let mut before = 0.0;
    for n in 0..ACTORS {
        if n == FIRST {
            before = settled().await?;
        }
        let id = format!("idle-{n:022}");
        let (actor, _) = ActorRuntime::spawn_linked_instant(None, Idle, id.clone(), parent.get_cell())?;
        let (asked, answer) = oneshot::channel();
        actor.send_message(asked).map_err(|error| error.to_string())?;
        answer.await?;
        actors.insert(id, actor.get_cell());
    }
    Ok((each(before, settled().await?), actors.len()))
}
