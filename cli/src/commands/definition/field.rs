//! Fields of a definition and their flags, from the JSON Schema of its body.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use serde_json::{Map, Value, json};

/// The type of a flag's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Integer,
    Number,
    Boolean,
}

/// A field with its own flag. Maps and objects have none: labels, annotations and variables have flags shared by all Kinds,
/// and anything else can be written with `--from`.
#[derive(Debug)]
pub(super) struct Field {
    name: String,
    /// The argument's id: `url` alone is the server's.
    id: String,
    flag: String,
    /// The flag of the field's own name, which is also taken.
    own: String,
    about: String,
    value: Type,
    required: bool,
    /// Null clears it.
    nullable: bool,
}

/// Fields covered by other flags.
const APART: [&str; 4] = ["project_id", "name", "labels", "annotations"];

impl Field {
    /// Whether null clears it, by another rule than its schema's.
    pub(super) fn cleared_if(self, clears: impl Fn(&str) -> bool) -> Self {
        Self { nullable: clears(&self.name), ..self }
    }

    /// Whether null clears it.
    pub(super) fn is_cleared(&self) -> bool {
        self.nullable
    }
}

/// Fields of a body that changes something, each with a flag. A field that is not nullable at creation treats absent and null
/// alike, so it cannot be cleared.
pub(super) fn of_patch(schema: &Value, create: &[Field]) -> Vec<Field> {
    let clears = |name: &str| create.iter().any(|other| other.name == name && other.nullable);
    of_schema(schema).into_iter().map(|field| field.cleared_if(clears)).collect()
}

/// Fields of a body, each with a flag.
pub(super) fn of_schema(schema: &Value) -> Vec<Field> {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
    let properties = schema["properties"].as_object().into_iter().flatten();
    let own = properties.filter(|(name, _)| !APART.contains(&name.as_str()));
    own.filter_map(|(name, property)| {
        let types: Vec<&str> = match &property["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let value = types.iter().find_map(|one| match *one {
            "string" => Some(Type::Text),
            "integer" => Some(Type::Integer),
            "number" => Some(Type::Number),
            "boolean" => Some(Type::Boolean),
            _ => None,
        })?;
        let about = property["description"].as_str().unwrap_or_default();
        Some(Field {
            flag: flag(name),
            own: name.replace('_', "-"),
            id: format!("field {name}"),
            name: name.clone(),
            about: about.trim_end_matches('.').to_owned(),
            value,
            required: required(name),
            nullable: types.contains(&"null"),
        })
    })
    .collect()
}

/// As for sessions; and `--url` is the server's.
fn flag(field: &str) -> String {
    match field {
        "llm_model" => "model".to_owned(),
        "url" => "repo-url".to_owned(),
        other => other.replace('_', "-"),
    }
}

/// The required flags, for an example.
pub(super) fn required(fields: &[Field]) -> String {
    fields.iter().filter(|field| field.required).map(|field| format!(" --{} TEXT", field.flag)).collect()
}

/// Adds a flag for each field.
pub(super) fn with_flags(command: Command, fields: &'static [Field], creates: bool) -> Command {
    let nullable = fields.iter().filter(|field| field.nullable).map(|field| field.name.as_str());
    let command = if creates {
        command
    } else {
        command.mut_arg("clear", |arg| arg.value_parser(PossibleValuesParser::new(nullable)))
    };
    fields.iter().fold(command, |command, field| {
        let arg = Arg::new(field.id.as_str()).long(field.flag.as_str()).help(field.about.as_str());
        // The field's own name too, unless the server has taken it.
        let arg = if field.own == "url" { arg } else { arg.alias(field.own.as_str()) };
        let arg = match field.value {
            Type::Text => arg.value_name("TEXT"),
            Type::Integer => arg.value_name("NUMBER").value_parser(value_parser!(i64)).allow_negative_numbers(true),
            Type::Number => arg.value_name("NUMBER").value_parser(number).allow_negative_numbers(true),
            Type::Boolean => arg.value_name("true|false").value_parser(value_parser!(bool)),
        };
        let arg = if field.required && creates { arg.required_unless_present("from") } else { arg };
        let command = command.arg(arg.action(ArgAction::Set));
        if field.name == "prompt" { command.arg(prompt_file(field)) } else { command }
    })
}

/// JSON has no other numbers: "nan", or one that is too big, would be sent as null, which clears the field.
fn number(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("is not a finite number".to_owned()) }
}

const PROMPT_FILE: &str = "prompt file";

/// A prompt is long, so here as everywhere it may come from a file.
fn prompt_file(prompt: &'static Field) -> Arg {
    let arg = Arg::new(PROMPT_FILE).short('f').long("file").value_name("FILE").value_parser(value_parser!(PathBuf));
    arg.help("File with the prompt; - is standard input").conflicts_with(prompt.id.as_str())
}

/// The file with the prompt.
pub(super) fn given_file(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>(PROMPT_FILE).ok().flatten().cloned()
}

/// Values of the given flags.
pub(super) fn given(matches: &ArgMatches, fields: &[Field]) -> Map<String, Value> {
    let value = |field: &Field| {
        let name = field.id.as_str();
        match field.value {
            Type::Text => matches.get_one::<String>(name).map(|text| json!(text)),
            Type::Integer => matches.get_one::<i64>(name).map(|number| json!(number)),
            Type::Number => matches.get_one::<f64>(name).map(|number| json!(number)),
            Type::Boolean => matches.get_one::<bool>(name).map(|truth| json!(truth)),
        }
    };
    fields.iter().filter_map(|field| Some((field.name.clone(), value(field)?))).collect()
}
