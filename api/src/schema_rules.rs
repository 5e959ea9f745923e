//! What values of a type may be, in JSON Schema terms and matching the checks: what the document is built from, and a Kind's own
//! rules.

use ambient_domain::name::{MAX_ENTRIES, MAX_VALUE_BYTES};
use ambient_wire::name;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A text without NUL, which the database cannot store. Limits of a kilobyte and more are only described in words: tools that generate
/// examples at the limits take minutes for each.
pub(crate) const TEXT: &str = "^[^\\u0000]*$";
pub(crate) const ID: &str = "^[0-9A-Za-z]{27}$";
/// Maximum duration of a run, and of inactivity.
pub(crate) const SECONDS_OF_RUN: (i64, i64) = (1, 30 * 86_400);
pub(crate) const SECONDS_INACTIVE: (i64, i64) = (0, 365 * 86_400);

pub(crate) fn pattern(pattern: &str, max: usize) -> Value {
    json!({"pattern": pattern, "minLength": 1, "maxLength": max})
}

/// A name that people give.
pub(crate) fn named(max: usize) -> Value {
    pattern(&name::pattern(), max)
}

pub(crate) fn labels(value: &Value) -> Value {
    let mut value = value.clone();
    value["description"] = json!(format!("At most {MAX_VALUE_BYTES} bytes."));
    json!({
        "maxProperties": MAX_ENTRIES,
        "propertyNames": {"pattern": name::KEY_PATTERN, "maxLength": name::MAX_KEY},
        "additionalProperties": value,
    })
}

/// In a patch. A key that is only removed may follow an older rule (`ambient_domain::name::is_key`).
pub(crate) fn labels_patch(value: &Value) -> Value {
    let mut rules = labels(value);
    rules["propertyNames"]["pattern"] = json!("^[A-Za-z0-9_./-]+$");
    let not_allowed = format!("^(?!{})", name::KEY_PATTERN.trim_start_matches('^'));
    rules["patternProperties"] = json!({not_allowed: {"type": "null"}});
    rules
}

/// A branch, by git's rules and our own.
pub(crate) fn branch() -> Value {
    let taken = name::value_pattern();
    let class = taken.trim_start_matches("^[^").trim_end_matches("]*$");
    let forbidden = format!("{class} ~\\^:?*\\[\\\\");
    let parts = "(?!.*(\\.\\.|//|/\\.|@\\{|\\.lock(/|$)))(?!(HEAD|@)$)(?!refs/)";
    pattern(&format!("^{parts}[^\\-+/.{forbidden}]([^{forbidden}]*[^/.{forbidden}])?$"), 244)
}

/// An agent's environment variables.
pub(crate) fn variables() -> Value {
    let name = "^(?!(AMBIENT_|GIT_AUTHOR_|GIT_COMMITTER_|(HOME|TMPDIR|GIT_CONFIG_NOSYSTEM|GIT_CONFIG_GLOBAL)$))[A-Za-z_][A-Za-z0-9_]*$";
    json!({
        "maxProperties": MAX_ENTRIES,
        "propertyNames": {"pattern": name, "maxLength": 128},
        "additionalProperties": {"pattern": TEXT},
    })
}

/// Adds rules to what is there; for an object, one by one.
pub(crate) fn merge(place: &mut Value, rules: &Value) {
    for (key, rule) in rules.as_object().into_iter().flatten() {
        match rule {
            Value::Object(_) if place[key].is_object() => merge(&mut place[key], rule),
            // Null is a value of its own, if there is one.
            Value::Array(values) if key == "enum" && is_nullable(place) => {
                place[key] = values.iter().cloned().chain([Value::Null]).collect();
            }
            rule => place[key] = rule.clone(),
        }
    }
}

pub(crate) fn is_nullable(schema: &Value) -> bool {
    schema["type"].as_array().is_some_and(|types| types.contains(&json!("null")))
}

pub(crate) fn without_nul(property: &mut Value) {
    let is_text =
        property["type"] == "string" || property["type"].as_array().is_some_and(|all| all.contains(&json!("string")));
    if is_text
        && property.get("pattern").is_none()
        && property.get("enum").is_none()
        && property.get("format").is_none()
    {
        property["pattern"] = json!(TEXT);
    }
}

/// Whether a patch distinguishes `null` from absence in a property.
pub(crate) fn tells_null<T: DeserializeOwned + Default + PartialEq>(property: &str) -> bool {
    serde_json::from_value::<T>(json!({ property: null })).is_ok_and(|patch| patch != T::default())
}
