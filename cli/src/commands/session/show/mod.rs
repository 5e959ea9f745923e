//! `ambient session list|get`, and how a session is shown everywhere.

use std::collections::BTreeMap;

use ambient_wire::{
    api::List,
    playbook::{Playbook, ReconciledPlaybook},
    project::Project,
    retention::SessionRetention,
    session::{ResourceOverrides, Session, StatusDetail},
};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;

use super::{is_terminal, output::in_words};
use crate::{
    OutputFormat,
    client::route::Route,
    commands::{
        Connection,
        input::{self, Paging},
    },
    error::CliError,
    exit::Exit,
    follow::render::first_line,
    output::{
        duration, escape,
        fields::Fields,
        table::{Table, cut},
    },
};

/// How much is shown of what the agent said last, characters.
const MAX_RESULTS: usize = 200;

/// Flags of `session list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Only those in this phase: New, Pending, Creating, Running, Stopping, Stopped, Completed or Failed
    #[arg(long, value_name = "PHASE")]
    phase: Option<String>,
    /// Exact name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only those of this agent, by name or id; a deleted agent's sessions are found by its id alone
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Only those that have this label; may be repeated, and all must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = input::label)]
    labels: Vec<(String, String)>,
    /// Include all projects, not only the current one
    #[arg(short = 'A', long)]
    all_projects: bool,
    #[command(flatten)]
    paging: Paging,
    /// Column to sort by, such as name, phase or created_at, followed by ' desc' for descending order [default: 'created_at desc']
    #[arg(long, value_name = "ORDER")]
    order_by: Option<String>,
}

/// Flags of `session get`.
#[derive(Debug, Clone, Args)]
pub struct Get {
    /// Id or name
    session: String,
    /// The session as it was at this version, with ages and durations up to then
    #[arg(long, value_name = "VERSION")]
    at_version: Option<i64>,
}

pub(super) async fn list(arguments: ListArguments, connection: &Connection) -> Result<Exit, CliError> {
    let project = if arguments.all_projects { None } else { connection.chosen_project() };
    let agent = match &arguments.agent {
        Some(agent) => Some(connection.agent_id(agent).await?),
        None => None,
    };
    let labels = arguments.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let route = labels
        .fold(Route::new(["sessions"]), |route, label| route.query("label", Some(label)))
        .query("project_id", project)
        .query("phase", arguments.phase)
        .query("name", arguments.name)
        .query("agent_id", agent)
        .query("order_by", arguments.order_by);
    let answer = connection.client.get(&arguments.paging.of(route)).await?;
    if !arguments.all_projects || connection.format != OutputFormat::Table {
        return connection.list(&answer, "sessions", |s: &Session| &s.id, table);
    }
    let names = project_names(connection).await?;
    connection.list(
        &answer,
        "sessions",
        |s: &Session| &s.id,
        |sessions| table_of_projects(sessions, &names, Utc::now()),
    )
}

/// Names of the existing projects, by id.
async fn project_names(connection: &Connection) -> Result<BTreeMap<String, String>, CliError> {
    let projects: List<Project> =
        connection.client.get(&Route::new(["projects"]).query("size", Some(65_500))).await?.decode()?;
    Ok(projects.items.into_iter().map(|project| (project.id, project.name)).collect())
}

pub(super) async fn get(arguments: Get, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let answer = connection.client.get(&Route::new(["sessions", &id]).query("version", arguments.at_version)).await?;
    // An earlier version is shown as it was then: its ages and durations end with it.
    let now = |s: &Session| if arguments.at_version.is_some() { s.updated_at } else { Utc::now() };
    connection.object(&answer, |s: &Session| &s.id, |s| details(s, now(s)))
}

/// The phase; a session that was never started is New.
pub(crate) fn phase(session: &Session) -> &str {
    session.phase.as_deref().unwrap_or("New")
}

/// One word on why it is in this state.
pub(crate) fn reason(session: &Session) -> &str {
    let waits = session.status_detail.as_ref().map(|detail| detail.reason.as_str());
    let over = is_terminal(phase(session)) || phase(session) == "Stopping";
    let ended = session.outcome.as_ref().filter(|_| over).map(|outcome| outcome.reason.as_str());
    let ready = session.conditions.iter().find(|condition| condition.condition_type == "Ready");
    waits.or(ended).or(ready.map(|ready| ready.reason.as_str())).unwrap_or_default()
}

pub(crate) fn table(sessions: &[Session]) -> Table {
    table_at(sessions, Utc::now())
}

fn table_at(sessions: &[Session], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(["ID", "NAME", "PHASE", "RUN", "TYPE", "AGE", "REASON"]);
    sessions.iter().for_each(|session| table.row(row(session, now)));
    table
}

/// A table of sessions from several projects; a deleted project shows its id.
fn table_of_projects(sessions: &[Session], names: &BTreeMap<String, String>, now: DateTime<Utc>) -> Table {
    let mut table = Table::new(["PROJECT", "ID", "NAME", "PHASE", "RUN", "TYPE", "AGE", "REASON"]);
    for session in sessions {
        let project = names.get(&session.project_id).unwrap_or(&session.project_id).clone();
        let [id, name, phase, run, agent, age, reason] = row(session, now);
        table.row([project, id, name, phase, run, agent, age, reason]);
    }
    table
}

fn row(s: &Session, now: DateTime<Utc>) -> [String; 7] {
    let run = if s.run == 0 { String::new() } else { s.run.to_string() };
    let age = duration::age(s.created_at, now);
    [s.id.clone(), cut(&s.name, 40), phase(s).to_owned(), run, s.agent_type.clone(), age, reason(s).to_owned()]
}

fn details(s: &Session, now: DateTime<Utc>) -> String {
    let mut fields = head(s, now);
    if let Some(outcome) = &s.outcome {
        let code = outcome.exit_code.map(|code| format!("exit code {code}"));
        let reason = Some(outcome.reason.clone()).filter(|reason| *reason != outcome.phase);
        let why: Vec<_> = reason.into_iter().chain(code.filter(|code| !outcome.message.contains(code))).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
        let message = if outcome.message.is_empty() { String::new() } else { format!(": {}", outcome.message) };
        fields.add("Outcome", format!("{}{why}{message}", outcome.phase));
    }
    // Once it is over, the detail only repeats the outcome, unless something is still to come.
    let over = |detail: &StatusDetail| is_terminal(phase(s)) && detail.blocked_on.is_none();
    if let Some(detail) = s.status_detail.as_ref().filter(|detail| !over(detail)) {
        let more = [
            ("for", detail.blocked_on.clone()),
            ("next try", detail.next_retry_at.map(time)),
            ("execution", detail.workflow_execution.clone()),
        ];
        let more = more.into_iter().filter_map(|(name, value)| Some(format!(", {name} {}", value?)));
        fields.add("Waits", format!("{} since {}{}", detail.reason, time(detail.since), more.collect::<String>()));
    }
    if let Some(retention) = &s.retention {
        removed(retention, &mut fields);
    }
    if let Some(error) = &s.error {
        fields.add("Error", first_line(error));
    }
    if let Some(results) = &s.results {
        fields.add("Results", cut(&first_line(results), MAX_RESULTS));
    }
    let mut text = fields.into_text();
    if !s.repos.is_empty() {
        text += &format!("\n{}", repos(s).render(""));
    }
    for status in s.repo_statuses.iter().flatten() {
        text += &format!("{}\n", escape::line(&format!("{}: {}", status.repo, in_words(status))));
    }
    if !s.conditions.is_empty() {
        text += &format!("\n{}", conditions(s, now).render(""));
    }
    text
}

/// What is not there any more, and why.
fn removed(retention: &SessionRetention, fields: &mut Fields) {
    let when = |at: Option<DateTime<Utc>>| at.map(time).unwrap_or_default();
    if retention.retained_from_seq > 1 {
        let (last, at) = (retention.retained_from_seq - 1, when(retention.events_removed_at));
        fields.add("Events", format!("removed up to seq {last} by retention on {at}; the messages are kept"));
    }
    if retention.workspace_removed_at.is_some() {
        let (run, at) = (retention.workspace_removed_after_run, when(retention.workspace_removed_at));
        fields
            .add("Workspace", format!("that of run {run} was removed by retention on {at}; a later run clones again"));
    }
    if retention.snapshots_removed_at.is_some() {
        let at = when(retention.snapshots_removed_at);
        fields.add("Snapshots", format!("of turns until then were removed by retention on {at}"));
    }
}

fn head(s: &Session, now: DateTime<Utc>) -> Fields {
    let kind = if s.interactive { "interactive" } else { "batch" };
    let mut timeout = s.timeout.map_or_else(|| "no timeout".to_owned(), |seconds| format!("timeout {seconds} s"));
    if s.interactive && s.inactivity_timeout > 0 {
        timeout += &format!(", stopped after {} s without activity", s.inactivity_timeout);
    }
    let ran = s.start_time.map(|start| duration::span(s.completion_time.unwrap_or(now) - start));
    let mut fields = Fields::new(12);
    fields.add("Session", format!("{} ({})", s.name, s.id));
    fields.add("Project", &s.project_id);
    fields.add("Phase", phase(s));
    fields.add("Kind", format!("{kind}, agent type {}, {timeout}", s.agent_type));
    fields.add("Created", format!("{} by {}", time(s.created_at), s.created_by_user_id));
    if let Some(agent) = &s.agent_id {
        fields.add("Agent", agent);
    }
    if s.run > 0 {
        fields.add("Run", format!("{}, attempt {}, for {}", s.run, s.attempt, ran.unwrap_or_default()));
    }
    if let Some(prompt) = &s.prompt {
        fields.add("Prompt", cut(&first_line(prompt), 100));
    }
    if let Some(model) = &s.llm_model {
        fields.add("Model", model);
    }
    if !s.environment_variable_names.is_empty() {
        fields.add("Variables", s.environment_variable_names.join(", "));
    }
    if let Some(limits) = limits(&s.resource_overrides) {
        fields.add("Limits", limits);
    }
    if let Some(network) = &s.network {
        fields.add("Network", network.to_string());
    }
    if let Some(wanted) = &s.active_workflow {
        fields.add("Playbook", playbook(wanted, s.reconciled_workflow.as_ref()));
    }
    for (key, value) in &s.labels {
        fields.add("Label", format!("{key}={value}"));
    }
    for (key, value) in &s.annotations {
        fields.add("Annotation", format!("{key}={}", cut(value, 100)));
    }
    fields.add("Version", s.version.to_string());
    fields
}

/// As it is written on the command line, and whether it is in effect.
fn playbook(wanted: &Playbook, reconciled: Option<&ReconciledPlaybook>) -> String {
    let Playbook { git_url, branch, path } = wanted;
    let place = match (branch.as_deref().unwrap_or_default(), path.as_str()) {
        ("", "") => String::new(),
        (branch, "") => format!("#{branch}"),
        (branch, path) => format!("#{branch}:{path}"),
    };
    let same = |found: &&ReconciledPlaybook| (&found.git_url, &found.branch, &found.path) == (git_url, branch, path);
    let effect = match (reconciled.filter(same), reconciled) {
        (Some(found), _) => format!("at {}", found.commit.chars().take(12).collect::<String>()),
        (None, Some(_)) => "not in effect; an earlier one is".to_owned(),
        (None, None) => "not in effect".to_owned(),
    };
    format!("{git_url}{place}, {effect}")
}

/// The limits that the session sets itself.
fn limits(own: &ResourceOverrides) -> Option<String> {
    let ResourceOverrides { cpu, memory, processes, disk, open_files } = own.clone();
    let shown = [
        ("cpu", cpu),
        ("memory", memory),
        ("processes", processes.map(|number| number.to_string())),
        ("disk", disk),
        ("open files", open_files.map(|number| number.to_string())),
    ];
    let shown: Vec<_> = shown.into_iter().filter_map(|(name, limit)| Some(format!("{name} {}", limit?))).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// The wanted repositories, and their state.
fn repos(s: &Session) -> Table {
    let mut table = Table::new(["REPO", "BRANCH", "HEAD", "URL"]);
    for repo in &s.repos {
        let there = s
            .reconciled_repos
            .iter()
            .find(|there| there.url == repo.url && repo.name.as_ref().is_none_or(|name| *name == there.name));
        let name = there.map(|there| there.name.clone()).or_else(|| repo.name.clone()).unwrap_or_default();
        let branch = there.and_then(|there| there.branch.clone()).or_else(|| repo.branch.clone()).unwrap_or_default();
        let head = match there {
            None => "not there yet".to_owned(),
            Some(there) => there.head.as_deref().unwrap_or("empty").chars().take(12).collect(),
        };
        table.row([name, branch, head, repo.url.clone()]);
    }
    table
}

fn conditions(s: &Session, now: DateTime<Utc>) -> Table {
    let mut table = Table::new(["CONDITION", "STATUS", "REASON", "AGE", "MESSAGE"]);
    for c in &s.conditions {
        let age = duration::age(c.last_transition_time, now);
        table.row([c.condition_type.clone(), c.status.clone(), c.reason.clone(), age, c.message.clone()]);
    }
    table
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests;
