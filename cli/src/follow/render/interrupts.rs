//! Permission requests of the agent, for people.

use serde_json::Value;

use super::text;
use crate::output::{Style, table::cut};

/// Longest title, characters.
const MAX_LINE: usize = 160;
/// Most files of a request that are named.
const MAX_PATHS: usize = 10;

/// The lines that tell of a `session.interrupt`.
pub(super) fn lines(data: &Value) -> Vec<(Style, String)> {
    match text(data, "change") {
        "raised" => raised(data),
        "answered" => vec![(Style::Dim, answered(data))],
        "closed" => closed(data).into_iter().map(|line| (Style::Yellow, line)).collect(),
        _ => Vec::new(),
    }
}

fn raised(data: &Value) -> Vec<(Style, String)> {
    let request = (Style::Yellow, format!("? {} ({})", cut(text(data, "title"), MAX_LINE), text(data, "interrupt_id")));
    // Whole: what is not seen must not be allowed.
    let command = data["command"].as_str().map(|command| (Style::Bold, format!("  $ {command}")));
    let paths: Vec<&str> = data["paths"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let more = paths.len().saturating_sub(MAX_PATHS);
    let named = paths.iter().take(MAX_PATHS).map(|path| (Style::Plain, format!("  {path}")));
    let more = (more > 0).then(|| (Style::Plain, format!("  and {more} more files")));
    let earlier = data["earlier_answer"].as_object().map(|_| {
        let earlier = &data["earlier_answer"];
        let (answer, by) = (text(earlier, "answer"), text(earlier, "by"));
        (Style::Dim, format!("  asked before: {answer}, by {by}, which the agent did not get"))
    });
    [request].into_iter().chain(command).chain(named).chain(more).chain(earlier).collect()
}

fn answered(data: &Value) -> String {
    let (answer, by) = (text(&data["given"], "answer"), text(&data["given"], "by"));
    let again = if data["repeated"] == true { ", as before" } else { "" };
    let rule = &data["rule"];
    let allowed = rule["command"].as_str().or(rule["path"].as_str());
    let rule = allowed.map(|what| format!("; allowed from now on: {what}")).unwrap_or_default();
    format!("  answered: {answer}, by {by}{again}{rule}")
}

/// That an answer has arrived is what everyone expects.
fn closed(data: &Value) -> Option<String> {
    let id = text(data, "interrupt_id");
    match text(data, "outcome") {
        "cancelled" => Some(format!("  request {id} is cancelled")),
        "expired" => Some(format!("  request {id} is rejected: nobody answered in time")),
        "lost" => Some(format!("  request {id} is lost with the agent")),
        _ => None,
    }
}
