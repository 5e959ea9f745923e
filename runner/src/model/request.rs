//! What a request's body says that matters to the proxy.

use ambient_runner_protocol::{ModelDialect, ModelEndpoint};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{
    refusal::Refusal,
    route::{Route, Want},
};

/// Longest name of a model, bytes.
const MAX_MODEL: usize = 256;
/// Asks OpenAI's chat completions to tell of usage among the events.
const ASK_FOR_USAGE: &str = r#""stream_options":{"include_usage":true}"#;

/// The fields that matter. Reading fails if one of them is there twice: others might read the other one.
#[derive(Deserialize, Default)]
struct Fields {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    background: Option<bool>,
    /// Models to ask in place of the first, as some endpoints understand it.
    models: Option<Value>,
    fallbacks: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

/// A request that may be passed on.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) body: Bytes,
    /// The answer will tell of usage in an event that the client has not asked for.
    pub(super) adds_usage: bool,
}

/// Reads a body, checks its model, and has the answer tell of usage.
///
/// # Errors
/// When it is not what the dialect wants, or not allowed.
pub(super) fn read(route: &Route, body: Bytes, endpoint: &ModelEndpoint, needs_price: bool) -> Result<Asked, Refusal> {
    let fields: Fields = match serde_json::from_slice::<IgnoredAny>(&body).and_then(|_| serde_json::from_slice(&body)) {
        Ok(fields) => fields,
        Err(error) => return Err(bad("body", error.to_string())),
    };
    let in_body = if route.dialect == ModelDialect::Gemini { None } else { fields.model.clone() };
    let model = route.model.clone().or(in_body).unwrap_or_default();
    if model.len() > MAX_MODEL || model.contains(char::is_control) {
        return Err(bad("model", format!("longer than {MAX_MODEL} bytes, or with control characters")));
    }
    check_model(&model, &fields, endpoint)?;
    if fields.background == Some(true) {
        return Err(bad("background", "an answer that is fetched later is not passed on".to_owned()));
    }
    if route.want == Want::Answer && needs_price && !endpoint.prices.contains_key(&model) {
        return Err(Refusal::NoPrice(model));
    }
    let streams = fields.stream == Some(true);
    let says_usage = fields.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true);
    let adds_usage = route.dialect == ModelDialect::OpenaiChat && streams && !says_usage;
    let body = if adds_usage { asking_for_usage(&body, fields.stream_options)? } else { body };
    Ok(Asked { model, body, adds_usage })
}

fn check_model(model: &str, fields: &Fields, endpoint: &ModelEndpoint) -> Result<(), Refusal> {
    let Some(allowed) = &endpoint.allowed_models else { return Ok(()) };
    let names = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    let refused = |model: &str| Err(Refusal::ModelNotAllowed { model: model.to_owned(), allowed: names.clone() });
    if !allowed.iter().any(|allowed| allowed == model) {
        return refused(model);
    }
    let others = [&fields.models, &fields.fallbacks].into_iter().flatten();
    for other in others.flat_map(|others| others.as_array().map_or(std::slice::from_ref(others), Vec::as_slice)) {
        match other.as_str() {
            Some(other) if allowed.iter().any(|allowed| allowed == other) => {}
            Some(other) => return refused(&other.chars().take(MAX_MODEL).collect::<String>()),
            None => return Err(bad("models", "only names of models are understood".to_owned())),
        }
    }
    Ok(())
}

/// The body with the wish for usage in it.
fn asking_for_usage(body: &Bytes, options: Option<StreamOptions>) -> Result<Bytes, Refusal> {
    if let Some(StreamOptions { mut others, .. }) = options {
        let mut whole: Value = serde_json::from_slice(body).map_err(|e| bad("body", e.to_string()))?;
        others.insert("include_usage".to_owned(), json!(true));
        whole["stream_options"] = Value::Object(others);
        return Ok(whole.to_string().into());
    }
    let brace = body.iter().position(|byte| *byte == b'{').unwrap_or_default();
    let (before, after) = body.split_at(brace + 1);
    let mut asking = BytesMut::with_capacity(body.len() + ASK_FOR_USAGE.len() + 1);
    asking.put_slice(before);
    asking.put_slice(ASK_FOR_USAGE.as_bytes());
    // It has fields: `stream` is one.
    asking.put_u8(b',');
    asking.put_slice(after);
    Ok(asking.freeze())
}

fn bad(field: &'static str, reason: String) -> Refusal {
    Refusal::BadRequest { field, reason }
}

#[cfg(test)]
mod tests {
    use ambient_runner_protocol::{ModelDialect, ModelEndpoint};
    use serde_json::{Value, json};

    use super::{Asked, Refusal, Route, Want, read};

    fn reading(dialect: ModelDialect, body: &str, allowed: &[&str]) -> Result<Asked, Refusal> {
        let model = (dialect == ModelDialect::Gemini).then(|| "g".to_owned());
        let route = Route { dialect, want: Want::Answer, path: String::new(), model, streams: false };
        let allowed_models = (!allowed.is_empty()).then(|| allowed.iter().map(|model| (*model).to_owned()).collect());
        let endpoint = ModelEndpoint { allowed_models, ..ModelEndpoint::default() };
        read(&route, body.to_owned().into(), &endpoint, false)
    }

    #[test]
    fn a_model_that_is_named_twice_or_by_the_way_is_not_passed_on() {
        let chat = ModelDialect::OpenaiChat;
        assert_eq!(reading(chat, r#"{"model":"a"}"#, &["a"]).unwrap().model, "a");
        let refused =
            [r#"{"model":"b"}"#, "{}", r#"{"model":"a","models":["a","b"]}"#, r#"{"model":"a","fallbacks":"b"}"#];
        for body in refused {
            assert!(matches!(reading(chat, body, &["a"]), Err(Refusal::ModelNotAllowed { .. })), "{body}");
        }
        let bad = [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"model":"a","fallbacks":[{"model":"b"}]}"#,
            r#"{"model":"a"} {"model":"b"}"#,
            r#"{"model":["a"]}"#,
            r#"["a", true]"#,
            "",
        ];
        for body in bad {
            assert!(matches!(reading(chat, body, &["a"]), Err(Refusal::BadRequest { .. })), "{body}");
        }
        let gemini = reading(ModelDialect::Gemini, r#"{"model":"b","contents":[]}"#, &["g"]).unwrap();
        assert_eq!(gemini.model, "g");
        assert!(reading(ModelDialect::OpenaiResponses, r#"{"model":"a","background":true}"#, &[]).is_err());
    }

    #[test]
    fn usage_is_asked_for_where_a_stream_leaves_it_out_otherwise() {
        let chat = |body: &str| {
            let asked = reading(ModelDialect::OpenaiChat, body, &[]).unwrap();
            (serde_json::from_slice::<Value>(&asked.body).unwrap(), asked.adds_usage)
        };
        let (body, adds) = chat(" {\n\"stream\": true, \"model\": \"m\"}");
        assert!(adds);
        assert_eq!(body, json!({ "stream": true, "model": "m", "stream_options": { "include_usage": true } }));
        let (body, adds) = chat(r#"{"stream":true,"stream_options":{"include_usage":false,"x":1}}"#);
        assert!(adds);
        assert_eq!(body["stream_options"], json!({ "include_usage": true, "x": 1 }));
        assert!(!chat(r#"{"stream":true,"stream_options":{"include_usage":true}}"#).1);
        assert!(!chat(r#"{"model":"m"}"#).1);
        let responses = reading(ModelDialect::OpenaiResponses, r#"{"stream":true}"#, &[]).unwrap();
        assert_eq!(&responses.body[..], br#"{"stream":true}"#);
    }
}
