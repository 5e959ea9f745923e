//! Which headers go through, and the credential on either side.

use ambient_runner_protocol::ModelDialect;
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

/// Where an agent may put the token: wherever its dialect's clients put a key.
const TOKENS: [&str; 4] = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
/// Not passed on to the endpoint: credentials, the connection's own, who pays, and codings that could not be read along.
const KEPT_FROM_ENDPOINT: [&str; 26] = [
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "proxy-authorization",
    "x-goog-user-project",
    "openai-organization",
    "openai-project",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "forwarded",
    "host",
    "content-length",
    "content-encoding",
    "accept-encoding",
    "expect",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];
/// Not passed on to the agent.
const KEPT_FROM_AGENT: [&str; 8] = [
    "set-cookie",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
    "trailer",
    "proxy-authenticate",
    "alt-svc",
];

/// Whether a request carries the token.
pub(super) fn carries(headers: &HeaderMap, query: Option<&str>, token: &str) -> bool {
    let is_token = |value: &[u8]| bool::from(value.ct_eq(token.as_bytes()));
    let in_header = TOKENS.iter().filter_map(|name| headers.get(*name)).any(|value| {
        let value = value.as_bytes();
        is_token(value.strip_prefix(b"Bearer ").unwrap_or(value))
    });
    // Gemini's older clients.
    let in_query = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("key="));
    in_header || in_query.map(str::as_bytes).any(is_token)
}

/// The agent's headers, as the endpoint gets them, with the key.
pub(super) fn to_endpoint(agents: &HeaderMap, dialect: ModelDialect, key: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = without(agents, &KEPT_FROM_ENDPOINT);
    if let Some(key) = key {
        headers.insert(key_header(dialect), key.clone());
    }
    headers
}

/// The endpoint's headers, as the agent gets them.
pub(super) fn to_agent(endpoints: &HeaderMap) -> HeaderMap {
    without(endpoints, &KEPT_FROM_AGENT)
}

/// The key in the form of the dialect's clients. It is marked as sensitive, so that it is not shown.
///
/// # Errors
/// When it has characters that no header may have.
pub(super) fn key_value(dialect: ModelDialect, key: &str) -> Option<HeaderValue> {
    let bearer = key_header(dialect) == AUTHORIZATION;
    let mut value = HeaderValue::try_from(if bearer { format!("Bearer {key}") } else { key.to_owned() }).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn key_header(dialect: ModelDialect) -> HeaderName {
    match dialect {
        ModelDialect::OpenaiChat | ModelDialect::OpenaiResponses => AUTHORIZATION,
        ModelDialect::Anthropic => HeaderName::from_static("x-api-key"),
        ModelDialect::Gemini => HeaderName::from_static("x-goog-api-key"),
    }
}

/// All but these, and those that `Connection` names.
fn without(all: &HeaderMap, kept: &[&str]) -> HeaderMap {
    let named: Vec<String> = all
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let mut passed = HeaderMap::with_capacity(all.len());
    for (name, value) in all {
        if !kept.contains(&name.as_str()) && !named.iter().any(|named| named == name.as_str()) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}
