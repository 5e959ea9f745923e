//! Wraps every request with one correlation id, one span, one line in the access log, metrics, and the failure envelope.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use ambient_persistence::new_id;
use axum::{
    extract::{ConnectInfo, MatchedPath, Request},
    http::{HeaderMap, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use crate::{envelope::Exchanges, error};

/// Ids of a request. Its operation id is the request's own; an operation that it creates has its own id.
#[derive(Debug, Clone)]
pub(crate) struct RequestIds {
    /// `X-Operation-ID` of the response, unless an operation was created.
    pub(crate) request_id: String,
    /// Follows the request through operations, workflows and activities: the trace id, 32 hex digits.
    pub(crate) correlation_id: String,
    /// W3C trace context for what this request causes.
    pub(crate) trace_parent: String,
}

impl RequestIds {
    /// For a request that did not pass through [`observe`].
    pub(crate) fn generate() -> Self {
        Self::of(&HeaderMap::new())
    }

    fn of(headers: &HeaderMap) -> Self {
        let received =
            headers.get("traceparent").and_then(|value| value.to_str().ok()).filter(|text| is_traceparent(text));
        let trace_parent = received.map_or_else(
            || format!("00-{:032x}-{:016x}-01", rand::random::<u128>(), rand::random::<u64>()),
            str::to_owned,
        );
        let correlation_id = trace_parent[3..35].to_owned();
        Self { request_id: new_id(), correlation_id, trace_parent }
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower case, ids not all zero.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let nonzero = |text: &str| text.bytes().any(|b| b != b'0');
    match parts[..] {
        ["00", trace, span, flags] => {
            hex(trace, 32) && hex(span, 16) && hex(flags, 2) && nonzero(trace) && nonzero(span)
        }
        _ => false,
    }
}

/// The middleware.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let ids = RequestIds::of(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let path = told(request.uri().path());
    let span = tracing::info_span!(
        "request", %method, route, request_id = %ids.request_id, correlation_id = %ids.correlation_id,
        principal = tracing::field::Empty
    );
    let request_id = ids.request_id.clone();
    if let Some(ConnectInfo(exchanges)) = request.extensions().get::<ConnectInfo<Exchanges>>() {
        exchanges.taken(&method);
    }
    request.extensions_mut().insert(ids);
    async move {
        let began = Instant::now();
        let response = error::render(next.run(request).await, &request_id);
        record(&method, route, &path, response.status(), began.elapsed());
        response
    }
    .instrument(span)
    .await
}

/// A path for the log: without credentials, in case it contains a URL with some.
fn told(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    match ambient_wire::redact::text(&decoded) {
        Cow::Borrowed(_) => path.to_owned(),
        Cow::Owned(redacted) => redacted,
    }
}

fn record(method: &Method, route: String, path: &str, status: StatusCode, took: Duration) {
    let millis = took.as_secs_f64() * 1000.0;
    // Probes and scrapes would drown out everything else.
    if matches!(route.as_str(), "/livez" | "/readyz" | "/metrics") && status.is_success() {
        tracing::debug!(path, status = status.as_u16(), millis, "answered");
    } else {
        tracing::info!(path, status = status.as_u16(), millis, "answered");
    }
    let method = known_method(method);
    let status = status.as_u16().to_string();
    metrics::counter!("ambient_http_requests_total", "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("ambient_http_request_seconds", "method" => method, "route" => route)
        .record(took.as_secs_f64());
}

/// Methods are free text: an unknown one must not become a label.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_over_only_when_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in ["", "00-x", &good.to_uppercase(), "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", good.parse().unwrap());
        assert_eq!(RequestIds::of(&headers).correlation_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(is_traceparent(&RequestIds::of(&HeaderMap::new()).trace_parent));
    }
}
