//! The contract: generated from the handlers, finished here, the same for every build.

pub(crate) mod constraints;

pub(crate) use self::constraints::ID;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use ambient_wire::error::{Error, ErrorDetail};
use serde_json::{Map, Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document, Tag,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::definitions::Resource;

const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ambient",
        description = "Runs AI coding agents as durable sessions.\n\nNames, labels, annotations, descriptions and reasons are kept \
            for ever: one that holds a URL with credentials is refused. A value of a label or annotation has at most 4096 bytes, \
            so has a path, a branch 244, a prompt or a message 1 MiB.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Error, ErrorDetail)),
    modifiers(&Security),
    tags(
        (name = "projects", description = "People, settings and sessions under one name"),
        (name = "sessions", description = "One agent with a workspace"),
        (name = "workspace", description = "Files and git of a running session"),
        (name = "live", description = "Live channels that never lose or repeat an event"),
        (name = "operations", description = "Accepted commands and facts"),
        (name = "workflow_executions", description = "What works in the background"),
        (name = "errors", description = "Numbers in error envelopes"),
        (name = "health", description = "Probes and metrics"),
        (name = "gone", description = "Routes that are gone on purpose")
    )
)]
struct Head;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The local administrator's token, or a session's own"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
        document.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    }
}

/// The document before its routes.
pub(crate) fn head() -> Document {
    let mut head = Head::openapi();
    let tag = |resource: &Resource| Tag::builder().name(resource.path).description(Some(resource.about)).build();
    head.tags.get_or_insert_default().extend(crate::routes::DEFINITIONS.iter().map(tag));
    head
}

/// The document. Keys are sorted, so that it is the same for every build.
#[must_use]
pub fn openapi() -> Value {
    let (_, document) = crate::routes::documented().split_for_parts();
    // A document is made of strings, numbers and maps of strings: it can always be serialised.
    sorted(finish(serde_json::to_value(&document).unwrap_or_default()))
}

/// The document as `openapi/openapi.yaml` holds it: what it is first, then its parts.
#[must_use]
pub fn openapi_yaml() -> String {
    let mut document = openapi();
    let part = |key: &str| json!({ key: document.get_mut(key).map(Value::take) });
    let parts: Vec<Value> = ["openapi", "info", "security", "tags", "paths", "components"].map(part).into();
    parts.iter().filter_map(|part| yaml_serde::to_string(part).ok()).collect()
}

/// Served text, made once.
pub(crate) fn json_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| openapi().to_string())
}

/// Served text, made once.
pub(crate) fn yaml_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(openapi_yaml)
}

/// Whether a route has parameters in its query.
pub(crate) fn takes_a_query(method: &str, route: &str) -> bool {
    static ROUTES: OnceLock<BTreeSet<(String, String)>> = OnceLock::new();
    let routes = ROUTES.get_or_init(|| {
        let mut document = openapi();
        let paths = document["paths"].as_object_mut().into_iter().flatten();
        let with_query = paths.flat_map(|(path, item)| {
            let in_query = |operation: &Value| {
                operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["in"] == "query")
            };
            let taking = operations(item).filter(move |(_, operation)| in_query(operation));
            taking.map(|(method, _)| (method.to_owned(), path.clone()))
        });
        with_query.collect()
    });
    let method = if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() };
    routes.contains(&(method, route.replace("{*", "{")))
}

/// Whether maps keep the order of insertion depends on what else is built; sorted insertion is the same either way.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(map) => {
            let map: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        other => other,
    }
}

/// What the macros cannot say: names of lists, wildcard paths, and what is the same for all operations.
fn finish(document: Value) -> Value {
    let mut document = rename_lists(document);
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
    let finished: Map<String, Value> = paths
        .into_iter()
        .map(|(path, mut item)| {
            operations(&mut item).for_each(|(_, operation)| finish_operation(operation));
            (path.replace("{*", "{"), item)
        })
        .collect();
    document["paths"] = Value::Object(finished);
    constraints::constrain(&mut document);
    document
}

/// `List_Session` becomes `SessionList`.
fn rename_lists(value: Value) -> Value {
    let renamed = |name: &str| name.strip_prefix("List_").map(|item| format!("{item}List"));
    match value {
        Value::String(text) => match text.strip_prefix("#/components/schemas/").and_then(renamed) {
            Some(name) => Value::String(format!("#/components/schemas/{name}")),
            None => Value::String(text),
        },
        Value::Array(items) => items.into_iter().map(rename_lists).collect(),
        Value::Object(map) => {
            let rename = |(key, value): (String, Value)| (renamed(&key).unwrap_or(key), rename_lists(value));
            Value::Object(map.into_iter().map(rename).collect())
        }
        other => other,
    }
}

fn operations(item: &mut Value) -> impl Iterator<Item = (&str, &mut Value)> {
    let methods = ["get", "put", "post", "delete", "patch"];
    item.as_object_mut()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
        .filter(move |(key, _)| methods.contains(key))
}

fn finish_operation(operation: &mut Value) {
    let header = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        for (status, response) in responses.iter_mut() {
            response["headers"]["X-Operation-ID"] = header("Names this request, or the operation that it made");
            if matches!(status.as_str(), "201" | "202") {
                response["headers"]["Location"] = header("Of the object (201), or of the execution at work (202)");
            }
            if matches!(status.as_str(), "409" | "503") {
                response["headers"]["Retry-After"] = header("Seconds, where a repetition makes sense");
            }
        }
    }
    body_is_an_object(operation);
    bytes_are_no_list(operation);
    let parameter = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    let key = json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"});
    let version = json!({"type": "string", "pattern": "^(\\*|[0-9]{1,18}|\"[0-9]{1,18}\")$"});
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    if operation["responses"].get("412").is_some() {
        parameters.push(parameter("If-Match", "Only at this version of the object", version));
    }
    if operation["responses"].get("422").is_some() {
        parameters.push(parameter("Idempotency-Key", "Makes the request repeatable for 24 h", key));
    }
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
}

/// A file is bytes, and no list of numbers.
fn bytes_are_no_list(operation: &mut Value) {
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    for (_, response) in responses.into_iter().flatten() {
        if let Some(content) = response.pointer_mut("/content/application~1octet-stream") {
            content["schema"] = json!({"type": "string", "format": "binary"});
        }
    }
}

/// An optional body is left out, it is never `null`.
fn body_is_an_object(operation: &mut Value) {
    let Some(schema) = operation.pointer_mut("/requestBody/content/application~1json/schema") else { return };
    let null = json!({"type": "null"});
    let object = schema["oneOf"].as_array().and_then(|all| all.iter().find(|one| **one != null)).cloned();
    if let Some(object) = object {
        *schema = object;
    }
}
