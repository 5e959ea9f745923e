//! `ambient session log|branches|branch`.

use ambient_wire::git_history::{GitBranch, GitBranchCreate, GitBranchCreated, GitBranches, GitLog, GitLogEntry};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;

use super::git::{of_flag, repository};
use crate::{
    OutputFormat,
    client::route::Route,
    commands::Connection,
    error::CliError,
    exit::Exit,
    output::{escape, table::Table},
};

/// Flags of `session log`.
#[derive(Debug, Clone, Args)]
pub struct Log {
    /// Id or name
    session: String,
    /// Only commits that change this file or folder, relative to the repository
    path: Option<String>,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
    /// Commit or branch to begin at [default: what is checked out]
    #[arg(long = "ref", value_name = "COMMIT")]
    reference: Option<String>,
    /// Most commits to show
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    size: u32,
    /// Go on after an earlier page
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

/// Flags of `session branches`.
#[derive(Debug, Clone, Args)]
pub struct Branches {
    /// Id or name
    session: String,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
}

/// Flags of `session branch`.
#[derive(Debug, Clone, Args)]
pub struct Branch {
    /// Id or name
    session: String,
    /// Name of the branch
    branch: String,
    /// Commit to begin at, such as origin/main [default: what is checked out]
    #[arg(long, value_name = "COMMIT")]
    from: Option<String>,
    /// Also check it out; changed files stay as they are
    #[arg(long)]
    switch: bool,
    /// Repository; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
}

pub(super) async fn log(arguments: Log, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let route = Route::new(["sessions", &id, "git", "log"]).query("repo", arguments.repo).query("path", arguments.path);
    let route = route.query("ref", arguments.reference).query("size", Some(arguments.size));
    let answer = connection.client.get_patiently(&route.query("after", arguments.after)).await.map_err(of_flag)?;
    let (console, log) = (&connection.console, answer.decode::<GitLog>()?);
    match connection.format {
        OutputFormat::Json => console.json(answer.text())?,
        OutputFormat::Name => console.names(log.items.iter().map(|commit| commit.commit.as_str()))?,
        OutputFormat::Table if log.items.is_empty() => console.note("no commits"),
        OutputFormat::Table => console.data(&commits(&log.items).render(""))?,
    }
    if let Some(next) = &log.next {
        console.note(&format!("more with --after {next} or --size"));
    }
    Ok(Exit::Success)
}

fn commits(commits: &[GitLogEntry]) -> Table {
    let mut table = Table::new(["COMMIT", "DATE", "AUTHOR", "SUBJECT"]);
    for commit in commits {
        let author = commit.author.name.clone();
        table.row([short(&commit.commit), date(commit.author.at), author, commit.subject().to_owned()]);
    }
    table
}

pub(super) async fn branches(arguments: Branches, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let route = Route::new(["sessions", &id, "git", "list-branches"]).query("repo", arguments.repo);
    let answer = connection.client.get_patiently(&route).await.map_err(of_flag)?;
    let (console, branches) = (&connection.console, answer.decode::<GitBranches>()?);
    let all = || {
        let local = branches.local.iter().map(|branch| (branch, branch.name.clone()));
        local.chain(branches.origin.iter().map(|branch| (branch, format!("origin/{}", branch.name))))
    };
    match connection.format {
        OutputFormat::Json => console.json(answer.text())?,
        OutputFormat::Name => {
            let names: Vec<_> = all().map(|(_, name)| name).collect();
            console.names(names.iter().map(String::as_str))?;
        }
        OutputFormat::Table if all().next().is_none() => console.note("no branches"),
        OutputFormat::Table => {
            let mut table = Table::new(["BRANCH", "COMMIT", "DATE", "SUBJECT"]);
            for (branch, name) in all() {
                let GitBranch { commit, committed_at, subject, .. } = branch;
                let mark = if branches.branch.as_ref() == Some(&name) { "*" } else { "" };
                table.row([format!("{name}{mark}"), short(commit), date(*committed_at), subject.clone()]);
            }
            console.data(&table.render(""))?;
        }
    }
    if branches.truncated {
        console.warn("there are more branches than are shown");
    }
    Ok(Exit::Success)
}

pub(super) async fn branch(arguments: Branch, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let repo = repository(&connection.session(&id).await?, arguments.repo.as_deref())?;
    let body = GitBranchCreate { repo, name: arguments.branch, from: arguments.from, switch: arguments.switch };
    let answer =
        connection.client.post_patiently(&Route::new(["sessions", &id, "git", "create-branch"]), &body).await?;
    connection.object(
        &answer,
        |made: &GitBranchCreated| &made.branch,
        |made| {
            let (how, checked_out) = (
                if made.created { "is made" } else { "was there already" },
                if made.switched { ", and checked out" } else { "" },
            );
            format!("branch {} {how}, at {}{checked_out}\n", escape::line(&made.branch), short(&made.commit))
        },
    )
}

fn short(commit: &str) -> String {
    commit.chars().take(12).collect()
}

fn date(at: Option<DateTime<Utc>>) -> String {
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default()
}
