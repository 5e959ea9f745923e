//! What `null` means. For a merge patch the types know: a property that distinguishes `null` from absence reads it as something.

use ambient_wire::{
    project::ProjectPatch,
    session::{ResourcePatch, SessionPatch},
};
use serde_json::{Value, json};

use super::tree::schemas;
use crate::{routes::DEFINITIONS, schema_rules::tells_null};

/// A patch by its schema, and whether its type distinguishes `null` from absence in a property.
type Patch = (String, fn(&str) -> bool);

/// Adds to the description of every property of a patch what `null` and absence do.
pub(super) fn explain(document: &mut Value) {
    let own: [Patch; 3] = [
        ("ProjectPatch".to_owned(), tells_null::<ProjectPatch>),
        ("SessionPatch".to_owned(), tells_null::<SessionPatch>),
        ("ResourcePatch".to_owned(), tells_null::<ResourcePatch>),
    ];
    let definitions = DEFINITIONS.iter().map(|kind| (format!("{}Patch", kind.title), kind.tells_null));
    let Some(schemas) = schemas(document) else { return };
    for properties in schemas.values_mut().filter_map(|schema| schema.get_mut("properties")?.as_object_mut()) {
        properties.values_mut().for_each(describe_beside_reference);
    }
    for (patch, tells_null) in own.into_iter().chain(definitions) {
        let properties = schemas.get_mut(&patch).and_then(|patch| patch.get_mut("properties")?.as_object_mut());
        for (name, property) in properties.into_iter().flatten() {
            let does = match tells_null(name) {
                true => "`null` removes it, absent leaves it unchanged.",
                false if property.get("additionalProperties").is_some() => {
                    "Entries that are not named stay as they are."
                }
                false => "`null` or absent leaves it unchanged.",
            };
            let description = property["description"].as_str().unwrap_or_default();
            property["description"] = json!(format!("{description} {does}").trim_start());
        }
    }
}

/// The macros put the description of a nullable reference into one of its two alternatives, where generators lose it.
fn describe_beside_reference(property: &mut Value) {
    let reference = property.pointer_mut("/oneOf/0").and_then(Value::as_object_mut);
    if let Some(description) = reference.and_then(|reference| reference.remove("description")) {
        property["description"] = description;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_patch_says_of_each_property_what_null_does() {
        let document = crate::openapi();
        let said = |schema: &str, property: &str| {
            document["components"]["schemas"][schema]["properties"][property]["description"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        for (schema, property, does) in [
            ("SessionPatch", "timeout", "`null` removes it"),
            ("SessionPatch", "resource_overrides", "`null` removes it"),
            ("SessionPatch", "name", "`null` or absent leaves it"),
            ("SessionPatch", "labels", "Entries that are not named stay"),
            ("ProjectPatch", "settings", "`null` or absent leaves it"),
            ("ResourcePatch", "memory", "`null` removes it"),
        ] {
            assert!(said(schema, property).contains(does), "{schema}.{property}: {}", said(schema, property));
        }
    }
    #[test]
    fn no_patch_is_left_out() {
        let document = crate::openapi();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (patch, schema) in schemas.iter().filter(|(name, _)| name.ends_with("Patch")) {
            for (property, schema) in schema["properties"].as_object().unwrap() {
                let said = schema["description"].as_str().unwrap();
                assert!(said.contains("leaves it") || said.contains("stay as they are"), "{patch}.{property}: {said}");
            }
        }
    }
}
