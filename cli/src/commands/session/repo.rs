//! `ambient session repo`.

use ambient_wire::{api::List, git::Submodules, repo::Repo, session::SessionRepo};
use clap::Subcommand;

use super::output::OutputFlags;
use crate::{
    OutputFormat,
    client::route::Route,
    commands::{Connection, input},
    error::CliError,
    exit::Exit,
    local_repository,
    output::table::Table,
};

/// Commands of a session's repositories.
#[derive(Debug, Clone, Subcommand)]
pub enum RepoCommand {
    /// Add a repository; a running session clones it shortly
    #[command(after_help = "Example:\n  ambient session repo add fix https://example.org/team/docs.git --branch main")]
    Add {
        /// Id or name
        session: String,
        /// https:// or file:// URL, or a folder inside a repository
        #[arg(id = "repository_url", value_name = "URL|FOLDER")]
        url: String,
        /// Folder in the workspace [default: the last part of the URL]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Branch [default: the origin's default branch]
        #[arg(long, value_name = "BRANCH")]
        branch: Option<String>,
        #[command(flatten)]
        output: OutputFlags,
        /// Which submodules to fetch: none, their recorded commits, or all of them with history
        #[arg(long, value_name = "HOW", default_value = "none", value_parser = input::submodules())]
        submodules: Submodules,
    },
    /// Remove a repository from the session and its workspace
    #[command(visible_alias = "rm", after_help = "Example:\n  ambient session repo remove fix docs")]
    Remove {
        /// Id or name
        session: String,
        /// Folder in the workspace
        name: String,
    },
    /// List the repositories, wanted and present
    #[command(visible_alias = "ls", after_help = "Example:\n  ambient session repo list fix")]
    List {
        /// Id or name
        session: String,
    },
}

pub(super) async fn run(command: RepoCommand, connection: &Connection) -> Result<Exit, CliError> {
    let client = &connection.client;
    match command {
        RepoCommand::Add { session, url, name, branch, output, submodules } => {
            let url = local_repository::resolve("URL", &url)?.url;
            let id = connection.session_id(&session).await?;
            let (output, auto_push) = output.output();
            let repo = Repo { name, url, branch, output, auto_push, submodules };
            let answer = client.post(&Route::new(["sessions", &id, "repos"]), &repo).await?;
            if connection.format == OutputFormat::Json {
                connection.console.json(answer.text())?;
            }
            connection
                .console
                .note(&format!("it will be cloned; 'ambient session repo list {session}' shows when it is ready"));
        }
        RepoCommand::Remove { session, name } => {
            let id = connection.session_id(&session).await?;
            client.delete(&Route::new(["sessions", &id, "repos", &name])).await?;
            connection.console.note(&format!("repository {name} is being removed"));
        }
        RepoCommand::List { session } => return list(&session, connection).await,
    }
    Ok(Exit::Success)
}

async fn list(session: &str, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(session).await?;
    let answer = connection.client.get(&Route::new(["sessions", &id, "repos", "status"])).await?;
    if connection.format == OutputFormat::Table {
        let list: List<SessionRepo> = answer.decode()?;
        for repo in &list.items {
            for notice in &repo.notices {
                connection.console.warn(&format!("{}: {notice}", repo.name));
            }
        }
    }
    connection.list(&answer, "repositories", |repo: &SessionRepo| &repo.name, table)
}

fn table(repos: &[SessionRepo]) -> Table {
    let mut table = Table::new(["NAME", "STATUS", "BRANCH", "HEAD", "URL"]);
    for repo in repos {
        let head = repo.head.as_deref().unwrap_or_default().chars().take(12).collect();
        table.row([
            repo.name.clone(),
            repo.status.clone(),
            repo.branch.clone().unwrap_or_default(),
            head,
            repo.url.clone(),
        ]);
    }
    table
}
