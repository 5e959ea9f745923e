//! Names of lists, and the kind that every object declares.

use serde_json::{Value, json};

use super::tree::{property, schema_ref, schemas};

/// The macros call a page of `T` `List_T`, with `T` inlined as its items.
const GENERIC: &str = "List_";
/// Objects whose `kind` is not the name of their schema.
const KINDS: [(&str, &str); 2] = [("ApiError", "Error"), ("MessageAccepted", "Message")];

/// `List_Session` becomes `SessionList`, a list of references to `Session`.
pub(super) fn name(document: Value) -> Value {
    let mut document = rename(document);
    let Some(schemas) = schemas(&mut document) else { return document };
    let lists: Vec<String> = schemas.keys().filter(|name| is_list(name)).cloned().collect();
    for list in lists {
        let item = item_of(&list);
        let Some(items) = schemas.get_mut(&list).and_then(|list| list.pointer_mut("/properties/items")) else {
            continue;
        };
        let inline = items["items"].take();
        *items = json!({"type": "array", "description": "The items.", "items": {"$ref": schema_ref(item)}});
        schemas.entry(item).or_insert(inline);
    }
    document
}

fn is_list(schema: &str) -> bool {
    schema.ends_with("List")
}

fn item_of(list: &str) -> &str {
    list.trim_end_matches("List")
}

fn rename(value: Value) -> Value {
    let renamed = |name: &str| name.strip_prefix(GENERIC).map(|item| format!("{item}List"));
    match value {
        Value::String(text) => match text.strip_prefix(&schema_ref("")).and_then(renamed) {
            Some(name) => Value::String(schema_ref(&name)),
            None => Value::String(text),
        },
        Value::Array(items) => items.into_iter().map(rename).collect(),
        Value::Object(map) => {
            let rename = |(key, value): (String, Value)| (renamed(&key).unwrap_or(key), rename(value));
            Value::Object(map.into_iter().map(rename).collect())
        }
        other => other,
    }
}

/// Where `kind` names the object it has one value: a constant, by which clients tell objects apart.
pub(super) fn kinds(document: &mut Value) {
    let Some(schemas) = schemas(document) else { return };
    let names: Vec<String> = schemas.keys().cloned().collect();
    for name in names {
        let kind = KINDS.iter().find(|(schema, _)| *schema == name).map_or(name.as_str(), |(_, kind)| *kind);
        let said = property(document, &name, "kind").filter(|property| says(property, kind) || is_list(&name));
        if let Some(said) = said {
            said["const"] = json!(kind);
            said["description"] = json!("What the object is.");
        }
    }
}

/// The type's documentation of a `kind` is its value and nothing else, if it has only one.
fn says(property: &Value, kind: &str) -> bool {
    property["description"].as_str() == Some(&format!("`{kind}`."))
}
