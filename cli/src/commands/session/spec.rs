//! A new session's spec, from flags.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ambient_wire::{
    agent_type::AgentCommand,
    git::Submodules,
    model::ModelRules,
    network::Network,
    permission::{PermissionEffect, PermissionRule, Permissions},
    playbook::Playbook,
    repo::Repo,
    runner_event::ToolKind,
    session::{ResourceOverrides, SecretText, SessionCreate},
};
use clap::Args;
use tokio::{process::Command, time::timeout};

use super::output::OutputFlags;
use crate::{
    commands::{Connection, input, mcp},
    error::CliError,
    local_repository,
    output::Console,
};

/// Flags for a session's spec.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Session",
    mut_arg("push_branch", |flag| flag.requires("repos")),
    mut_arg("auto_push", |flag| flag.requires("repos")),
    mut_arg("fork", |flag| flag.requires("repos")),
    mut_arg("no_push", |flag| flag.requires("repos"))
)]
pub(crate) struct Spec {
    /// Display name [default: made from the prompt]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Repository: https:// or file:// URL, or a folder inside a repository; may be repeated
    #[arg(long = "repo", value_name = "URL|FOLDER")]
    pub(crate) repos: Vec<String>,
    /// Branch of the (only) repository [default: its default branch]
    #[arg(long, value_name = "BRANCH", requires = "repos")]
    pub(crate) branch: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
    /// Which --repo the agent works in, counted from 0 [default: the only one, or else the workspace above them]
    #[arg(long, value_name = "NUMBER", requires = "repos")]
    pub(crate) main_repo: Option<u32>,
    /// Which submodules of each --repo to fetch: none, their recorded commits, or all of them with history [default: none]
    #[arg(long, value_name = "HOW", requires = "repos", value_parser = input::submodules())]
    pub(crate) submodules: Option<Submodules>,
    /// Playbook that the agent goes by: the URL of a git repository, its branch and a folder in it
    #[arg(long, value_name = "URL[#BRANCH[:FOLDER]]", value_parser = input::playbook)]
    pub(crate) playbook: Option<Playbook>,
    /// Agent that the session belongs to, by name or id; see 'ambient agent list'. What the session leaves open comes from it
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    /// Program that runs as the agent, such as codex; see 'ambient agent-type list' [default: the project's, or else the server's: script, unless
    /// its administrator has set another, which runs the shell blocks of its prompt]
    #[arg(long, value_name = "TYPE")]
    pub(crate) agent_type: Option<String>,
    /// Command in place of the agent type's, which speaks the Agent Client Protocol; its words are separated by spaces
    #[arg(long, value_name = "COMMAND", value_parser = input::agent_command)]
    pub(crate) agent_command: Option<AgentCommand>,
    /// Mode that the agent is put into, by its own name for it
    #[arg(long, value_name = "MODE")]
    pub(crate) agent_mode: Option<String>,
    /// Option that the agent is given, by its own names; may be repeated
    #[arg(long = "agent-option", value_name = "ID=VALUE", value_parser = input::label)]
    pub(crate) agent_options: Vec<(String, String)>,
    /// File with MCP servers for the agent, as a JSON list in the API's form or as in .mcp.json; - is standard input
    #[arg(long = "mcp", value_name = "FILE")]
    pub(crate) mcp_servers: Option<PathBuf>,
    /// Maximum duration of a run in seconds [default: 300 for a batch session, else no limit]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) timeout: Option<i64>,
    /// Seconds without activity before it is stopped; 0 = never
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) inactivity_timeout: Option<i64>,
    /// Model for the agent to use
    #[arg(long, alias = "llm-model", value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// File with which models it may ask, where, with whose key and how much, as a JSON object in the API's form; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) models: Option<PathBuf>,
    /// Tokens that its models may use, input and output together [default: its agent's, its project's or the server's limit]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) token_limit: Option<u64>,
    /// What its models may cost, in the server's currency, such as 2.50 [default: as above]
    #[arg(long, value_name = "AMOUNT", value_parser = input::amount)]
    pub(crate) cost_limit: Option<u64>,
    /// CPU limit, such as 500m or 2 [default: the server's]
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<String>,
    /// Memory limit, such as 512Mi or 2Gi; an agent that reaches it is killed
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Disk space limit for its files, such as 10Gi
    #[arg(long, value_name = "BYTES")]
    pub(crate) disk: Option<String>,
    /// Maximum number of processes and threads
    #[arg(long, value_name = "NUMBER")]
    pub(crate) processes: Option<u64>,
    /// Maximum number of open files per process
    #[arg(long, value_name = "NUMBER")]
    pub(crate) open_files: Option<u64>,
    /// What the agent may reach of the network: open, none, or hosts separated by commas, such as github.com,*.crates.io [default: its
    /// agent's or project's, or else the server's]
    #[arg(long, value_name = "open|none|HOST,…", value_parser = input::network)]
    pub(crate) network: Option<Network>,
    /// Shell script that prepares the workspace before the first turn; - is standard input; an empty file means none [default: its
    /// agent's or project's, or else .ambient/setup.sh of each repository]
    #[arg(long = "setup", value_name = "FILE")]
    pub(crate) setup_script: Option<PathBuf>,
    /// Environment variable for the agent, sealed and never shown again; NAME alone takes the value from this shell's environment;
    /// may be repeated
    #[arg(long = "env", value_name = "NAME[=VALUE]", value_parser = input::variable)]
    pub(crate) environment: Vec<(String, SecretText)>,
    /// File with what the agent may do without asking, as a JSON object in the API's form; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) permissions: Option<PathBuf>,
    /// Command that the agent may run without asking, with * for any text; goes before the rules of --permissions; may be repeated
    #[arg(long = "allow", value_name = "COMMAND")]
    pub(crate) allowed: Vec<String>,
    /// Label to find it by; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = input::label)]
    pub(crate) labels: Vec<(String, String)>,
}

impl Spec {
    /// The same, with folders of repositories that are relative to `folder`.
    pub(crate) fn starting_at(&self, folder: &Path) -> Self {
        let placed = |repo: &String| match repo.contains("://") {
            true => repo.clone(),
            false => folder.join(repo).to_string_lossy().into_owned(),
        };
        Self { repos: self.repos.iter().map(placed).collect(), ..self.clone() }
    }

    fn limits(&self) -> ResourceOverrides {
        ResourceOverrides {
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            processes: self.processes,
            disk: self.disk.clone(),
            open_files: self.open_files,
        }
    }

    fn models(&self) -> Result<ModelRules, CliError> {
        let mut models = input::models(self.models.as_deref())?.unwrap_or_default();
        models.limits.tokens = self.token_limit.or(models.limits.tokens);
        models.limits.cost_micros = self.cost_limit.or(models.limits.cost_micros);
        Ok(models)
    }

    fn permissions(&self) -> Result<Permissions, CliError> {
        let mut permissions = input::permissions(self.permissions.as_deref())?.unwrap_or_default();
        let allowed = self.allowed.iter().map(|command| PermissionRule {
            effect: PermissionEffect::Allow,
            tool: Some(ToolKind::Execute),
            command: Some(command.clone()),
            path: None,
        });
        permissions.rules.splice(0..0, allowed);
        Ok(permissions)
    }

    /// The session to create; warns if a folder has changes that a clone would not have.
    pub(crate) async fn create(
        &self,
        prompt: Option<String>,
        connection: &Connection,
    ) -> Result<SessionCreate, CliError> {
        let (project, console) = (connection.project()?, &connection.console);
        if self.branch.is_some() && self.repos.len() != 1 {
            return Err(CliError::Usage("--branch: needs exactly one --repo".to_owned()));
        }
        if self.output.fork.is_some() && self.repos.len() != 1 {
            return Err(CliError::Usage("--fork: needs exactly one --repo".to_owned()));
        }
        let mut repos = Vec::with_capacity(self.repos.len());
        for given in &self.repos {
            let found = local_repository::resolve("--repo", given)?;
            if let Some(folder) = &found.working_tree {
                warn_of_changes(folder, console).await;
            }
            let (output, auto_push) = self.output.output();
            repos.push(Repo {
                name: None,
                url: found.url,
                branch: self.branch.clone(),
                output,
                auto_push,
                submodules: self.submodules.unwrap_or_default(),
            });
        }
        Ok(SessionCreate {
            project_id: project.to_owned(),
            name: self.name.clone(),
            prompt,
            repos,
            main_repo_index: self.main_repo,
            active_workflow: self.playbook.clone(),
            agent_id: match &self.agent {
                Some(agent) => Some(connection.agent_id(agent).await?),
                None => None,
            },
            agent_type: self.agent_type.clone(),
            agent_command: self.agent_command.clone(),
            agent_mode: self.agent_mode.clone(),
            agent_options: input::by_key("--agent-option", self.agent_options.iter().cloned())?,
            mcp_servers: self.mcp_servers.as_deref().map_or(Ok(Vec::new()), mcp::servers)?,
            timeout: self.timeout,
            inactivity_timeout: self.inactivity_timeout,
            llm_model: self.model.clone(),
            resource_overrides: Some(self.limits()).filter(|limits| *limits != ResourceOverrides::default()),
            network: self.network.clone(),
            setup_script: input::script_of("--setup", self.setup_script.as_deref())?,
            environment_variables: input::by_key("--env", self.environment.iter().cloned())?,
            models: self.models()?,
            permissions: self.permissions()?,
            labels: input::by_key("--label", self.labels.iter().cloned())?,
            ..SessionCreate::default()
        })
    }
}

/// Best effort: a repository that git cannot inspect here, or only slowly, gets no warning.
async fn warn_of_changes(folder: &Path, console: &Console) {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(folder)
        .args(["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])
        .kill_on_drop(true);
    let Ok(Ok(done)) = timeout(Duration::from_secs(2), git.output()).await else {
        return;
    };
    let changes = done.stdout.iter().filter(|&&byte| byte == b'\n').count();
    if done.status.success() && changes > 0 {
        let folder = folder.display();
        let files = if changes == 1 { "1 changed file is".to_owned() } else { format!("{changes} changed files are") };
        console.note(&format!("{folder}: {files} not committed, so the session will not have the changes"));
    }
}
