//! The commands, one per file.

mod acp;
mod agent_types;
mod chat;
mod context;
mod definition;
mod executions;
mod inbox;
mod input;
mod mcp;
mod models;
mod operations;
mod project;
mod replay;
mod retention;
mod run;
mod session;
mod usage;

use std::sync::Arc;

use ambient_wire::api::List;
use clap::Subcommand;
use serde::de::DeserializeOwned;

use crate::{
    Globals, OutputFormat,
    client::{Client, answer::Answer},
    config::{Environment, Target},
    error::CliError,
    exit::Exit,
    output::{Console, table::Table},
};

/// Commands that talk to a server, and the choice of server.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a task in a new session, follow it and exit with its result
    Run(Box<run::RunArguments>),
    /// Create, start, stop, follow and inspect sessions
    #[command(subcommand, visible_alias = "sessions")]
    Session(session::SessionCommand),
    /// Talk with an agent, in a new session or one that is there
    Chat(Box<chat::ChatArguments>),
    /// Be an agent for an editor that speaks the Agent Client Protocol
    Acp(Box<acp::Acp>),
    /// List what waits for you: what agents ask and nobody has answered
    Inbox(inbox::Inbox),
    /// Create, list and delete projects
    #[command(subcommand, visible_alias = "projects")]
    Project(project::ProjectCommand),
    /// Create, list and change agents and other definitions
    #[command(flatten)]
    Definition(definition::DefinitionCommand),
    /// Inspect accepted commands and facts
    #[command(subcommand, visible_alias = "operation")]
    Operations(operations::OperationsCommand),
    /// Inspect and control workflow executions
    #[command(subcommand, visible_alias = "execution")]
    Executions(executions::ExecutionsCommand),
    /// Verify stored state against its operations
    #[command(subcommand)]
    Replay(replay::ReplayCommand),
    /// Choose the server, token and project to use
    #[command(subcommand, visible_alias = "contexts")]
    Context(context::ContextCommand),
}

/// What every command receives.
pub(crate) struct Invocation {
    pub(crate) globals: Globals,
    pub(crate) environment: Environment,
    pub(crate) console: Arc<Console>,
}

impl Invocation {
    fn of_process(globals: Globals) -> Self {
        let environment = Environment::of_process();
        let color = !globals.no_color && !environment.no_color;
        let console = Arc::new(Console::of_process(color, environment.dumb_terminal, globals.quiet));
        Self { globals, environment, console }
    }
}

/// A server and the project to work in.
pub(crate) struct Connection {
    pub(crate) client: Client,
    project: Option<String>,
    format: OutputFormat,
    console: Arc<Console>,
}

pub(crate) async fn run(command: Command, globals: Globals) -> Exit {
    let invocation = Invocation::of_process(globals);
    end(&invocation.console.clone(), execute(command, invocation).await)
}

/// Lists agent types. The command is a server's, which can also look without one.
pub(crate) async fn list_agent_types(globals: Globals) -> Exit {
    let invocation = Invocation::of_process(globals);
    let listed = async { agent_types::list(&Connection::new(&invocation)?).await };
    end(&invocation.console, listed.await)
}

/// Prints an error and returns its exit code.
pub(crate) fn end(console: &Console, result: Result<Exit, CliError>) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(CliError::BrokenPipe) => Exit::BrokenPipe,
        Err(error) => {
            console.error(&error.report());
            error.exit()
        }
    }
}

pub(crate) async fn execute(command: Command, invocation: Invocation) -> Result<Exit, CliError> {
    let command = match command {
        Command::Context(command) => return context::run(command, &invocation),
        Command::Acp(arguments) => {
            return acp::run(*arguments, Connection::new(&invocation), &invocation.console).await;
        }
        Command::Chat(arguments) => return chat::run(*arguments, &invocation).await,
        command => command,
    };
    let connection = Connection::new(&invocation)?;
    match command {
        Command::Run(arguments) => run::run(*arguments, &connection).await,
        Command::Session(command) => session::run(command, &connection).await,
        Command::Inbox(arguments) => inbox::list(arguments, &connection).await,
        Command::Project(command) => project::run(command, &connection).await,
        Command::Definition(command) => definition::run(command, &connection).await,
        Command::Operations(command) => operations::run(command, &connection).await,
        Command::Executions(command) => executions::run(command, &connection).await,
        Command::Replay(command) => replay::run(command, &connection).await,
        Command::Context(_) | Command::Acp(_) | Command::Chat(_) => Ok(Exit::Success),
    }
}

impl Connection {
    fn new(invocation: &Invocation) -> Result<Self, CliError> {
        let target = Target::resolve(&invocation.globals, &invocation.environment)?;
        let console = invocation.console.clone();
        let client = Client::new(&target, console.clone())?;
        Ok(Self { client, project: target.project, format: invocation.globals.output, console })
    }

    /// The project to work in.
    pub(crate) fn project(&self) -> Result<&str, CliError> {
        let none = "no project: use --project, AMBIENT_PROJECT or a context that has one";
        self.project.as_deref().ok_or_else(|| CliError::Usage(none.to_owned()))
    }

    /// The project to work in, if any.
    pub(crate) fn chosen_project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// Prints one object: as it arrived, its id, or as `show` renders it.
    pub(crate) fn object<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        id: impl Fn(&T) -> &str,
        show: impl Fn(&T) -> String,
    ) -> Result<Exit, CliError> {
        match self.format {
            OutputFormat::Json => self.console.json(answer.text())?,
            OutputFormat::Name => self.console.names(std::iter::once(id(&answer.decode()?)))?,
            OutputFormat::Table => self.console.data(&show(&answer.decode()?))?,
        }
        Ok(Exit::Success)
    }

    /// Prints a list: as it arrived, its ids, or as a table. `none` names what there is none of.
    pub(crate) fn list<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        none: &str,
        id: impl Fn(&T) -> &str,
        table: impl Fn(&[T]) -> Table,
    ) -> Result<Exit, CliError> {
        let list: List<T> = answer.decode()?;
        match self.format {
            OutputFormat::Json => self.console.json(answer.text())?,
            OutputFormat::Name => self.console.names(list.items.iter().map(id))?,
            OutputFormat::Table => {
                let table = table(&list.items);
                if !table.is_empty() {
                    self.console.data(&table.render(""))?;
                }
            }
        }
        self.say_how_many(&list, none);
        Ok(Exit::Success)
    }

    fn say_how_many<T>(&self, list: &List<T>, none: &str) {
        let shown = i64::try_from(list.items.len()).unwrap_or(i64::MAX);
        let seen = (list.page.max(1) - 1).saturating_mul(list.size).saturating_add(shown);
        match &list.next {
            _ if list.items.is_empty() => self.console.note(&format!("no {none}")),
            Some(next) => {
                self.console.note(&format!("{shown} of {}; more with --after {next} or --size", list.total));
            }
            None if list.total > seen => {
                self.console.note(&format!("{shown} of {}; more with --page {} or --size", list.total, list.page + 1));
            }
            None => {}
        }
    }
}

/// Whether it has the form of an id (KSUID).
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 27 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
