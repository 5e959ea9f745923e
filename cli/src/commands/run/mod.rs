//! `ambient run`: a task from its prompt to its result.
//!
//! The session is a batch session: it ends with its turn, and its runner with it. The runner pushes the result (`--push`)
//! before that.

mod follow;
mod record;
mod result;

use ambient_wire::session::Session;
use clap::Args;
use tokio::sync::mpsc;

use self::follow::Following;
use super::{
    Connection,
    input::Text,
    session::{attach::Reconnect, spec::Spec},
};
use crate::{OutputFormat, client::route::Route, error::CliError, exit::Exit, output::escape};

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  ambient run --repo . -f task.md --push agent/task\n\nExit codes:\n  0 the session completed   1 it failed   124 its timeout \
                  passed   130 it was stopped\n\nCtrl-C stops the session; a second Ctrl-C leaves it to itself.",
    group = clap::ArgGroup::new("task").required(true).args(["prompt", "file"])
)]
pub struct RunArguments {
    #[command(flatten)]
    prompt: Text,
    #[command(flatten)]
    spec: Spec,
    /// Keep the session at the end (the default)
    #[arg(long, conflicts_with = "delete", help_heading = "Result")]
    keep: bool,
    /// Delete the session at the end, whatever the result
    #[arg(long, help_heading = "Result")]
    delete: bool,
    /// Only start it, and print its id
    #[arg(long, conflicts_with = "delete", help_heading = "Result")]
    detach: bool,
    #[command(flatten)]
    reconnect: Reconnect,
}

pub(super) async fn run(arguments: RunArguments, connection: &Connection) -> Result<Exit, CliError> {
    run_interruptibly(arguments, connection, interrupts()).await
}

/// Each Ctrl-C is an item.
fn interrupts() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move { while tokio::signal::ctrl_c().await.is_ok() && sender.send(()).await.is_ok() {} });
    receiver
}

pub(super) async fn run_interruptibly(
    arguments: RunArguments,
    connection: &Connection,
    mut interrupts: mpsc::Receiver<()>,
) -> Result<Exit, CliError> {
    let prompt = arguments.prompt.read()?;
    let mut create = arguments.spec.create(prompt, connection).await?;
    create.start = true;
    create.interactive = Some(false);
    let route = Route::new(["sessions"]);
    let answer = tokio::select! {
        created = connection.client.post(&route, &create) => created?,
        _ = interrupts.recv() => {
            connection.console.warn("interrupted; the session may have been created: see 'ambient session list'");
            return Ok(Exit::Interrupted);
        }
    };
    let session: Session = answer.decode()?;
    let (id, name) = (escape::line(&session.id), escape::line(&session.name));
    connection.console.note(&format!("session {id} ({name})"));
    if arguments.detach {
        return connection.object(&answer, |s: &Session| &s.id, |_| format!("{id}\n"));
    }
    if connection.format == OutputFormat::Name {
        connection.console.data(&format!("{id}\n"))?;
    }
    let following = Following { connection, session: &session, patience: arguments.reconnect.patience() };
    let Some(exit) = following.run(&mut interrupts).await? else {
        return Ok(Exit::Interrupted);
    };
    if arguments.delete {
        connection.client.delete(&Route::new(["sessions", &session.id])).await?;
        connection.console.note(&format!("session {} is deleted", session.id));
    }
    Ok(exit)
}

#[cfg(test)]
mod tests;
