//! The contract: generated from the handlers, completed here, the same for every build.
//!
//! The macros say what a handler takes and returns. What they cannot express is added afterwards, in one pass over the document's
//! JSON ([`finish`]), each part in its own module. None of it knows any route: a new one gets the same treatment.

mod answers;
mod clients;
mod constraints;
mod enums;
mod examples;
mod lists;
mod nulls;
mod operations;
mod served;
mod shared;
mod tree;
mod unions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use ambient_wire::{
    error::{Error, ErrorDetail},
    live::{ClientFrame, FeedbackEvent, MessagesNotRunEvent, PhaseEvent, ServerFrame, UserMessageEvent},
    runner_event::RunnerEvent,
};
use serde_json::{Map, Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document, Tag,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use self::tree::{each_operation, operations as of_path};
use crate::{
    authority::AppState,
    definitions::Resource,
    routes::{self, DEFINITIONS},
};

const BEARER: &str = "bearer";
/// The WebSocket's frames, and what events say: they are in the document although no operation refers to them.
const FRAMES: [&str; 7] = [
    "ClientFrame",
    "ServerFrame",
    "RunnerEvent",
    "UserMessageEvent",
    "FeedbackEvent",
    "PhaseEvent",
    "MessagesNotRunEvent",
];
/// Where `ambient up` listens by default. Clients are given their own server's address.
const SERVER: &str = "http://127.0.0.1:7080";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ambient",
        description = "Runs AI coding agents as durable sessions.\n\nNames, labels, annotations, descriptions and reasons are kept \
            forever: one that contains a URL with credentials is refused. The value of a label or annotation, or a path, has at most \
            4096 bytes, a branch 244, a prompt or a message 1 MiB.\n\nIn requests, a property that may be `null` may also be absent, \
            which means the same, except in the bodies of `PATCH`, where each property says what `null` does. A release may add \
            properties to responses, and values to their enumerations: clients must not fail on them.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(
        Error,
        ErrorDetail,
        ClientFrame,
        ServerFrame,
        RunnerEvent,
        UserMessageEvent,
        FeedbackEvent,
        PhaseEvent,
        MessagesNotRunEvent
    )),
    modifiers(&Security),
    tags(
        (name = "projects", description = "People, settings and sessions under one name"),
        (name = "sessions", description = "One agent with a workspace"),
        (name = "workspace", description = "Files and git of a running session"),
        (name = "live", description = "Live channels that never lose or repeat an event"),
        (name = "agent_types", description = "Programs that can run as agents"),
        (name = "agui", description = "For user interfaces that speak AG-UI"),
        (name = "operations", description = "Accepted commands and facts"),
        (name = "workflow_executions", description = "Background work"),
        (name = "errors", description = "Meaning of the numbers in error envelopes"),
        (name = "health", description = "Probes and metrics"),
        (name = "gone", description = "Routes that were removed on purpose")
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

/// The document without its routes.
fn head() -> Document {
    let mut head = Head::openapi();
    let tag = |resource: &Resource| Tag::builder().name(resource.path).description(Some(resource.about)).build();
    head.tags.get_or_insert_default().extend(DEFINITIONS.iter().map(tag));
    head
}

/// The routes with their documentation.
pub(crate) fn documented() -> OpenApiRouter<AppState> {
    let beside = routes::health::routes().merge(served::routes());
    OpenApiRouter::with_openapi(head()).merge(beside).nest(ambient_wire::BASE, routes::resources())
}

/// The document. Its keys are sorted, so it is the same for every build.
#[must_use]
pub fn openapi() -> Value {
    let (_, document) = documented().split_for_parts();
    // A document consists of strings, numbers and maps of strings: it can always be serialised.
    sorted(finish(serde_json::to_value(&document).unwrap_or_default()))
}

/// The document as stored in `openapi/openapi.yaml`.
#[must_use]
pub fn openapi_yaml() -> String {
    yaml(openapi())
}

/// The part of the document that clients are generated from, as YAML: without what is marked `x-internal`.
#[must_use]
pub fn client_openapi_yaml() -> String {
    yaml(clients::without_internal(openapi()))
}

/// Identification first, then the parts.
fn yaml(mut document: Value) -> String {
    let part = |key: &str| json!({ key: document.get_mut(key).map(Value::take) });
    let parts: Vec<Value> = ["openapi", "info", "servers", "security", "tags", "paths", "components"].map(part).into();
    parts.iter().filter_map(|part| yaml_serde::to_string(part).ok()).collect()
}

/// The served text, built once.
fn json_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| openapi().to_string())
}

/// The served text, built once.
fn yaml_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(openapi_yaml)
}

/// Whether a route has query parameters.
pub(crate) fn takes_a_query(method: &str, route: &str) -> bool {
    static ROUTES: OnceLock<BTreeSet<(String, String)>> = OnceLock::new();
    let routes = ROUTES.get_or_init(|| {
        let mut document = openapi();
        let shared = document["components"]["parameters"].take();
        let in_query = |parameter: &Value| {
            let name = parameter["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
            name.map_or(parameter, |name| &shared[name])["in"] == "query"
        };
        let paths = document["paths"].as_object_mut().into_iter().flatten();
        let with_query = paths.flat_map(|(path, item)| {
            let taking = |operation: &Value| operation["parameters"].as_array().into_iter().flatten().any(in_query);
            let taking = of_path(item).filter(move |(_, operation)| taking(operation));
            taking.map(|(method, _)| (method.to_owned(), path.clone()))
        });
        with_query.collect()
    });
    let method = if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() };
    routes.contains(&(method, route.replace("{*", "{")))
}

/// Whether maps keep insertion order depends on what else is built; sorted insertion gives the same result either way.
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

/// What the macros cannot say. The order matters: shared parts must be final when they are extracted at the end.
fn finish(document: Value) -> Value {
    let mut document = lists::name(document);
    document["servers"] = json!([
        {"url": "/", "description": "The server that this document comes from"},
        {"url": SERVER, "description": "A server on this machine, as `ambient up` starts it"},
    ]);
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
    let finished: Map<String, Value> = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document["paths"] = Value::Object(finished);
    each_operation(&mut document, |_, operation| operations::finish(operation));
    unions::discriminate(&mut document);
    constraints::constrain(&mut document);
    lists::kinds(&mut document);
    enums::name(&mut document);
    nulls::explain(&mut document);
    answers::require(&mut document);
    examples::add(&mut document);
    clients::mark_internal(&mut document);
    shared::share(&mut document);
    document
}
