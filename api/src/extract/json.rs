//! JSON into types, with the path of any error.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::words::in_words;
use crate::error::{ApiError, ApiResult, Number};

/// Reads a body whose texts Postgres can store.
pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    std::str::from_utf8(bytes).map_or(Ok(()), refuse_nul)?;
    from_bytes_with_nul(bytes)
}

/// Reads a body, whatever its texts are.
pub(super) fn from_bytes_with_nul<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::new(Number::Malformed, format!("the body is not valid UTF-8 at byte {at}"))
            .at("body", "must be UTF-8")
    })?;
    if text.trim().is_empty() {
        return Err(ApiError::new(Number::Malformed, "the body is empty; JSON is required").at("body", "must be JSON"));
    }
    // serde would also read a struct from an array of its fields' values.
    if !text.trim_start().starts_with('{') {
        return Err(
            ApiError::new(Number::Malformed, "the body is not a JSON object").at("body", "must be a JSON object")
        );
    }
    let read = match parse(text) {
        // `3.0` and `3e0` are integers too, for JSON Schema and for clients whose language has only one number type.
        Err((_, error)) if error.to_string().starts_with("invalid type: floating point") => parse(&with_integers(text)),
        read => read,
    };
    read.map_err(|(path, error)| explain(&path, &error))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, (String, serde_json::Error)> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| (path_of(&error), error.into_inner()))?;
    deserializer.end().map_err(|error| ("body".to_owned(), error))?;
    Ok(value)
}

/// The same JSON, with whole numbers written as integers.
fn with_integers(text: &str) -> String {
    /// Below it every whole number is exactly representable as a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let (mut whole, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' => string_length(rest),
            '-' | '0'..='9' => {
                rest.find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9')).unwrap_or(rest.len())
            }
            _ => next.len_utf8(),
        };
        let (token, tail) = rest.split_at(length);
        match token.parse::<f64>() {
            Ok(number)
                if (token == "-0" || token.contains(['.', 'e', 'E']))
                    && number.fract() == 0.0
                    && number.abs() < EXACT =>
            {
                // Adding 0 turns -0 into 0, which integers have.
                whole.push_str(&format!("{:.0}", number + 0.0));
            }
            _ => whole.push_str(token),
        }
        rest = tail;
    }
    whole
}

/// Bytes of the JSON string at the start, with its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn path_of<E>(error: &serde_path_to_error::Error<E>) -> String {
    match error.path().to_string() {
        path if path == "." || path.is_empty() => "body".to_owned(),
        path => path,
    }
}

fn explain(path: &str, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    // serde's own words, without "at line 1 column 9" if the field says it better.
    let problem = message.rsplit_once(" at line ").map_or(&*message, |(problem, _)| problem);
    if error.is_data() {
        return field_error(path, problem);
    }
    ApiError::new(Number::Malformed, format!("the body is not valid JSON: {message}")).at("body", message)
}

/// A field that is unknown, missing, or of the wrong type. The first two come with their parent's path.
pub(super) fn field_error(path: &str, problem: &str) -> ApiError {
    let named = |problem: &str, what: &str| {
        let rest = problem.strip_prefix(what)?;
        rest.split('`').nth(1).map(str::to_owned)
    };
    for (what, told) in
        [("unknown field", "unknown field"), ("missing field", "is required"), ("duplicate field", "is given twice")]
    {
        if let Some(field) = named(problem, what) {
            let told = match problem.split_once(", ") {
                Some(_) if what == "unknown field" && new_name(&field, problem).is_some() => {
                    format!("{told}; it is now named {}", new_name(&field, problem).unwrap_or_default())
                }
                Some((_, "there are no fields")) if what == "unknown field" => format!("{told}; none are taken here"),
                Some((_, expected)) if what == "unknown field" => format!("{told}; {expected}"),
                _ => told.to_owned(),
            };
            return ApiError::invalid(child(path, &field), told);
        }
    }
    ApiError::invalid(path, in_words(problem))
}

/// The current name of a field from earlier releases, if that name is among those `problem` expects.
fn new_name(field: &str, problem: &str) -> Option<&'static str> {
    const RENAMED: [(&str, &str); 1] = [("agent", "agent_type")];
    let (_, new) = RENAMED.into_iter().find(|(old, _)| *old == field)?;
    problem.contains(&format!("`{new}`")).then_some(new)
}

fn child(parent: &str, field: &str) -> String {
    let ends_with_it = parent == field || parent.strip_suffix(field).is_some_and(|rest| rest.ends_with('.'));
    match parent {
        "body" => field.to_owned(),
        _ if ends_with_it => parent.to_owned(),
        _ => format!("{parent}.{field}"),
    }
}

fn refuse_nul(text: &str) -> ApiResult<()> {
    if !text.contains("\\u0000") {
        return Ok(());
    }
    // The escape may also be a backslash and harmless text: only walking the value can tell.
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Ok(()) };
    match find_nul("", &value) {
        Some(path) => Err(ApiError::invalid(path, "must not contain NUL")),
        None => Ok(()),
    }
}

fn find_nul(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| path.to_owned()),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| find_nul(&format!("{path}[{i}]"), item)),
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            let shown = key.escape_debug().to_string();
            let path = if path.is_empty() { shown } else { format!("{path}.{shown}") };
            if key.contains('\0') { Some(path) } else { find_nul(&path, item) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Whether a `Content-Type` names JSON. A body without one is treated as JSON.
pub(super) fn check_content_type(value: Option<&[u8]>) -> ApiResult<()> {
    let Some(value) = value else { return Ok(()) };
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    if essence == b"application/json" || (essence.starts_with(b"application/") && essence.ends_with(b"+json")) {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&essence).into_owned();
    Err(ApiError::new(Number::MediaType, format!("the body must be application/json, not '{shown}'"))
        .at("Content-Type", "must be application/json"))
}

#[cfg(test)]
mod tests {
    use ambient_wire::session::SessionCreate;

    use super::*;

    fn field_of(body: &str) -> String {
        let error = from_bytes::<SessionCreate>(body.as_bytes()).unwrap_err();
        let json = serde_json::to_value(format!("{error:?}")).unwrap();
        let text = json.as_str().unwrap();
        text.split("field: \"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    #[test]
    fn a_whole_number_is_an_integer_however_it_is_written() {
        for number in ["300", "300.0", "3e2", "3.00E+2", "30000e-2"] {
            let body = format!(r#"{{"project_id":"p","name":"a \"1.0\" b","timeout":{number},"llm_temperature":1.0}}"#);
            let read: SessionCreate = from_bytes(body.as_bytes()).unwrap();
            assert_eq!((read.timeout, read.name.as_deref()), (Some(300), Some("a \"1.0\" b")), "{number}");
        }
        for zero in ["0", "-0", "-0.0", "0e5"] {
            let read: SessionCreate =
                from_bytes(format!(r#"{{"project_id":"p","inactivity_timeout":{zero}}}"#).as_bytes()).unwrap();
            assert_eq!(read.inactivity_timeout, Some(0), "{zero}");
        }
        for number in ["300.5", "1e300", "9007199254740993.0", "-0.5"] {
            assert_eq!(field_of(&format!(r#"{{"project_id":"p","timeout":{number}}}"#)), "timeout", "{number}");
        }
    }

    #[test]
    fn every_wrong_field_is_named_by_its_path() {
        let cases = [
            (r#"{"project_id":"p","bogus":1}"#, "bogus"),
            (r#"{"project_id":"p","repos":[{"url":"https://a/b","bogus":1}]}"#, "repos[0].bogus"),
            (r#"{"project_id":"p","repos":[{"name":"x"}]}"#, "repos[0].url"),
            (r#"{"project_id":1}"#, "project_id"),
            (r#"{"project_id":"p","labels":{"a":1}}"#, "labels.a"),
            (r#"{"project_id":"p","timeout":"long"}"#, "timeout"),
            (r#"{"project_id":"p","prompt":"a\u0000b"}"#, "prompt"),
            (r#"{"project_id":"p","repos":[{"url":"https://a/\u0000"}]}"#, "repos[0].url"),
            (r#"{"prompt":"x"}"#, "project_id"),
            (r#"{"project_id":"p","project_id":"q"}"#, "project_id"),
            (r#"{"project_id":"p""#, "body"),
            (r#"{"project_id":"p"} x"#, "body"),
            (r#"["p"]"#, "body"),
            ("", "body"),
        ];
        for (body, field) in cases {
            assert_eq!(field_of(body), field, "{body}");
        }
        assert!(from_bytes::<SessionCreate>(br#"{"project_id":"p","prompt":"harmless \\u0000"}"#).is_ok());
        assert!(from_bytes::<SessionCreate>(b"{\"project_id\":\"\xff\"}").is_err());
    }
}
