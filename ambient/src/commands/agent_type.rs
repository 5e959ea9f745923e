//! `ambient agent-type`: programs that can run as agents on this server.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CommandError, Output, say::say};
use crate::{
    agent_types::{self, Catalogue},
    config::{ConfigFlags, ServerConfig},
};

/// Commands on agent types.
#[derive(Debug, Subcommand)]
pub enum AgentTypeCommand {
    /// List the agent types that the server knows, and whether they are installed
    List(ListFlags),
    /// Install agents, each in an exact version, without running any script of theirs
    Install(InstallFlags),
    /// Start installed agents, and print who they are and what they offer
    Check(CheckFlags),
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListFlags {
    /// Look on this machine, by a server's settings, without asking a server
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    config: ConfigFlags,
}

/// Flags of `install`.
#[derive(Debug, Args)]
pub struct InstallFlags {
    /// Agent types, by name
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    config: ConfigFlags,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckFlags {
    /// Agent types, by name [default: all that are installed]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    config: ConfigFlags,
}

impl AgentTypeCommand {
    /// Whether it is the server that knows.
    #[must_use]
    pub fn asks_the_server(&self) -> bool {
        matches!(self, Self::List(flags) if !flags.here)
    }

    pub(super) async fn run(self, output: Output) -> Result<ExitCode, CommandError> {
        match self {
            Self::List(flags) => list(&catalogue(&flags.config)?, output),
            Self::Install(flags) => return install(&ServerConfig::load(&flags.config)?, &flags.names).await,
            Self::Check(flags) => return check(&catalogue(&flags.config)?, &flags.names, output).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn catalogue(flags: &ConfigFlags) -> Result<Catalogue, CommandError> {
    let config = ServerConfig::load(flags)?;
    Ok(config.agent_types()?)
}

fn list(catalogue: &Catalogue, output: Output) {
    let all = catalogue.agent_types();
    match output {
        Output::Json => {
            let shown: Vec<_> = all
                .iter()
                .map(|known| json!({ "name": known.name, "title": known.title, "installed": known.installed, "variables": known.variables }))
                .collect();
            say(json!(shown));
        }
        Output::Table => {
            say(format_args!("{:<12} {:<10} TITLE", "NAME", "INSTALLED"));
            for known in &all {
                let installed = if known.installed { "yes" } else { "no" };
                let needs = if known.variables.is_empty() {
                    String::new()
                } else {
                    format!("; needs {}", known.variables.join(", "))
                };
                say(format_args!("{:<12} {installed:<10} {}{needs}", known.name, known.title));
            }
        }
    }
}

async fn install(config: &ServerConfig, names: &[String]) -> Result<ExitCode, CommandError> {
    let (catalogue, installer) = (config.agent_types()?, config.installer());
    for name in names {
        let is_new = installer.install(&catalogue, name).await?;
        say(format_args!("{name}: {}", if is_new { "installed" } else { "is installed already" }));
    }
    say("a server that is running sees it after a restart");
    Ok(ExitCode::SUCCESS)
}

/// One after the other: some need much memory.
async fn check(catalogue: &Catalogue, names: &[String], output: Output) -> Result<ExitCode, CommandError> {
    if let Some(name) = names.iter().find(|name| catalogue.get(name).is_none()) {
        return Err(agent_types::InstallError::Unknown(name.clone()).into());
    }
    let is_there =
        |name: &String| catalogue.is_installed(name) || catalogue.place(name).is_some_and(|place| place.exists());
    let types = catalogue.agent_types();
    let wanted = types.iter().filter(|known| {
        catalogue.get(&known.name).is_some()
            && if names.is_empty() { is_there(&known.name) } else { names.contains(&known.name) }
    });
    let (mut all, mut is_fine) = (Vec::new(), true);
    for known in wanted {
        let found = if known.installed { agent_types::check(known).await } else { Err(absent(&known.name)) };
        is_fine &= found.is_ok();
        match (output, &found) {
            (Output::Json, Ok(found)) => all.push(json!({
                "name": known.name, "agent": found.name, "version": found.version, "offers": found.offers, "problem": null,
            })),
            (Output::Json, Err(problem)) => all.push(json!({
                "name": known.name, "agent": null, "version": null, "offers": [], "problem": problem,
            })),
            (Output::Table, Ok(found)) => say(format_args!(
                "{:<12} {} {}{}",
                known.name,
                if found.name.is_empty() { "starts" } else { &found.name },
                found.version,
                if found.offers.is_empty() { String::new() } else { format!(": {}", found.offers.join(", ")) }
            )),
            (Output::Table, Err(problem)) => say(format_args!("{:<12} does not work: {problem}", known.name)),
        }
    }
    match output {
        Output::Json => say(json!(all)),
        Output::Table if names.is_empty() && !types.iter().any(|known| is_there(&known.name)) => {
            say("no agent is installed; see 'ambient agent-type list --here'");
        }
        Output::Table => {}
    }
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn absent(name: &str) -> String {
    format!("it is not installed, or not whole; 'ambient agent-type install {name}' installs it")
}
