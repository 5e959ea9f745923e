//! `ambient engine check`: verifies what the engine has stored.

use std::process::ExitCode;

use ambient_engine::integrity::{self, Problem};
use ambient_postgres::connect_options;
use serde_json::json;
use sqlx::postgres::PgPoolOptions;

use super::{CommandError, Output};
use crate::commands::say::say;
use crate::{commands::database, config::ServerConfig, telemetry};

pub(super) async fn run(config: &ServerConfig, output: Output) -> Result<ExitCode, CommandError> {
    telemetry::init(config.log_format, &config.log_level)?;
    let database = database::found(config).await?;
    let failed = |error: &dyn std::fmt::Display| CommandError::Process(error.to_string());
    let options = connect_options(database.expose()).map_err(|error| failed(&format!("database: {error}")))?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .map_err(|error| failed(&format!("database: {error}")))?;
    let mut heading = output == Output::Table;
    let checked = integrity::check(&pool, |problem| {
        if std::mem::take(&mut heading) {
            say(format_args!("{:<40} {:<36} {:>6}  PROBLEM", "WORKFLOW", "RUN", "EVENT"));
        }
        print(&problem, output);
    });
    let checked = checked.await.map_err(|error| failed(&error))?;
    let summary = format!(
        "{} open and {} closed runs, {} events: {} problems",
        checked.open, checked.closed, checked.events, checked.problems
    );
    match output {
        Output::Table => eprintln!("{summary}"),
        Output::Json => say(
            json!({"open": checked.open, "closed": checked.closed, "events": checked.events, "problems": checked.problems}),
        ),
    }
    Ok(if checked.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(problem: &Problem, output: Output) {
    let run = problem.run_id.map(|run| run.to_string()).unwrap_or_default();
    let event = problem.event_id.map(|event| event.to_string()).unwrap_or_default();
    match output {
        Output::Table => say(format_args!("{:<40} {run:<36} {event:>6}  {}", problem.workflow_id, problem.what)),
        Output::Json => say(
            json!({"workflow_id": problem.workflow_id, "run_id": run, "event_id": problem.event_id, "problem": problem.what}),
        ),
    }
}
