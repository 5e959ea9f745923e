//! How a definition is shown: all Kinds alike, by their field names.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use super::Kind;
use crate::output::{
    duration,
    fields::Fields,
    table::{Table, cut},
};

/// Fields shown in the head of [`details`].
const HEAD: [&str; 9] =
    ["kind", "id", "href", "name", "project_id", "created_at", "created_by_user_id", "updated_at", "version"];

pub(super) fn id(one: &Value) -> &str {
    one["id"].as_str().unwrap_or_default()
}

pub(super) fn table(kind: &'static Kind, all: &[Value]) -> Table {
    let own = kind.table.iter().map(|(_, heading)| heading.as_str());
    let mut table = Table::of(["ID", "NAME"].into_iter().chain(own).chain(["AGE"]).collect());
    for one in all {
        let own = kind.table.iter().map(|(field, _)| cut(&text(&one[*field]), 60));
        let age = time(one, "created_at").map(|created| duration::age(created, Utc::now())).unwrap_or_default();
        let cells = [id(one).to_owned(), cut(&text(&one["name"]), 40)].into_iter().chain(own).chain([age]);
        table.add(cells.collect());
    }
    table
}

pub(super) fn details(kind: &Kind, one: &Value) -> String {
    let shown = |field: &str| {
        let at = time(one, field).map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
        at.unwrap_or_default()
    };
    let mut own = Vec::new();
    let mut maps = Vec::new();
    for (field, value) in one.as_object().into_iter().flatten().filter(|(field, _)| !HEAD.contains(&field.as_str())) {
        match value {
            Value::Object(map) => {
                let field = title(field.trim_end_matches('s'));
                maps.extend(map.iter().map(|(key, value)| (field.clone(), format!("{key}={}", text(value)))));
            }
            value => own.push((title(field), text(value))),
        }
    }
    let lines = || own.iter().chain(&maps).filter(|(_, value)| !value.is_empty());
    let head = title(kind.entity_kind);
    let width = lines().map(|(name, _)| name.len()).chain([head.len(), "Project".len()]).max().unwrap_or_default();
    let mut fields = Fields::new(width + 2);
    fields.add(&head, format!("{} ({})", text(&one["name"]), id(one)));
    fields.add("Project", text(&one["project_id"]));
    fields.add("Created", format!("{} by {}", shown("created_at"), text(&one["created_by_user_id"])));
    fields.add("Version", text(&one["version"]));
    lines().for_each(|(name, value)| fields.add_text(name, value));
    fields.into_text()
}

/// Written in capitals wherever they are shown.
const ACRONYMS: [&str; 7] = ["api", "cpu", "id", "llm", "mcp", "uid", "url"];

/// `Repo URL` of `repo_url`.
pub(super) fn title(field: &str) -> String {
    let word = |word: &str| if ACRONYMS.contains(&word) { word.to_uppercase() } else { word.to_owned() };
    let words = field.split('_').map(word).collect::<Vec<_>>().join(" ");
    let (first, rest) = words.split_at(words.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(several) => several.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn time(one: &Value, field: &str) -> Option<DateTime<Utc>> {
    one[field].as_str().and_then(|text| text.parse().ok())
}
