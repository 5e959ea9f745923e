//! What operations have in common is written once: parameters and failures become components.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    operations,
    tree::{each_operation, schema_ref},
};
use crate::{
    error::CATALOGUE,
    responses::{ANY_FAILURE, response_name},
};

/// Moves shared parts into the components.
pub(super) fn share(document: &mut Value) {
    share_parameters(document);
    document["components"]["responses"] = failures(&document["paths"].to_string());
}

/// One response for each status that operations refer to.
fn failures(paths: &str) -> Value {
    let mut descriptions: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for number in CATALOGUE {
        let key = (response_name(*number), number.status().as_u16().to_string());
        descriptions.entry(key).or_default().push(number.meaning());
    }
    descriptions.insert((ANY_FAILURE.to_owned(), "default".to_owned()), vec!["any other failure"]);
    let used = descriptions.into_iter().filter(|((name, _), _)| paths.contains(&format!("/responses/{name}\"")));
    let response = |((name, status), meanings): ((String, String), Vec<&str>)| {
        let content = json!({"application/json": {"schema": {"$ref": schema_ref("ApiError")}}});
        let mut response = json!({"description": meanings.join("; or "), "content": content});
        operations::headers(&status, &mut response);
        (name, response)
    };
    Value::Object(used.map(response).collect())
}

/// A parameter that looks the same everywhere, in two operations or more, becomes a component. One with several forms stays where it is:
/// which of them were shared would change with every route.
fn share_parameters(document: &mut Value) {
    let mut forms: BTreeMap<(String, String), Vec<(Value, usize)>> = BTreeMap::new();
    each_parameter(document, |parameter| {
        let forms = forms.entry(key(parameter)).or_default();
        match forms.iter_mut().find(|(form, _)| form == parameter) {
            Some((_, uses)) => *uses += 1,
            None => forms.push((parameter.clone(), 1)),
        }
    });
    let shared = forms.into_iter().filter_map(|(key, forms)| match <[(Value, usize); 1]>::try_from(forms) {
        Ok([(form, uses)]) if uses > 1 => Some((key, form)),
        _ => None,
    });
    let shared: BTreeMap<(String, String), Value> = shared.collect();
    each_parameter(document, |parameter| {
        if shared.contains_key(&key(parameter)) {
            *parameter = json!({"$ref": format!("#/components/parameters/{}", component(&key(parameter)))});
        }
    });
    let components: Map<String, Value> = shared.into_iter().map(|(key, form)| (component(&key), form)).collect();
    document["components"]["parameters"] = Value::Object(components);
}

fn each_parameter(document: &mut Value, mut act: impl FnMut(&mut Value)) {
    each_operation(document, |_, operation| {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        parameters.into_iter().flatten().for_each(&mut act);
    });
}

/// Name and location.
fn key(parameter: &Value) -> (String, String) {
    let text = |key: &str| parameter[key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("in"))
}

/// `session_id` in a path is `SessionId`, in a query `SessionIdQuery`: generators put parameters and schemas into one namespace.
fn component((name, place): &(String, String)) -> String {
    let words = name.split(['_', '-']).map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    let name: String = words.collect();
    match place.as_str() {
        "query" => format!("{name}Query"),
        "header" => format!("{name}Header"),
        _ => name,
    }
}
