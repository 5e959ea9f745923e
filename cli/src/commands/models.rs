//! `ambient session models` and `ambient project models`: which models may be asked, and where.

use ambient_wire::model::{Model, ModelEndpoint, ModelLimits, ModelList, ModelOwner, ModelProvider};

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

/// Those of a session.
pub(super) async fn of_session(session: &str, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(session).await?;
    show(&Route::new(["sessions", &id, "models"]), connection).await
}

/// Those of a project.
pub(super) async fn of_project(project: &str, connection: &Connection) -> Result<Exit, CliError> {
    show(&Route::new(["projects", project, "models"]), connection).await
}

async fn show(route: &Route, connection: &Connection) -> Result<Exit, CliError> {
    let answer = connection.client.get(route).await?;
    match connection.format {
        OutputFormat::Json => connection.console.json(answer.text())?,
        OutputFormat::Name => {
            let list: ModelList = answer.decode()?;
            let names: String = list.items.iter().map(|model| format!("{}\n", model.id)).collect();
            connection.console.data(&names)?;
        }
        OutputFormat::Table => connection.console.data(&words(&answer.decode()?))?,
    }
    Ok(Exit::Success)
}

fn words(list: &ModelList) -> String {
    let mut models = Table::new(["MODEL", "DEFAULT", "INPUT", "OUTPUT", "NAMED BY"]);
    for Model { id, is_default, price, named_by } in &list.items {
        let of = |micros: fn(&ambient_wire::model::ModelPrice) -> u64| {
            price.as_ref().map(|price| money(micros(price), &price.currency)).unwrap_or_default()
        };
        let default = if *is_default { "yes" } else { "" };
        let (input, output) = (of(|price| price.input_micros), of(|price| price.output_micros));
        models.row([id.clone(), default.to_owned(), input, output, owner(*named_by).to_owned()]);
    }
    let mut endpoints = Table::new(["PROVIDER", "HOST", "KEY", "NAMED BY"]);
    for ModelEndpoint { provider, host, named_by, has_key } in &list.endpoints {
        let key = if *has_key { "yes" } else { "no" };
        endpoints.row([name(*provider).to_owned(), host.clone(), key.to_owned(), owner(*named_by).to_owned()]);
    }
    let others = if list.is_restricted { "" } else { "any other model may be asked too\n" };
    format!("{}{others}\n{}{}", models.render(""), endpoints.render(""), limits(list.session_limits))
}

fn limits(ModelLimits { tokens, cost_micros }: ModelLimits) -> String {
    let tokens = tokens.map(|tokens| format!("{} tokens", grouped(tokens)));
    let cost = cost_micros.map(|micros| money(micros, "of the server's currency"));
    let all: Vec<String> = tokens.into_iter().chain(cost).collect();
    if all.is_empty() { String::new() } else { format!("\nlimit for a session: {}\n", all.join(", ")) }
}

fn owner(owner: ModelOwner) -> &'static str {
    match owner {
        ModelOwner::Server => "server",
        ModelOwner::Project => "project",
        ModelOwner::Agent => "agent",
        ModelOwner::Session => "session",
    }
}

fn name(provider: ModelProvider) -> &'static str {
    match provider {
        ModelProvider::Openai => "openai",
        ModelProvider::Anthropic => "anthropic",
        ModelProvider::Gemini => "gemini",
    }
}
