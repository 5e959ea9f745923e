//! The contract.

use std::path::Path;

use ambient_wire::runner_event::RunnerEvent;
use serde_json::{Value, json};

use crate::support::Server;

#[test]
fn the_committed_document_is_what_the_handlers_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/openapi.yaml");
    let generated = ambient_api::openapi_yaml();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "openapi/openapi.yaml has drifted; UPDATE_OPENAPI=1 cargo test -p ambient-api rewrites it"
    );
}

/// What a reference refers to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str();
    reference.map_or(value, |reference| {
        let found = document.pointer(reference.trim_start_matches('#'));
        found.unwrap_or_else(|| panic!("{reference} is referred to but not there"))
    })
}

fn each_operation(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

#[test]
fn every_operation_is_documented_alike() {
    let document = ambient_api::openapi();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = std::collections::BTreeSet::new();
    for (name, operation) in each_operation(&document) {
        assert!(!name.contains('*'), "{name}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} is used twice");
        assert!(!operation["tags"].as_array().unwrap().is_empty(), "{name}");
        assert_eq!(operation["responses"]["default"]["$ref"], "#/components/responses/Failure", "{name}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolved(&document, response);
            assert!(response["headers"]["X-Operation-ID"].is_object(), "{name} {status}");
            let failure = status.as_str() >= "400" && !name.ends_with("/readyz");
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            assert!(!failure || schema == "#/components/schemas/ApiError", "{name} {status}: {schema}");
        }
    }
    let text = document.to_string();
    assert!(!text.contains("List_"), "lists are named");
    for reference in text.split("\"#/").skip(1) {
        let pointer = format!("/{}", reference.split('"').next().unwrap());
        assert!(document.pointer(&pointer).is_some(), "{pointer} is referred to but not there");
    }
}

#[test]
fn a_list_refers_to_its_items() {
    let document = ambient_api::openapi();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let lists: Vec<&str> = schemas.keys().filter_map(|name| name.strip_suffix("List")).collect();
    assert!(lists.len() > 8, "{lists:?}");
    for item in lists {
        let list = &schemas[&format!("{item}List")]["properties"];
        assert_eq!(list["items"]["items"], json!({"$ref": format!("#/components/schemas/{item}")}));
        assert_eq!(list["kind"]["const"], format!("{item}List"));
    }
}

#[test]
fn every_object_with_an_address_says_what_it_is() {
    let document = ambient_api::openapi();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas.iter().filter(|(_, schema)| schema["properties"]["href"].is_object()) {
        let kind = if name == "ApiError" { "Error" } else { name };
        assert_eq!(schema["properties"]["kind"]["const"], kind, "the documentation of {name}.kind must be `{kind}`.");
    }
}

/// Every property has a type: what is without one may be anything, and generators make nothing of it.
#[test]
fn nothing_but_the_input_of_a_signal_and_what_agents_and_tools_tell_each_other_may_be_anything() {
    let open = [
        ("SignalRequest", "input"),
        ("InputMessage", "content"),
        ("ResumeEntry", "payload"),
        ("RunnerEventAgentSettings", "commands"),
        ("RunnerEventAgentSettings", "config_options"),
        ("RunnerEventToolStarted", "input"),
        ("ToolChange", "input"),
        ("ToolChange", "output"),
    ];
    let document = ambient_api::openapi();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (schema, property, value) in schemas.iter().flat_map(|(schema, value)| {
        let properties = value["properties"].as_object().into_iter().flatten();
        properties.map(move |(property, value)| (schema, property, value))
    }) {
        let typed = ["type", "$ref", "oneOf", "const"].iter().any(|key| value.get(key).is_some());
        assert_eq!(typed, !open.contains(&(schema.as_str(), property.as_str())), "{schema}.{property}");
    }
}

#[test]
fn a_tagged_union_names_its_members_and_its_tag() {
    let document = ambient_api::openapi();
    let frame = &document["components"]["schemas"]["ClientFrame"];
    assert_eq!(frame["discriminator"]["propertyName"], "op");
    let member = &frame["discriminator"]["mapping"]["subscribe"];
    assert_eq!(frame["oneOf"][0]["$ref"], *member);
    assert_eq!(resolved(&document, &frame["oneOf"][0])["properties"]["op"]["enum"], json!(["subscribe"]));
}

/// The types of events in the document.
fn event_types(document: &Value) -> Vec<String> {
    let mapping = &document["components"]["schemas"]["RunnerEvent"]["discriminator"]["mapping"];
    mapping.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_event_of_runners_is_in_the_document_and_the_guide_has_an_example_of_it() {
    let guide = include_str!("../../../docs/live-channels.md");
    let lines =
        guide.lines().filter_map(|line| line.strip_prefix("    {\"type\":")).map(|rest| format!("{{\"type\":{rest}"));
    let examples: Vec<Value> = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    let mut told: Vec<String> = examples.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    for example in examples {
        let read: RunnerEvent =
            serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_eq!(serde_json::to_value(read).unwrap(), example);
    }
    told.sort();
    assert_eq!(told, event_types(&ambient_api::openapi()));
}

#[test]
fn what_clients_are_generated_from_leaves_out_what_they_cannot_use() {
    let all = ambient_api::openapi();
    let clients: Value = yaml_serde::from_str(&ambient_api::client_openapi_yaml()).unwrap();
    let internal: Vec<String> =
        each_operation(&all).filter(|(_, operation)| operation["x-internal"] == true).map(|(name, _)| name).collect();
    let kept: Vec<String> = each_operation(&clients).map(|(name, _)| name).collect();
    assert_eq!(internal.len() + kept.len(), each_operation(&all).count());
    for left_out in
        ["get /api/ambient/v1/live", "put /api/ambient/v1/sessions/{session_id}/status", "get /openapi.json"]
    {
        assert!(internal.iter().any(|name| name == left_out), "{left_out}");
    }
    for (name, operation) in each_operation(&clients) {
        let statuses = operation["responses"].as_object().unwrap().keys();
        assert!(statuses.into_iter().any(|status| status.starts_with('2')), "{name}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = resolved(&clients, parameter);
            assert!(!parameter["schema"].to_string().contains("null"), "{name}: {parameter}");
        }
    }
    let components = &clients["components"];
    assert!(components["responses"].get("UpgradeRequired").is_none(), "only WebSockets have it");
    assert!(components["schemas"]["Session"].is_object());
}

#[tokio::test]
async fn the_document_and_the_probes_are_served_to_everybody() {
    let server = Server::start().await;
    let at = |path: &str| server.http.get(format!("http://{}{path}", server.address));
    let yaml = at("/openapi.yaml").send().await.unwrap().text().await.unwrap();
    assert_eq!(yaml, ambient_api::openapi_yaml());
    let json: serde_json::Value = at("/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(json, ambient_api::openapi());
    for path in ["/livez", "/readyz", "/version", "/metrics", "/api/ambient/v1/errors", "/api/ambient/v1/errors/412"] {
        let response = at(path).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        assert_eq!(response.headers()["x-operation-id"].len(), 27, "{path}");
    }
    let ready: serde_json::Value = at("/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["checks"].as_array().unwrap().len(), 3);
}
