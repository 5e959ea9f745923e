//! What responses always contain. The macros require only what can be neither null nor missing in a request; but a response includes its
//! empty properties too, and that makes clients simpler.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::tree::{each_operation, schema_ref, schemas};

/// Properties that responses leave out when empty (`skip_serializing_if`), besides `next` and `oldest` of a list.
const MAY_BE_ABSENT: [(&str, &str); 12] = [
    ("ApiError", "covers_seq"),
    ("ApiError", "details"),
    ("ApiError", "oldest"),
    ("GitFile", "original_path"),
    ("GitPushed", "notices"),
    ("LeftOut", "submodule"),
    ("Session", "error"),
    ("Session", "last_seq"),
    ("Session", "repo_statuses"),
    ("Session", "results"),
    ("Session", "retention"),
    ("Turn", "events_removed_at"),
];

/// Requires all other properties of schemas used only in responses. What a frame or an event consists of stays as it is: it leaves out what is
/// empty.
pub(super) fn require(document: &mut Value) {
    let mut sent = String::new();
    each_operation(document, |_, operation| sent.push_str(&operation["requestBody"].to_string()));
    let sent = reachable(document, sent);
    let answered = reachable(document, document["paths"].to_string());
    let is_answer = |name: &str| answered.contains(name) && !sent.contains(name);
    for (name, schema) in schemas(document).into_iter().flatten().filter(|(name, _)| is_answer(name)) {
        let Some(properties) = schema["properties"].as_object() else { continue };
        let may_be_absent = |property: &str| {
            ["next", "oldest"].contains(&property) && name.ends_with("List")
                || MAY_BE_ABSENT.contains(&(name, property))
        };
        let required: Vec<&String> = properties.keys().filter(|property| !may_be_absent(property)).collect();
        schema["required"] = json!(required);
    }
}

/// Names of the schemas that a text refers to, and those they refer to in turn.
fn reachable(document: &Value, mut text: String) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    loop {
        let prefix = format!("\"{}", schema_ref(""));
        let names = text.split(&prefix).skip(1).filter_map(|rest| rest.split('"').next());
        let new: Vec<String> = names.map(str::to_owned).filter(|name| found.insert(name.clone())).collect();
        if new.is_empty() {
            return found;
        }
        text = new.iter().map(|name| document["components"]["schemas"][name].to_string()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_absent_is_there_to_be_absent() {
        let document = crate::openapi();
        for (schema, property) in MAY_BE_ABSENT {
            let schema = &document["components"]["schemas"][schema];
            assert!(schema["properties"][property].is_object(), "{property}");
            assert!(!schema["required"].as_array().unwrap().contains(&json!(property)), "{property}");
        }
        let required = |schema: &str| document["components"]["schemas"][schema]["required"].to_string();
        assert!(required("Session").contains("completion_time"));
        assert!(!required("Repo").contains("branch"), "it is sent, too");
        assert!(!required("SessionPatch").contains("name"));
    }
}
