//! `ambient context`: which server, token and project to use.

use ambient_wire::{name as wire_name, redact};
use clap::Subcommand;

use super::Invocation;
use crate::{
    OutputFormat,
    config::{ConfigError, Context, File, choose_context, parse_url, write_context_at},
    error::CliError,
    exit::Exit,
    output::{fields::Fields, table::Table},
};

/// Commands of contexts.
#[derive(Debug, Clone, Subcommand)]
pub enum ContextCommand {
    /// List the contexts
    #[command(after_help = "Example:\n  ambient context list")]
    List,
    /// Make a context the current one
    #[command(name = "use", after_help = "Example:\n  ambient context use local")]
    Use {
        /// Context
        name: String,
    },
    /// Show a context, without its token
    #[command(after_help = "Example:\n  ambient context show")]
    Show {
        /// Context [default: the current one]
        name: Option<String>,
    },
    /// Add or replace a context with --url, --project and a token (AMBIENT_TOKEN or --token), and make it current
    #[command(
        after_help = "Example:\n  AMBIENT_TOKEN=… ambient context set far --url http://127.0.0.1:7080 --project demo"
    )]
    Set {
        /// Context
        name: String,
    },
}

pub(super) fn run(command: ContextCommand, invocation: &Invocation) -> Result<Exit, CliError> {
    match command {
        ContextCommand::List => list(invocation),
        ContextCommand::Use { name } => choose(invocation, &name),
        ContextCommand::Show { name } => show(invocation, name.as_deref()),
        ContextCommand::Set { name } => set(invocation, &name),
    }
}

fn list(invocation: &Invocation) -> Result<Exit, CliError> {
    let path = invocation.environment.config_path()?;
    let file = File::read(&path)?;
    let console = &invocation.console;
    if file.contexts.is_empty() {
        console.note(&format!("no contexts in {}; 'ambient up' creates one", path.display()));
    }
    match invocation.globals.output {
        OutputFormat::Name => console.names(file.contexts.keys().map(String::as_str))?,
        OutputFormat::Json => {
            let contexts: Vec<_> = file.contexts.iter().map(|(name, context)| redacted(&file, name, context)).collect();
            console.json(&serde_json::Value::from(contexts).to_string())?;
        }
        OutputFormat::Table if file.contexts.is_empty() => {}
        OutputFormat::Table => {
            let mut table = Table::new(["CURRENT", "NAME", "URL", "PROJECT"]);
            for (name, context) in &file.contexts {
                let current = if file.current_context.as_ref() == Some(name) { "*" } else { " " };
                let project = context.project.clone().unwrap_or_default();
                table.row([current.to_owned(), name.clone(), redact::text(&context.url).into_owned(), project]);
            }
            console.data(&table.render(""))?;
        }
    }
    Ok(Exit::Success)
}

fn redacted(file: &File, name: &str, context: &Context) -> serde_json::Value {
    serde_json::json!({
        "name": name,
        "url": redact::text(&context.url),
        "token": context.token.as_ref().map(|_| "redacted"),
        "project": context.project,
        "current": file.current_context.as_deref() == Some(name),
    })
}

fn choose(invocation: &Invocation, name: &str) -> Result<Exit, CliError> {
    let path = invocation.environment.config_path()?;
    let mut file = File::read(&path)?;
    choose_context(&file, Some(name))?;
    file.current_context = Some(name.to_owned());
    file.write(&path)?;
    invocation.console.note(&format!("the current context is now '{name}'"));
    Ok(Exit::Success)
}

fn show(invocation: &Invocation, name: Option<&str>) -> Result<Exit, CliError> {
    let file = File::read(&invocation.environment.config_path()?)?;
    let chosen = choose_context(&file, name.or(invocation.globals.context.as_deref()))?;
    let (name, context) = chosen.ok_or(ConfigError::NoServer)?;
    let console = &invocation.console;
    match invocation.globals.output {
        OutputFormat::Name => console.names(std::iter::once(name.as_str()))?,
        OutputFormat::Json => console.json(&redacted(&file, &name, &context).to_string())?,
        OutputFormat::Table => {
            let token = if context.token.is_some() { "(redacted)" } else { "-" };
            let project = context.project.as_deref().unwrap_or("-");
            let mut fields = Fields::new(10);
            fields.add("Name", &name);
            fields.add("URL", redact::text(&context.url));
            fields.add("Token", token);
            fields.add("Project", project);
            console.data(&fields.into_text())?;
        }
    }
    Ok(Exit::Success)
}

fn set(invocation: &Invocation, name: &str) -> Result<Exit, CliError> {
    let (globals, environment) = (&invocation.globals, &invocation.environment);
    let url = globals.url.clone().or_else(|| environment.url.clone());
    let url = url.ok_or_else(|| CliError::Usage("--url is required".to_owned()))?;
    parse_url("--url", &url)?;
    wire_name::check(name, wire_name::MAX)
        .map_err(|problem| CliError::Usage(format!("the context's name {problem}")))?;
    let context = Context {
        url,
        token: globals.token.clone().or_else(|| environment.token.clone()),
        project: globals.project.clone().or_else(|| environment.project.clone()),
    };
    let path = environment.config_path()?;
    write_context_at(&path, name, context)?;
    invocation.console.note(&format!("context '{name}' is in {} and is now the current one", path.display()));
    Ok(Exit::Success)
}
