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
    /// List the agent types that this server knows, and whether they are installed
    List(ConfigFlags),
    /// Install agents, each in an exact version, without running any script of theirs
    Install(InstallFlags),
    /// Check that installed agents are whole
    Check(ConfigFlags),
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

impl AgentTypeCommand {
    pub(super) async fn run(self, output: Output) -> Result<ExitCode, CommandError> {
        match self {
            Self::List(flags) => list(&catalogue(&flags)?, output),
            Self::Install(flags) => return install(&catalogue(&flags.config)?, &flags.names).await,
            Self::Check(flags) => return Ok(check(&catalogue(&flags)?, output)),
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

async fn install(catalogue: &Catalogue, names: &[String]) -> Result<ExitCode, CommandError> {
    for name in names {
        let is_new = agent_types::install(catalogue, name).await?;
        say(format_args!("{name}: {}", if is_new { "installed" } else { "is installed already" }));
    }
    say("a server that is running sees it after a restart");
    Ok(ExitCode::SUCCESS)
}

fn check(catalogue: &Catalogue, output: Output) -> ExitCode {
    let broken: Vec<&String> = catalogue
        .entries()
        .map(|(name, _)| name)
        .filter(|name| catalogue.place(name).is_some_and(|place| place.exists()) && !catalogue.is_installed(name))
        .collect();
    match output {
        Output::Json => say(json!({ "broken": broken })),
        Output::Table if broken.is_empty() => say("all installed agents are whole"),
        Output::Table => {
            for name in &broken {
                say(format_args!("{name}: its program is not there; install it again"));
            }
        }
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
