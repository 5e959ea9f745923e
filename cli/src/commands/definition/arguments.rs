//! Arguments common to the commands of all Kinds, and the request bodies they make.

use std::path::PathBuf;

use ambient_wire::network::Network;
use clap::{ArgMatches, Args, FromArgMatches};
use serde_json::{Map, Value, json};

use super::{
    super::{Connection, input},
    field::{self, Field},
    models, network, permissions,
    variables::{self, Variables},
};
use crate::{client::route::Route, error::CliError};

/// One definition.
#[derive(Debug, Clone, Args)]
pub(super) struct One {
    /// Id or name
    #[arg(value_name = "NAME")]
    pub(super) name: String,
}

/// Arguments of `get`.
#[derive(Debug, Clone, Args)]
pub(super) struct Get {
    /// Id or name
    #[arg(value_name = "NAME")]
    pub(super) one: String,
    /// As it was at this version
    #[arg(long, value_name = "VERSION")]
    pub(super) at_version: Option<i64>,
}

/// Arguments of `list`.
#[derive(Debug, Clone, Args)]
pub(super) struct List {
    /// Exact name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only those with this value in a field that the API filters by; may be repeated, and all must match
    #[arg(long = "filter", value_name = "FIELD=VALUE", value_parser = input::label)]
    filters: Vec<(String, String)>,
    /// Only those that have this label; may be repeated, and all must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = input::label)]
    labels: Vec<(String, String)>,
    /// Include all projects, not only the current one
    #[arg(short = 'A', long)]
    all_projects: bool,
    #[command(flatten)]
    paging: input::Paging,
    /// Column to sort by, such as name or created_at, followed by ' desc' for descending order [default: 'created_at desc']
    #[arg(long, value_name = "ORDER")]
    order_by: Option<String>,
}

impl List {
    pub(super) fn route(&self, path: &str, connection: &Connection) -> Route {
        let project = if self.all_projects { None } else { connection.chosen_project() };
        let route = Route::new([path])
            .query("project_id", project)
            .query("name", self.name.as_ref())
            .query("order_by", self.order_by.as_ref());
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let route = labels.fold(route, |route, label| route.query("label", Some(label)));
        let filters = self.filters.iter().cloned();
        self.paging.of(filters.fold(route, |route, (field, value)| route.query(field, Some(value))))
    }
}

/// Arguments of `create` that are not fields of the Kind.
#[derive(Debug, Clone, Args)]
pub(super) struct Create {
    /// Name, unique in the project
    #[arg(value_name = "NAME")]
    name: String,
    /// File with more fields, as a JSON object in the API's form; - is standard input. Flags override it
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Label, for selection; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = input::label)]
    labels: Vec<(String, String)>,
    /// Annotation, for tools; may be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = input::label)]
    annotations: Vec<(String, String)>,
    #[arg(skip)]
    fields: Map<String, Value>,
    #[arg(skip)]
    prompt_file: Option<PathBuf>,
    #[arg(skip)]
    variables: Variables,
    #[arg(skip)]
    permissions: Option<PathBuf>,
    #[arg(skip)]
    models: Option<PathBuf>,
    #[arg(skip)]
    network: Option<Network>,
}

impl Create {
    pub(super) fn read(matches: &ArgMatches, fields: &[Field]) -> Result<Self, clap::Error> {
        let given = Self::from_arg_matches(matches)?;
        let (fields, prompt_file) = (field::given(matches, fields), field::given_file(matches));
        let (variables, permissions) = (variables::given(matches), permissions::given(matches));
        let (models, network) = (models::given(matches), network::given(matches));
        Ok(Self { fields, prompt_file, variables, permissions, models, network, ..given })
    }

    /// The request body.
    pub(super) fn body(self, project: &str) -> Result<Value, CliError> {
        let mut body = object(self.from.as_deref())?;
        body.extend([("project_id".to_owned(), json!(project)), ("name".to_owned(), json!(self.name))]);
        body.extend(self.fields);
        let prompt = input::text_of("--file", self.prompt_file.as_deref())?;
        body.extend(prompt.map(|text| ("prompt".to_owned(), json!(text))));
        add(&mut body, "labels", input::by_key("--label", self.labels)?.into_iter().map(|(k, v)| (k, json!(v))))?;
        let annotations = input::by_key("--annotation", self.annotations)?;
        add(&mut body, "annotations", annotations.into_iter().map(|(k, v)| (k, json!(v))))?;
        self.variables.add_to(&mut body)?;
        permissions::add_to(&mut body, self.permissions.as_deref())?;
        models::add_to(&mut body, self.models.as_deref())?;
        network::add_to(&mut body, self.network);
        Ok(Value::Object(body))
    }
}

/// Arguments of `patch` that are not fields of the Kind.
#[derive(Debug, Clone, Args)]
pub(super) struct Patch {
    /// Id or name
    #[arg(value_name = "NAME")]
    pub(super) one: String,
    /// New name
    #[arg(long = "name", value_name = "NEW")]
    name: Option<String>,
    /// File with more changes, as a JSON merge patch; - is standard input. Flags override it
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Field to clear; may be repeated
    #[arg(long = "clear", value_name = "FIELD")]
    clear: Vec<String>,
    /// Label to set; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = input::label)]
    labels: Vec<(String, String)>,
    /// Label to remove; may be repeated
    #[arg(long = "remove-label", value_name = "KEY")]
    removed_labels: Vec<String>,
    /// Annotation to set; may be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = input::label)]
    annotations: Vec<(String, String)>,
    /// Annotation to remove; may be repeated
    #[arg(long = "remove-annotation", value_name = "KEY")]
    removed_annotations: Vec<String>,
    #[arg(skip)]
    fields: Map<String, Value>,
    #[arg(skip)]
    prompt_file: Option<PathBuf>,
    #[arg(skip)]
    variables: Variables,
    #[arg(skip)]
    permissions: Option<PathBuf>,
    #[arg(skip)]
    models: Option<PathBuf>,
    #[arg(skip)]
    network: Option<Network>,
}

impl Patch {
    pub(super) fn read(matches: &ArgMatches, fields: &[Field]) -> Result<Self, clap::Error> {
        let given = Self::from_arg_matches(matches)?;
        let (fields, prompt_file) = (field::given(matches, fields), field::given_file(matches));
        let (variables, permissions) = (variables::given(matches), permissions::given(matches));
        let (models, network) = (models::given(matches), network::given(matches));
        Ok(Self { fields, prompt_file, variables, permissions, models, network, ..given })
    }

    /// The request body.
    pub(super) fn body(self) -> Result<Value, CliError> {
        let mut body = object(self.from.as_deref())?;
        body.extend(self.clear.into_iter().map(|field| (field, Value::Null)));
        body.extend(self.name.map(|name| ("name".to_owned(), json!(name))));
        body.extend(self.fields);
        let prompt = input::text_of("--file", self.prompt_file.as_deref())?;
        body.extend(prompt.map(|text| ("prompt".to_owned(), json!(text))));
        let maps = [
            ("labels", "--label", self.labels, self.removed_labels),
            ("annotations", "--annotation", self.annotations, self.removed_annotations),
        ];
        for (field, flag, set, removed) in maps {
            let set = set.into_iter().map(|(key, value)| (key, json!(value)));
            let removed = removed.into_iter().map(|key| (key, Value::Null));
            add(&mut body, field, input::by_key(flag, set.chain(removed))?)?;
        }
        self.variables.add_to(&mut body)?;
        permissions::add_to(&mut body, self.permissions.as_deref())?;
        models::add_to(&mut body, self.models.as_deref())?;
        network::add_to(&mut body, self.network);
        if body.is_empty() {
            return Err(CliError::Usage("nothing to change: give a flag for each field to change".to_owned()));
        }
        Ok(Value::Object(body))
    }
}

/// A JSON object from a file; none if no file is given.
fn object(file: Option<&std::path::Path>) -> Result<Map<String, Value>, CliError> {
    let Some(text) = input::text_of("--from", file)? else { return Ok(Map::new()) };
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(CliError::Usage("--from: is not a JSON object".to_owned())),
        Err(error) => Err(CliError::Usage(format!("--from: is not JSON: {error}"))),
    }
}

/// Adds entries to a map in the body, if there are any. They override a null; anything else that is not a map could only be lost.
pub(super) fn add(
    body: &mut Map<String, Value>,
    field: &str,
    entries: impl IntoIterator<Item = (String, Value)>,
) -> Result<(), CliError> {
    let mut entries = entries.into_iter().peekable();
    if entries.peek().is_none() {
        return Ok(());
    }
    let map = body.entry(field).or_insert(Value::Null);
    if map.is_null() {
        *map = json!({});
    }
    let map = map.as_object_mut().ok_or_else(|| CliError::Usage(format!("--from: {field} is not an object")))?;
    map.extend(entries);
    Ok(())
}
