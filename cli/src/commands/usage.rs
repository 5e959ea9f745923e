//! `ambient session usage` and `ambient project usage`: what model calls have used.

use ambient_wire::{
    model::BudgetPeriod,
    runner_event::UsageSource,
    usage::{BudgetUsage, ModelUsage, ProjectUsage, SessionUsage, TokenUsage},
};
use serde::de::DeserializeOwned;

use super::Connection;
use crate::{
    OutputFormat,
    client::route::Route,
    error::CliError,
    exit::Exit,
    output::{
        figures::{grouped, money},
        table::Table,
    },
};

/// What a session has used.
pub(super) async fn of_session(session: &str, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(session).await?;
    show(&Route::new(["sessions", &id, "usage"]), connection, |usage: &SessionUsage| {
        let runs = usage.runs.iter().map(|run| (run.run.to_string(), &run.usage));
        tables("RUN", runs.collect(), &usage.models, &usage.total)
    })
    .await
}

/// What a project's sessions have used.
pub(super) async fn of_project(project: &str, connection: &Connection) -> Result<Exit, CliError> {
    show(&Route::new(["projects", project, "usage"]), connection, |usage: &ProjectUsage| {
        let days = usage.days.iter().map(|day| (day.day.to_string(), &day.usage));
        let tables = tables("DAY (UTC)", days.collect(), &usage.models, &usage.total);
        usage.budget.as_ref().map_or_else(|| tables.clone(), |of| format!("{tables}\n{}", budget(of)))
    })
    .await
}

async fn show<T: DeserializeOwned>(
    route: &Route,
    connection: &Connection,
    words: impl Fn(&T) -> String,
) -> Result<Exit, CliError> {
    let answer = connection.client.get(route).await?;
    match connection.format {
        OutputFormat::Json => connection.console.json(answer.text())?,
        OutputFormat::Name => return Err(CliError::Usage("-o name: usage has no ids".to_owned())),
        OutputFormat::Table => connection.console.data(&words(&answer.decode()?))?,
    }
    Ok(Exit::Success)
}

fn tables(key: &'static str, parts: Vec<(String, &TokenUsage)>, models: &[ModelUsage], total: &TokenUsage) -> String {
    if total.calls == 0 {
        return "no model calls\n".to_owned();
    }
    let mut table = headed(key);
    parts.into_iter().for_each(|(name, usage)| row(&mut table, name, usage));
    row(&mut table, "total".to_owned(), total);
    let mut by_model = headed("MODEL");
    models.iter().for_each(|of| row(&mut by_model, of.model.clone(), &of.usage));
    format!("{}\n{}", table.render(""), by_model.render(""))
}

fn budget(of: &BudgetUsage) -> String {
    let period = match of.period {
        Some(BudgetPeriod::Day) => "today (UTC)",
        Some(BudgetPeriod::Month) => "this month (UTC)",
        None => "of the project",
    };
    let left = |limit: Option<u64>, left: Option<u64>, shown: &dyn Fn(u64) -> String| {
        Some(format!("{} left of {}", shown(left?), shown(limit?)))
    };
    let tokens = left(of.tokens, of.left_tokens, &|tokens| format!("{} tokens", grouped(tokens)));
    let cost = left(of.cost_micros, of.left_cost_micros, &|micros| money(micros, &of.currency));
    let all: Vec<String> = tokens.into_iter().chain(cost).collect();
    format!("budget {period}: {}\n", all.join("; "))
}

fn headed(key: &'static str) -> Table {
    Table::new([key, "CALLS", "INPUT", "CACHED", "OUTPUT", "REASONING", "COST", "COUNTED BY"])
}

fn row(table: &mut Table, name: String, usage: &TokenUsage) {
    let count = |number: i64| grouped(number.unsigned_abs());
    let TokenUsage { calls, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, .. } = *usage;
    let [calls, input, cached, output, reasoning] =
        [calls, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens].map(count);
    table.row([name, calls, input, cached, output, reasoning, cost(usage).unwrap_or_default(), counter(usage)]);
}

/// What it has cost, if that is known.
pub(super) fn cost(usage: &TokenUsage) -> Option<String> {
    Some(money(usage.cost_micros?.unsigned_abs(), usage.currency.as_deref()?))
}

fn counter(usage: &TokenUsage) -> String {
    let by = match usage.counted_by {
        Some(UsageSource::Proxy) => "the model proxy",
        Some(UsageSource::Agent) => "the agent",
        None => "both",
    };
    by.to_owned()
}
