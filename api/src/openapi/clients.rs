//! The part of the document that clients are generated from. What a generated client cannot use is marked `x-internal`, which
//! generators and other tools recognise.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    FRAMES,
    tree::{each_operation, operations},
};

const INTERNAL: &str = "x-internal";
/// Operations not meant for clients: the document itself and what collects metrics; and a path that spans slashes, which
/// generated clients encode (the server accepts either): `getWorkspaceFile` and so on are the same with the path in the query.
const NOT_FOR_CLIENTS: [&str; 6] = [
    "getOpenapiJson",
    "getOpenapiYaml",
    "getMetrics",
    "readWorkspaceFile",
    "writeWorkspaceFile",
    "removeWorkspaceFile",
];

/// Marks what is not for generated clients, including every operation without a success response: a WebSocket, or one that is gone for good.
pub(super) fn mark_internal(document: &mut Value) {
    each_operation(document, |_, operation| {
        let succeeds =
            operation["responses"].as_object().into_iter().flatten().any(|(status, _)| status.starts_with('2'));
        let named = operation["operationId"].as_str().is_some_and(|id| NOT_FOR_CLIENTS.contains(&id));
        if named || !succeeds {
            operation[INTERNAL] = json!(true);
        }
    });
}

/// The document without internal operations and what only they use.
pub(super) fn without_internal(mut document: Value) -> Value {
    let mut tags = BTreeSet::new();
    if let Some(paths) = document["paths"].as_object_mut() {
        for item in paths.values_mut().filter_map(Value::as_object_mut) {
            item.retain(|_, operation| operation.get(INTERNAL).is_none());
        }
        paths.retain(|_, item| operations(item).next().is_some());
        let operations = paths.values_mut().flat_map(operations);
        tags.extend(
            operations
                .flat_map(|(_, operation)| operation["tags"].as_array().cloned())
                .flatten()
                .map(|tag| tag.to_string()),
        );
    }
    if let Some(all) = document["tags"].as_array_mut() {
        all.retain(|tag| tags.contains(&tag["name"].to_string()));
    }
    while drop_unused(&mut document) {}
    document
}

/// Drops components that nothing refers to; returns whether there were any. What they referred to may then be unused.
fn drop_unused(document: &mut Value) -> bool {
    let text = document.to_string();
    let mut dropped = false;
    for section in ["schemas", "responses", "parameters"] {
        let components = document["components"].get_mut(section).and_then(Value::as_object_mut);
        let Some(components) = components else { continue };
        let before = components.len();
        components.retain(|name, _| {
            section == "schemas" && FRAMES.contains(&name.as_str())
                || text.contains(&format!("\"#/components/{section}/{name}\""))
        });
        dropped |= components.len() != before;
    }
    dropped
}
