//! `ambient executions`: the durable workflows behind sessions and projects.

mod history;

use ambient_wire::execution::{EndRequest, HistoryEvent, SignalRequest, WorkflowExecution};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Connection, input};
use crate::{
    OutputFormat,
    client::route::Route,
    error::CliError,
    exit::Exit,
    output::{duration, fields::Fields, table::Table},
};

/// Commands of workflow executions.
#[derive(Debug, Clone, Subcommand)]
pub enum ExecutionsCommand {
    /// List executions
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  ambient executions list --session fix-the-build --status Running"
    )]
    List(Filter),
    /// Show an execution with its activities in progress
    #[command(after_help = "Example:\n  ambient executions get session-start/2PzyKuGf4Pp1cYCmLvjkxyDiEBD/1.1")]
    Get {
        /// Workflow id
        id: String,
    },
    /// Show the history of an execution
    #[command(after_help = "Example:\n  ambient executions history session-stop/2PzyKuGf4Pp1cYCmLvjkxyDiEBD/1 -o json")]
    History {
        /// Workflow id
        id: String,
        /// Only events after this one
        #[arg(long, value_name = "EVENT")]
        after: Option<u32>,
        /// Maximum number of events to list
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        size: Option<u32>,
    },
    /// Send a signal
    #[command(
        after_help = "Example:\n  ambient executions signal session-supervise/2PzyKuGf4Pp1cYCmLvjkxyDiEBD/1 wake"
    )]
    Signal {
        /// Workflow id
        id: String,
        /// Signal name
        signal: String,
        /// Input of the signal
        #[arg(long, value_name = "JSON", value_parser = json, default_value = "null")]
        input: Value,
    },
    /// Ask an execution to cancel itself
    #[command(
        after_help = "Example:\n  ambient executions cancel session-start/2PzyKuGf4Pp1cYCmLvjkxyDiEBD/1.1 --reason 'wrong repository'"
    )]
    Cancel {
        /// Workflow id
        id: String,
        /// Reason, for people
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// End an execution at once, without cleaning up
    #[command(
        after_help = "Example:\n  ambient executions terminate session-start/2PzyKuGf4Pp1cYCmLvjkxyDiEBD/1.1 --reason 'stuck'"
    )]
    Terminate {
        /// Workflow id
        id: String,
        /// Reason, for people
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// Which executions.
#[derive(Debug, Clone, Args)]
pub struct Filter {
    /// Only those of a session, by id or name
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Workflow type, such as session-start or session-stop
    #[arg(long, value_name = "WORKFLOW")]
    workflow: Option<String>,
    /// Running, Completed, Failed, Canceled, Terminated, ContinuedAsNew or TimedOut
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Include all projects, not only the current one
    #[arg(short = 'A', long)]
    all_projects: bool,
    #[command(flatten)]
    paging: input::Paging,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))
}

pub(super) async fn run(command: ExecutionsCommand, connection: &Connection) -> Result<Exit, CliError> {
    match command {
        ExecutionsCommand::List(filter) => {
            let answer = connection.client.get(&list_route(filter, connection).await?).await?;
            connection.list(&answer, "executions", |e: &WorkflowExecution| &e.id, table)
        }
        ExecutionsCommand::Get { id } => {
            let answer = connection.client.get(&Route::new(["workflow_executions", &id])).await?;
            connection.object(&answer, |e: &WorkflowExecution| &e.id, details)
        }
        ExecutionsCommand::History { id, after, size } => {
            let route = Route::new(["workflow_executions", &id, "history"]).query("after", after).query("size", size);
            print_history(&route, connection).await
        }
        ExecutionsCommand::Signal { id, signal, input } => {
            let done = format!("signal '{signal}' sent to {id}");
            act(connection, &id, "signal", &SignalRequest { signal, input }, &done).await
        }
        ExecutionsCommand::Cancel { id, reason } => {
            let done = format!("asked {id} to cancel itself; 'ambient executions get {id}' shows when it has");
            act(connection, &id, "cancel", &EndRequest { reason }, &done).await
        }
        ExecutionsCommand::Terminate { id, reason } => {
            let done = format!("{id} is terminated");
            act(connection, &id, "terminate", &EndRequest { reason }, &done).await
        }
    }
}

async fn list_route(filter: Filter, connection: &Connection) -> Result<Route, CliError> {
    let (session, project) = match filter.session {
        Some(session) => (Some(connection.session_id(&session).await?), None),
        None if filter.all_projects => (None, None),
        None => (None, connection.chosen_project()),
    };
    let route = Route::new(["workflow_executions"])
        .query("session_id", session)
        .query("project_id", project)
        .query("workflow", filter.workflow)
        .query("status", filter.status);
    Ok(filter.paging.of(route))
}

async fn print_history(route: &Route, connection: &Connection) -> Result<Exit, CliError> {
    let answer = connection.client.get(route).await?;
    if connection.format == OutputFormat::Name {
        return Err(CliError::Usage("-o name: events of a history have no names; use -o table or json".to_owned()));
    }
    connection.list(&answer, "events", |e: &HistoryEvent| &e.event_type, history::table)
}

async fn act(
    connection: &Connection,
    id: &str,
    verb: &str,
    body: &impl serde::Serialize,
    done: &str,
) -> Result<Exit, CliError> {
    let answer = connection.client.post(&Route::new(["workflow_executions", id, verb]), body).await?;
    if connection.format == OutputFormat::Json && !answer.text().is_empty() {
        connection.console.json(answer.text())?;
    }
    connection.console.note(done);
    Ok(Exit::Success)
}

fn ran(e: &WorkflowExecution, now: DateTime<Utc>) -> String {
    e.started_at.map(|start| duration::span(e.closed_at.unwrap_or(now) - start)).unwrap_or_default()
}

fn table(executions: &[WorkflowExecution]) -> Table {
    let now = Utc::now();
    // An id starts with its workflow.
    let mut table = Table::new(["ID", "STATUS", "AGE", "RAN", "EVENTS"]);
    for e in executions {
        let age = e.started_at.map(|start| duration::age(start, now)).unwrap_or_default();
        let events = e.history_length.to_string();
        table.row([e.id.clone(), e.status.clone(), age, ran(e, now), events]);
    }
    table
}

fn details(e: &WorkflowExecution) -> String {
    let time =
        |t: Option<DateTime<Utc>>| t.map_or_else(|| "-".to_owned(), |t| t.to_rfc3339_opts(SecondsFormat::Millis, true));
    let mut fields = Fields::new(12);
    fields.add("Execution", &e.id);
    fields.add("Workflow", &e.workflow);
    fields.add("Status", &e.status);
    fields.add("Run ID", if e.run_id.is_empty() { "-" } else { &e.run_id });
    fields.add("Started", time(e.started_at));
    fields.add("Closed", time(e.closed_at));
    fields.add("Ran", ran(e, Utc::now()));
    fields.add("Events", e.history_length.to_string());
    let mut text = fields.into_text();
    if !e.pending_activities.is_empty() {
        let mut table = Table::new(["ACTIVITY", "STATE", "ATTEMPT", "NEXT TRY", "LAST FAILURE"]);
        for a in &e.pending_activities {
            let failure = a.last_failure.clone().unwrap_or_default();
            table.row([a.activity.clone(), a.state.clone(), a.attempt.to_string(), time(a.next_retry_at), failure]);
        }
        text += &table.render("");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_shows_what_it_waits_for() {
        let execution = WorkflowExecution {
            kind: "WorkflowExecution".to_owned(),
            id: "session-start/2abc/1.1".to_owned(),
            href: String::new(),
            run_id: String::new(),
            workflow: "session-start".to_owned(),
            status: "Running".to_owned(),
            started_at: DateTime::from_timestamp(0, 0),
            closed_at: DateTime::from_timestamp(75, 0),
            history_length: 12,
            pending_activities: vec![ambient_wire::execution::PendingActivity {
                activity: "launch".to_owned(),
                state: "Scheduled".to_owned(),
                attempt: 3,
                last_failure: Some("no space left".to_owned()),
                next_retry_at: DateTime::from_timestamp(80, 0),
            }],
        };
        insta::assert_snapshot!(details(&execution), @"
        Execution:  session-start/2abc/1.1
        Workflow:   session-start
        Status:     Running
        Run ID:     -
        Started:    1970-01-01T00:00:00.000Z
        Closed:     1970-01-01T00:01:15.000Z
        Ran:        1 min 15 s
        Events:     12
        ACTIVITY   STATE       ATTEMPT   NEXT TRY                   LAST FAILURE
        launch     Scheduled   3         1970-01-01T00:01:20.000Z   no space left
        ");
    }
}
