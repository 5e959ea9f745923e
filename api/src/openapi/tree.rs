//! Navigating the document.

use serde_json::{Map, Value};

/// Every operation with its path.
pub(super) fn each_operation(document: &mut Value, mut act: impl FnMut(&str, &mut Value)) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (path, item) in paths {
        operations(item).for_each(|(_, operation)| act(path, operation));
    }
}

/// Operations of a path, with their methods.
pub(super) fn operations(item: &mut Value) -> impl Iterator<Item = (&str, &mut Value)> {
    let methods = ["get", "put", "post", "delete", "patch"];
    item.as_object_mut()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
        .filter(move |(key, _)| methods.contains(key))
}

/// Reference to a schema of the components.
pub(super) fn schema_ref(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// Schemas of the components.
pub(super) fn schemas(document: &mut Value) -> Option<&mut Map<String, Value>> {
    document.pointer_mut("/components/schemas").and_then(Value::as_object_mut)
}

/// The schema of a property, if it has one.
pub(super) fn property<'a>(document: &'a mut Value, schema: &str, property: &str) -> Option<&'a mut Value> {
    schemas(document)?.get_mut(schema)?.get_mut("properties")?.get_mut(property)
}
