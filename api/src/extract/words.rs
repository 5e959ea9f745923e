//! What serde and the standard library say about a value, in the words of people who write JSON: they know no `i64`, `map` or
//! `sequence`.

/// The problem, to follow the field's name. A text found where something else belongs is not repeated: it may be a secret one level
/// too high.
pub(crate) fn in_words(problem: &str) -> String {
    let told = match problem {
        "number too large to fit in target type" => "is too large a number",
        "number too small to fit in target type" => "is too small a number",
        "invalid digit found in string" | "cannot parse integer from empty string" => "must be an integer",
        "invalid float literal" | "cannot parse float from empty string" => "must be a number",
        "provided string was not `true` or `false`" => "must be true or false",
        other => return of_serde(other).unwrap_or_else(|| other.to_owned()),
    };
    told.to_owned()
}

/// The same for an error of JSON, without its position.
pub(crate) fn of_json(error: &serde_json::Error) -> String {
    let told = error.to_string();
    in_words(told.rsplit_once(" at line ").map_or(&*told, |(problem, _)| problem))
}

fn of_serde(problem: &str) -> Option<String> {
    if problem.starts_with("unknown variant ") {
        let (_, known) = problem.rsplit_once("`, expected ")?;
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return Some(format!("must be one of {}", known.join(", ")));
    }
    let (what, rest) = problem.split_once(": ")?;
    let (given, expected) = rest.rsplit_once(", expected ")?;
    let expected = expectation(expected);
    match what {
        "invalid type" => Some(format!("must be {expected}, not {}", found(given))),
        "invalid value" if given.starts_with("integer ") => {
            Some(format!("must be {expected}: {} is out of range", found(given)))
        }
        "invalid value" => Some(format!("must be {expected}")),
        "invalid length" => Some(format!("has the wrong length: must be {expected}")),
        _ => None,
    }
}

fn expectation(serde: &str) -> &str {
    match serde {
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer",
        "u8" | "u16" | "u32" | "u64" | "usize" => "an integer of 0 or more",
        "f32" | "f64" => "a number",
        "a string" | "string" => "a text",
        "a boolean" | "bool" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "unit" => "null",
        serde if serde.starts_with("struct ") || serde.starts_with("enum ") => "an object",
        other => other,
    }
}

fn found(serde: &str) -> &str {
    match serde {
        "sequence" => "a list",
        "map" => "an object",
        "unit" | "Option value" => "null",
        serde => match serde.split_once(' ') {
            Some(("string" | "character" | "byte", _)) => "a text",
            Some(("integer" | "boolean", value)) => value.trim_matches('`'),
            Some(("floating", value)) => value.trim_start_matches("point ").trim_matches('`'),
            _ => serde,
        },
    }
}

#[cfg(test)]
mod tests {
    use ambient_wire::session::{SessionCreate, SessionPatch};
    use serde::de::DeserializeOwned;

    use super::super::json::from_bytes;

    fn told<T: DeserializeOwned>(body: &str) -> String {
        from_bytes::<T>(body.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_wrong_value_is_told_in_the_words_of_json() {
        for (value, words) in [
            (r#""timeout":"long""#, "timeout: must be an integer, not a text"),
            (r#""timeout":1.5"#, "timeout: must be an integer, not 1.5"),
            (r#""timeout":true"#, "timeout: must be an integer, not true"),
            (r#""timeout":99999999999999999999"#, "timeout: must be an integer, not 1e+20"),
            (r#""timeout":9223372036854775808"#, "timeout: must be an integer: 9223372036854775808 is out of range"),
            (
                r#""resource_overrides":{"processes":-1}"#,
                "resource_overrides.processes: must be an integer of 0 or more: -1 is out of range",
            ),
            (r#""llm_temperature":"hot, expected f64""#, "llm_temperature: must be a number, not a text"),
            (r#""interactive":"yes at line 3""#, "interactive: must be true or false, not a text"),
            (r#""name":null,"labels":[]"#, "labels: must be an object, not a list"),
            (r#""name":{}"#, "name: must be a text, not an object"),
            (r#""name":7"#, "name: must be a text, not 7"),
            (r#""repos":{}"#, "repos: must be a list, not an object"),
            (r#""repos":["x"]"#, "repos[0]: must be an object, not a text"),
            (
                r#""repos":[{"url":"u","submodules":"all"}]"#,
                "repos[0].submodules: must be one of none, shallow, recursive",
            ),
            (r#""labels":{"a":null}"#, "labels.a: must be a text, not null"),
            (r#""environment_variables":{"A":["s3cret"]}"#, "environment_variables.A: must be a text, not a list"),
        ] {
            assert_eq!(told::<SessionCreate>(&format!(r#"{{"project_id":"p",{value}}}"#)), words, "{value}");
        }
        assert_eq!(told::<SessionPatch>(r#"{"repos":7}"#), "repos: must be a list, not 7");
        assert_eq!(told::<super::super::body::Empty>(r#"{"x":1}"#), "x: unknown field; none are taken here");
    }
}
