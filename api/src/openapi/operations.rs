//! What is common to all operations.

use serde_json::{Value, json};

use crate::responses::ANY_FAILURE;

/// Headers, bodies and parameters of an operation.
pub(super) fn finish(operation: &mut Value) {
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        for (status, response) in responses.iter_mut().filter(|(_, response)| response.get("$ref").is_none()) {
            headers(status, response);
        }
        responses.insert("default".to_owned(), failure());
    }
    body_is_an_object(operation);
    bytes_are_no_list(operation);
    let parameter = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    let key = json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"});
    let version = json!({"type": "string", "pattern": "^(\\*|[0-9]{1,18}|\"[0-9]{1,18}\")$"});
    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let has_own = parameters.iter().any(|parameter| parameter["name"] == "If-Match");
    if operation["responses"].get("412").is_some() && !has_own {
        parameters.push(parameter("If-Match", "Only if the object is at this version", version));
    }
    if operation["responses"].get("422").is_some() {
        parameters.push(parameter("Idempotency-Key", "Makes the request idempotent for 24 h", key));
    }
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
}

/// What a failure looks like that an operation does not list.
fn failure() -> Value {
    json!({"$ref": format!("#/components/responses/{ANY_FAILURE}")})
}

/// Headers of a response.
pub(super) fn headers(status: &str, response: &mut Value) {
    let header = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    response["headers"]["X-Operation-ID"] = header("Names this request, or the operation that it created");
    if matches!(status, "201" | "202") {
        response["headers"]["Location"] = header("Of the object (201), or of the execution that does the work (202)");
    }
    if matches!(status, "409" | "503") {
        response["headers"]["Retry-After"] = header("Seconds, if a retry makes sense");
    }
}

/// A file is bytes, not a list of numbers.
fn bytes_are_no_list(operation: &mut Value) {
    let (responses, body): (Vec<_>, Vec<_>) = match operation.as_object_mut() {
        Some(operation) => operation
            .iter_mut()
            .filter(|(name, _)| matches!(name.as_str(), "responses" | "requestBody"))
            .partition(|(name, _)| *name == "responses"),
        None => return,
    };
    let responses = responses.into_iter().filter_map(|(_, responses)| responses.as_object_mut()).flatten();
    for place in responses.chain(body).map(|(_, place)| place) {
        if let Some(content) = place.pointer_mut("/content/application~1octet-stream") {
            content["schema"] = json!({"type": "string", "format": "binary"});
            // Of an empty file there is none.
            if let Some(required) = place.get_mut("required") {
                *required = json!(false);
            }
        }
    }
}

/// An optional body is left out; it is never `null`.
fn body_is_an_object(operation: &mut Value) {
    let Some(schema) = operation.pointer_mut("/requestBody/content/application~1json/schema") else { return };
    let null = json!({"type": "null"});
    let object = schema["oneOf"].as_array().and_then(|all| all.iter().find(|one| **one != null)).cloned();
    if let Some(object) = object {
        *schema = object;
    }
}
