//! `ambient project`.

use std::path::PathBuf;

use ambient_wire::{
    project::{Project, ProjectCreate, ProjectPatch},
    retention::Retention,
    session::SecretText,
};
use chrono::Utc;
use clap::Subcommand;

use super::{Connection, definition::PatchOf, input, models, operations, retention, usage};
use crate::{
    client::route::Route,
    error::CliError,
    exit::Exit,
    output::{duration, fields::Fields, table::Table},
};

/// Commands of projects.
#[derive(Debug, Clone, Subcommand)]
pub enum ProjectCommand {
    /// Create a project
    #[command(after_help = "Example:\n  ambient project create demo --display-name 'The demo'")]
    Create {
        /// Unique name: lowercase letters, digits and dashes, 2-63 characters
        name: String,
        /// Display name
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        display_name: String,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        /// File with a prompt for its sessions; - is standard input. Only stored: agents do not get it yet
        #[arg(short = 'f', long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Label, for selection; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = input::label)]
        labels: Vec<(String, String)>,
        /// Environment variable for its sessions, sealed and never shown again; NAME alone takes the value from this shell's environment;
        /// may be repeated
        #[arg(long = "env", value_name = "NAME[=VALUE]", value_parser = input::variable)]
        environment: Vec<(String, SecretText)>,
    },
    /// List projects
    #[command(visible_alias = "ls", after_help = "Example:\n  ambient project list -o name")]
    List {
        #[command(flatten)]
        paging: input::Paging,
        /// Column to sort by, followed by ' desc' for descending order
        #[arg(long, value_name = "ORDER")]
        order_by: Option<String>,
    },
    /// Show a project
    #[command(after_help = "Example:\n  ambient project get local -o json")]
    Get {
        /// Id or name
        project: String,
    },
    /// Change the given fields of a project
    #[command(after_help = "Example:\n  ambient project patch demo --description 'to try things'")]
    Patch(PatchOf<ProjectPatch>),
    /// List a project's operations, newest first
    #[command(after_help = "Example:\n  ambient project history local")]
    History {
        /// Id or name
        project: String,
    },
    /// Show what the model calls of a project's sessions have used, by day and model
    #[command(after_help = "Example:\n  ambient project usage local")]
    Usage {
        /// Id or name
        project: String,
    },
    /// Show or change for how long a project keeps what its finished sessions have left, and what is due to be removed
    #[command(after_help = "\
Sessions with the label retention=keep are kept.

Example:
  ambient project retention local --event-days 90 --workspace-days 14 --dry-run")]
    Retention(retention::RetentionArguments),
    /// Show which models a project's sessions may ask, where they are asked, and who says so
    #[command(after_help = "Example:\n  ambient project models local")]
    Models {
        /// Id or name
        project: String,
    },
    /// Delete a project and all its sessions
    #[command(after_help = "Example:\n  ambient project delete demo")]
    Delete {
        /// Id or name
        project: String,
    },
}

pub(super) async fn run(command: ProjectCommand, connection: &Connection) -> Result<Exit, CliError> {
    match command {
        ProjectCommand::Create { name, display_name, description, file, labels, environment } => {
            let prompt = input::text("--file", None, file.as_deref())?.unwrap_or_default();
            let labels = input::by_key("--label", labels)?;
            let environment_variables = input::by_key("--env", environment)?;
            let create = ProjectCreate {
                name,
                display_name,
                description,
                prompt,
                labels,
                environment_variables,
                ..ProjectCreate::default()
            };
            let answer = connection.client.post(&Route::new(["projects"]), &create).await?;
            connection.object(&answer, |p: &Project| &p.id, |p| table(std::slice::from_ref(p)).render(""))
        }
        ProjectCommand::List { paging, order_by } => {
            let route = paging.of(Route::new(["projects"])).query("order_by", order_by);
            let answer = connection.client.get(&route).await?;
            connection.list(&answer, "projects", |p: &Project| &p.id, table)
        }
        ProjectCommand::Get { project } => {
            let answer = connection.client.get(&Route::new(["projects", &project])).await?;
            connection.object(&answer, |p: &Project| &p.id, details)
        }
        ProjectCommand::Patch(patch) => {
            let answer = connection.client.patch(&Route::new(["projects", patch.one()]), &patch.body()?).await?;
            connection.object(&answer, |p: &Project| &p.id, |p| table(std::slice::from_ref(p)).render(""))
        }
        ProjectCommand::History { project } => {
            let found: Project = connection.client.get(&Route::new(["projects", &project])).await?.decode()?;
            operations::history("project", &found.id, connection).await
        }
        ProjectCommand::Usage { project } => usage::of_project(&project, connection).await,
        ProjectCommand::Retention(arguments) => retention::run(arguments, connection).await,
        ProjectCommand::Models { project } => models::of_project(&project, connection).await,
        ProjectCommand::Delete { project } => {
            connection.client.delete(&Route::new(["projects", &project])).await?;
            connection.console.note(&format!("project {project} is being deleted, with its sessions"));
            Ok(Exit::Success)
        }
    }
}

fn table(projects: &[Project]) -> Table {
    let now = Utc::now();
    let mut table = Table::new(["ID", "NAME", "STATUS", "AGE", "DESCRIPTION"]);
    for p in projects {
        let about = if p.description.is_empty() { &p.display_name } else { &p.description };
        let age = duration::age(p.created_at, now);
        table.row([p.id.clone(), p.name.clone(), p.status.clone(), age, crate::output::table::cut(about, 60)]);
    }
    table
}

fn details(p: &Project) -> String {
    let mut fields = Fields::new(14);
    fields.add("Project", format!("{} ({})", p.name, p.id));
    fields.add("Status", format!("{}{}", p.status, if p.provisioned { "" } else { ", not provisioned yet" }));
    fields.add("Created", p.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    fields.add("Version", p.version.to_string());
    for (name, value) in [("Display name", &p.display_name), ("Description", &p.description), ("Prompt", &p.prompt)] {
        fields.add_text(name, value);
    }
    for (key, value) in &p.labels {
        fields.add("Label", format!("{key}={value}"));
    }
    if !p.environment_variable_names.is_empty() {
        fields.add("Environment", p.environment_variable_names.join(", "));
    }
    if let Some(model) = &p.settings.llm_model {
        fields.add("Model", model);
    }
    if let Some(seconds) = p.settings.inactivity_timeout {
        fields.add("Inactivity", format!("{seconds} s"));
    }
    if let Some(agent_type) = &p.settings.agent_type {
        fields.add("Agent type", agent_type);
    }
    if let Some(command) = &p.settings.agent_command {
        fields.add_text("Command", &[std::slice::from_ref(&command.program), &command.args].concat().join(" "));
    }
    for server in &p.settings.mcp_servers {
        fields.add_text("MCP server", server.name());
    }
    if let Some(network) = &p.settings.network {
        fields.add("Network", network.to_string());
    }
    let Retention { event_days, workspace_days, snapshot_days } = p.settings.retention;
    for (name, days) in [("Events", event_days), ("Workspaces", workspace_days), ("Snapshots", snapshot_days)] {
        if let Some(days) = days {
            fields.add(name, if days == 0 { "kept for ever".to_owned() } else { format!("kept for {days} days") });
        }
    }
    if let Some(script) = &p.settings.setup_script {
        fields.add_text("Setup script", script);
    }
    if !p.settings.models.allowed.is_empty() {
        fields.add_text("Models", &p.settings.models.allowed.join(", "));
    }
    for (provider, source) in p.settings.models.endpoints.iter() {
        fields
            .add_text("Endpoint", &format!("{provider}: {}", source.base_url.as_deref().unwrap_or("its own address")));
    }
    if p.settings.model_budget.is_some() {
        fields.add("Budget", format!("see 'ambient project usage {}'", p.name));
    }
    fields.into_text()
}
