//! Unions of objects told apart by a property. The macros inline the objects; generators need names, and the name of the
//! property.

use serde_json::{Map, Value, json};

use super::tree::{schema_ref, schemas};

/// Names the members of every tagged union of the components, and its discriminator.
pub(super) fn discriminate(document: &mut Value) {
    let Some(schemas) = schemas(document) else { return };
    let unions: Vec<(String, String)> =
        schemas.iter().filter_map(|(name, schema)| Some((name.clone(), tag(schema)?))).collect();
    for (name, tag) in unions {
        let Some(Value::Array(members)) = schemas[&name].get_mut("oneOf").map(Value::take) else { continue };
        let (mut references, mut mapping) = (Vec::new(), Map::new());
        for member in members {
            let value = values(&member, &tag).unwrap_or_default();
            let member_name = format!("{name}{}", capitalised(&value));
            references.push(json!({"$ref": schema_ref(&member_name)}));
            mapping.insert(value, json!(schema_ref(&member_name)));
            schemas.insert(member_name, member);
        }
        schemas[&name]["oneOf"] = Value::Array(references);
        schemas[&name]["discriminator"] = json!({"propertyName": tag, "mapping": mapping});
    }
}

/// The property that tells a union's members apart: each has it, with a single value.
fn tag(schema: &Value) -> Option<String> {
    let members = schema["oneOf"].as_array().filter(|members| members.len() > 1)?;
    let candidates = parts(&members[0]).filter_map(|part| part["properties"].as_object()).flat_map(Map::keys);
    candidates.into_iter().find(|name| members.iter().all(|member| values(member, name).is_some())).cloned()
}

/// The single value that a member has for the property.
fn values(member: &Value, property: &str) -> Option<String> {
    parts(member).find_map(|part| match part["properties"][property]["enum"].as_array()?.as_slice() {
        [one] => one.as_str().map(str::to_owned),
        _ => None,
    })
}

/// An object, or the objects that it consists of.
fn parts(member: &Value) -> impl Iterator<Item = &Value> {
    let parts = member["allOf"].as_array().into_iter().flatten();
    std::iter::once(member).chain(parts)
}

/// `tool.started` as `ToolStarted`, which is a name in every language.
fn capitalised(value: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    value.split(['.', '_']).map(word).collect()
}
