//! What the values in definitions' bodies may be, for the document. A field has the same rules in every Kind, unless the Kind has
//! its own.

use ambient_wire::{git_url, name};
use serde_json::{Value, json};

use super::Resource;
use crate::schema_rules::{
    SECONDS_INACTIVE, SECONDS_OF_RUN, TEXT, branch, labels, labels_patch, merge, named, pattern, variables, without_nul,
};

/// Adds the rules to the schemas of a Kind's bodies.
pub(crate) fn constrain(document: &mut Value, resource: &Resource) {
    for (schema, labels) in [("Create", labels as fn(&Value) -> Value), ("Patch", labels_patch)] {
        let place = format!("/components/schemas/{}{schema}/properties", resource.title);
        let properties = document.pointer_mut(&place).and_then(Value::as_object_mut);
        for (field, property) in properties.into_iter().flatten() {
            let own = (resource.rules)(field);
            merge(property, &if own.is_null() { rules(field, labels) } else { own });
            without_nul(property);
        }
    }
}

fn rules(field: &str, labels: fn(&Value) -> Value) -> Value {
    let range = |(least, most): (i64, i64)| json!({"minimum": least, "maximum": most});
    match field {
        "project_id" => pattern("^[A-Za-z0-9-]+$", 63),
        "name" => named(name::MAX),
        "display_name" => json!({"pattern": format!("^$|{}", name::pattern()), "maxLength": name::MAX}),
        "agent_type" => named(100),
        "agent_mode" => named(200),
        "llm_model" => named(200),
        "llm_temperature" => range((0, 2)),
        "llm_max_tokens" => range((1, 10_000_000)),
        "timeout" => range(SECONDS_OF_RUN),
        "inactivity_timeout" => range(SECONDS_INACTIVE),
        "repo_url" | "url" => pattern(git_url::PATTERN, git_url::MAX),
        "environment_variables" => variables(),
        "branch" => branch(),
        "repo_name" => pattern("^[A-Za-z0-9_][A-Za-z0-9._-]*$", 100),
        "labels" => labels(&json!({"pattern": name::value_pattern()})),
        "annotations" => labels(&json!({"pattern": TEXT})),
        _ => json!({}),
    }
}
