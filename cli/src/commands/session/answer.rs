//! `ambient session answer`.

use ambient_wire::{
    api::List,
    interrupt::{Interrupt, InterruptStatus},
    permission::InterruptAnswer,
    runner_event::PermissionAnswer,
};
use clap::{Args, ValueEnum};

use crate::{
    client::{Client, answer::Answer as Response, route::Route},
    commands::Connection,
    error::CliError,
    exit::Exit,
};

/// An answer, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Given {
    /// Allow it this time
    Once,
    /// Allow it from now on: adds a rule to the session's permissions
    Always,
    /// Do not allow it
    Reject,
}

impl From<Given> for PermissionAnswer {
    fn from(given: Given) -> Self {
        match given {
            Given::Once => Self::Once,
            Given::Always => Self::Always,
            Given::Reject => Self::Reject,
        }
    }
}

/// Flags of `session answer`.
#[derive(Debug, Clone, Args)]
#[command(allow_missing_positional = true)]
pub struct Answer {
    /// Id or name
    session: String,
    /// Request; may be left out if only one waits
    #[arg(value_name = "REQUEST")]
    request: Option<String>,
    /// The answer
    #[arg(value_name = "ANSWER")]
    answer: Given,
    /// With reject: what the agent should do instead
    #[arg(short = 'm', long, value_name = "TEXT")]
    message: Option<String>,
}

pub(super) async fn answer(arguments: Answer, connection: &Connection) -> Result<Exit, CliError> {
    let Answer { session, request, answer, message } = arguments;
    if message.is_some() && answer != Given::Reject {
        return Err(CliError::Usage("--message: goes with reject only".to_owned()));
    }
    let id = connection.session_id(&session).await?;
    let request = match request {
        Some(request) => request,
        None => only_one(&connection.client, &id, &session).await?,
    };
    let given = InterruptAnswer { answer: answer.into(), message };
    let answer = post(&connection.client, &id, &request, &given).await?;
    connection.object(&answer, |i: &Interrupt| &i.id, answered)
}

fn answered(interrupt: &Interrupt) -> String {
    let rule = interrupt
        .rule
        .as_ref()
        .filter(|_| interrupt.answer.as_ref().is_some_and(|given| given.answer == PermissionAnswer::Always));
    let rule = rule.map(|rule| {
        let what = rule.command.as_ref().or(rule.path.as_ref()).map_or("", String::as_str);
        format!("; allowed from now on: {}", crate::output::escape::line(what))
    });
    let (id, title) = (crate::output::escape::line(&interrupt.id), crate::output::escape::line(&interrupt.title));
    format!("{id} answered: {title}{}\n", rule.unwrap_or_default())
}

/// The request that waits, if it is the only one.
async fn only_one(client: &Client, id: &str, session: &str) -> Result<String, CliError> {
    match waiting(client, id).await?.as_slice() {
        [one] => Ok(one.id.clone()),
        [] => Err(CliError::refused(Exit::NotFound, format!("session '{session}' asks nothing at present"))),
        several => {
            let ids: Vec<_> = several.iter().map(|interrupt| interrupt.id.as_str()).collect();
            let reason = format!("{} requests wait; give the id of one: {}", several.len(), ids.join(", "));
            Err(CliError::refused(Exit::Conflict, reason))
        }
    }
}

/// Requests that wait for a person, the oldest first.
pub(crate) async fn waiting(client: &Client, id: &str) -> Result<Vec<Interrupt>, CliError> {
    let list: List<Interrupt> = client.get(&Route::new(["sessions", id, "interrupts"])).await?.decode()?;
    Ok(list.items.into_iter().filter(|interrupt| interrupt.status == InterruptStatus::Waiting).collect())
}

/// Answers a request; retries are still one answer.
pub(crate) async fn post(
    client: &Client,
    id: &str,
    request: &str,
    given: &InterruptAnswer,
) -> Result<Response, CliError> {
    client.post(&Route::new(["sessions", id, "interrupts", request]), given).await
}
