//! `ambient session create|patch|start|stop|interrupt|delete`.

use std::time::Duration;

use ambient_wire::session::{Session, SessionPatch, SessionStart, SessionStop};
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{is_terminal, show, spec::Spec};
use crate::{
    client::{answer::Answer, route::Route},
    commands::{Connection, definition::PatchOf, input::Text},
    error::CliError,
    exit::Exit,
};

const POLL: Duration = Duration::from_millis(300);

/// Flags of `session create`.
#[derive(Debug, Clone, Args)]
pub struct Create {
    #[command(flatten)]
    spec: Spec,
    #[command(flatten)]
    prompt: Text,
    /// Batch session: ends when the prompt is done, takes no messages
    #[arg(long)]
    batch: bool,
    /// Complete at the end of a turn, even if interactive
    #[arg(long)]
    stop_on_run_finished: bool,
    /// Start it at once
    #[arg(long)]
    start: bool,
}

/// Flags of waiting; what for is up to the command.
#[derive(Debug, Clone, Args)]
struct Wait {
    #[arg(long)]
    wait: bool,
    /// How long to wait, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
    wait_timeout: u64,
}

/// Flags of `session start`.
#[derive(Debug, Clone, Args)]
#[command(mut_arg("wait", |arg| arg.help("Wait until it runs, or has already ended")))]
pub struct Start {
    /// Id or name
    session: String,
    #[command(flatten)]
    prompt: Text,
    #[command(flatten)]
    wait: Wait,
}

/// Flags of `session stop`.
#[derive(Debug, Clone, Args)]
#[command(mut_arg("wait", |arg| arg.help("Wait until it has ended: Stopped, Completed or Failed")))]
pub struct Stop {
    /// Id or name
    session: String,
    /// Do not wait for the proof that nothing is left (administrators only)
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

pub(super) async fn create(arguments: Create, connection: &Connection) -> Result<Exit, CliError> {
    let prompt = arguments.prompt.read()?;
    let mut create = arguments.spec.create(prompt, connection).await?;
    create.interactive = arguments.batch.then_some(false);
    create.stop_on_run_finished = arguments.stop_on_run_finished;
    create.start = arguments.start;
    let answer = connection.client.post(&Route::new(["sessions"]), &create).await?;
    print(connection, &answer)?;
    let session: Session = answer.decode()?;
    let next =
        if arguments.start { "follow it with 'ambient session attach" } else { "start it with 'ambient session start" };
    connection.console.note(&format!("{next} {}'", session.id));
    Ok(Exit::Success)
}

pub(super) async fn patch(patch: &PatchOf<SessionPatch>, connection: &Connection) -> Result<Exit, CliError> {
    let body = patch.body()?;
    let id = connection.session_id(patch.one()).await?;
    let answer = connection.client.patch(&Route::new(["sessions", &id]), &body).await?;
    print(connection, &answer)
}

pub(super) async fn start(arguments: Start, connection: &Connection) -> Result<Exit, CliError> {
    let start = SessionStart { prompt: arguments.prompt.read()? };
    let id = connection.session_id(&arguments.session).await?;
    let answer = connection.client.post(&Route::new(["sessions", &id, "start"]), &start).await?;
    let answer = wait(connection, &arguments.wait, answer, |phase| phase == "Running" || is_terminal(phase)).await?;
    let session: Session = answer.decode()?;
    print(connection, &answer)?;
    // A batch session may already have finished.
    let failed = arguments.wait.wait && session.phase.as_deref() == Some("Failed");
    Ok(if failed { Exit::Failure } else { Exit::Success })
}

pub(super) async fn stop(arguments: Stop, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let body = SessionStop { force: arguments.force };
    let answer = connection.client.post(&Route::new(["sessions", &id, "stop"]), &body).await?;
    let answer = wait(connection, &arguments.wait, answer, is_terminal).await?;
    print(connection, &answer)
}

pub(super) async fn interrupt(session: &str, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(session).await?;
    connection.client.post(&Route::new(["sessions", &id, "agui", "interrupt"]), &json!({})).await?;
    connection.console.note("the turn in progress ends, if there is one");
    Ok(Exit::Success)
}

pub(super) async fn delete(session: &str, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(session).await?;
    connection.client.delete(&Route::new(["sessions", &id])).await?;
    let name = if session == id { String::new() } else { format!("{session} ") };
    connection.console.note(&format!("session {name}({id}) is deleted"));
    Ok(Exit::Success)
}

fn print(connection: &Connection, answer: &Answer) -> Result<Exit, CliError> {
    connection.object(answer, |s: &Session| &s.id, |s| show::table(std::slice::from_ref(s)).render(""))
}

/// Polls until the phase is `wanted`, if waiting was requested.
async fn wait(
    connection: &Connection,
    wait: &Wait,
    first: Answer,
    wanted: fn(&str) -> bool,
) -> Result<Answer, CliError> {
    let limit = Duration::from_secs(wait.wait_timeout);
    let client = connection.client.with_patience(limit);
    let deadline = Instant::now() + limit;
    let mut answer = first;
    if !wait.wait {
        return Ok(answer);
    }
    loop {
        let session: Session = answer.decode()?;
        let phase = show::phase(&session);
        if wanted(phase) {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            let why = show::reason(&session);
            return Err(CliError::Timeout(format!(
                "session {} is {phase} ({why}) after {} s",
                session.id, wait.wait_timeout
            )));
        }
        sleep(POLL).await;
        answer = client.get(&Route::new(["sessions", &session.id])).await?;
    }
}
