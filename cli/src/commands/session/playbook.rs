//! `ambient session playbook`: the instructions, commands and agents that a session's agent goes by.

use ambient_wire::playbook::{Playbook, PlaybookMetadata};
use clap::Args;

use crate::{
    OutputFormat,
    client::route::Route,
    commands::{Connection, input},
    error::CliError,
    exit::Exit,
    output::{
        escape,
        table::{Table, cut},
    },
};

/// Flags of `session playbook`.
#[derive(Debug, Clone, Args)]
pub struct PlaybookFlags {
    /// Id or name
    session: String,
    /// Playbook to go by: the URL of a git repository, its branch and a folder in it
    #[arg(value_name = "URL[#BRANCH[:FOLDER]]", value_parser = input::playbook)]
    playbook: Option<Playbook>,
    /// Go by none
    #[arg(long, conflicts_with = "playbook")]
    clear: bool,
}

pub(super) async fn run(arguments: PlaybookFlags, connection: &Connection) -> Result<Exit, CliError> {
    let PlaybookFlags { session, playbook, clear } = arguments;
    let id = connection.session_id(&session).await?;
    let route = Route::new(["sessions", &id, "workflow"]);
    if clear {
        connection.client.delete(&route).await?;
        connection.console.note("the agent is told with its next message that it goes by none any more");
        return Ok(Exit::Success);
    }
    let Some(playbook) = playbook else { return show(&id, connection).await };
    let answer = connection.client.post(&route, &playbook).await?;
    if connection.format == OutputFormat::Json {
        connection.console.json(answer.text())?;
    }
    let note = "it takes effect with the next message after it was cloned";
    connection.console.note(&format!("{note}; 'ambient session get {session}' shows whether it was"));
    Ok(Exit::Success)
}

async fn show(id: &str, connection: &Connection) -> Result<Exit, CliError> {
    let answer = connection.client.get(&Route::new(["sessions", id, "workflow", "metadata"])).await?;
    if connection.format == OutputFormat::Json {
        connection.console.json(answer.text())?;
        return Ok(Exit::Success);
    }
    let metadata: PlaybookMetadata = answer.decode()?;
    for problem in &metadata.problems {
        connection.console.warn(&escape::line(problem));
    }
    connection.console.data(&words(&metadata))?;
    Ok(Exit::Success)
}

fn words(metadata: &PlaybookMetadata) -> String {
    let Some(commit) = &metadata.commit else { return "no playbook is in effect\n".to_owned() };
    let config = &metadata.config;
    let name = if config.name.is_empty() { "a playbook without a name" } else { &config.name };
    let mut text = format!("{} at {}\n", escape::line(name), commit.chars().take(12).collect::<String>());
    if !config.description.is_empty() {
        text += &format!("{}\n", escape::line(&config.description));
    }
    let mut commands = Table::new(["COMMAND", "NAME", "WHAT IT DOES"]);
    for command in &metadata.commands {
        commands.row([command.slash_command.clone(), cut(&command.name, 40), cut(&command.description, 80)]);
    }
    let mut agents = Table::new(["AGENT", "NAME", "WHAT IT IS FOR"]);
    for agent in &metadata.agents {
        agents.row([agent.id.clone(), cut(&agent.name, 40), cut(&agent.description, 80)]);
    }
    if !metadata.commands.is_empty() {
        text += &format!("\n{}", commands.render(""));
    }
    if !metadata.agents.is_empty() {
        text += &format!("\n{}", agents.render(""));
    }
    text
}
