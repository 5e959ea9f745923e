//! Wraps every request with one correlation id, one span, one line in the access log, metrics, and the failure envelope.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use ambient_persistence::new_id;
use ambient_telemetry::{
    EndedRequest, Requests,
    ids::{Context, SpanId, hex},
};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use chrono::Utc;
use tracing::Instrument;

use crate::{envelope::Exchanges, error};

/// Trace, span and flags of a request, for who made it.
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Ids of a request. Its operation id is the request's own; an operation that it creates has its own id.
#[derive(Debug, Clone)]
pub(crate) struct RequestIds {
    /// `X-Operation-ID` of the response, unless an operation was created.
    pub(crate) request_id: String,
    /// Follows the request through operations, workflows and activities: the trace id, 32 hex digits.
    pub(crate) correlation_id: String,
    /// W3C trace context for what this request causes: it names the request's own span.
    pub(crate) trace_parent: String,
    /// Where the request itself belongs: the caller's trace, if it told one.
    context: Context,
    span: SpanId,
}

impl RequestIds {
    /// For a request that did not pass through [`observe`].
    pub(crate) fn generate() -> Self {
        Self::of(&HeaderMap::new(), None)
    }

    fn of(headers: &HeaderMap, traces: Option<&Requests>) -> Self {
        let received = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(Context::parse);
        let context = received.unwrap_or_else(|| {
            let trace = rand::random::<u128>().max(1).to_be_bytes();
            // Without an export it is for others to decide.
            Context { trace, parent: None, sampled: traces.is_none_or(|traces| traces.samples(&trace)) }
        });
        let span = rand::random::<u64>().max(1).to_be_bytes();
        let correlation_id = hex(&context.trace);
        let trace_parent = format!("00-{correlation_id}-{}-0{}", hex(&span), u8::from(context.sampled));
        Self { request_id: new_id(), correlation_id, trace_parent, context, span }
    }
}

/// The middleware. Requests that have been answered are told to the export of traces, if there is one.
pub(crate) async fn observe(State(traces): State<Option<Requests>>, mut request: Request, next: Next) -> Response {
    let ids = RequestIds::of(request.headers(), traces.as_ref());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let path = told(request.uri().path());
    let span = tracing::info_span!(
        "request", %method, route, request_id = %ids.request_id, correlation_id = %ids.correlation_id,
        principal = tracing::field::Empty
    );
    let told = ids.clone();
    if let Some(ConnectInfo(exchanges)) = request.extensions().get::<ConnectInfo<Exchanges>>() {
        exchanges.taken(&method);
    }
    request.extensions_mut().insert(ids);
    async move {
        let (began, arrived) = (Instant::now(), Utc::now());
        let mut response = error::render(next.run(request).await, &told.request_id);
        if let Ok(trace) = HeaderValue::try_from(&told.trace_parent) {
            response.headers_mut().insert(TRACE_RESPONSE, trace);
        }
        let status = response.status();
        if let Some(traces) = traces.filter(|_| !is_drowning(&route, status)) {
            let RequestIds { request_id, context, span, .. } = told;
            let (method, route, status) = (known_method(&method), route.clone(), status.as_u16());
            // However the clock was set meanwhile.
            let ended = chrono::TimeDelta::from_std(began.elapsed()).map_or(arrived, |took| arrived + took);
            traces.take(&EndedRequest { context, span, method, route, status, request_id, began: arrived, ended });
        }
        record(&method, route, &path, status, began.elapsed());
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
    if is_drowning(&route, status) {
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

/// Probes and scrapes would drown out everything else.
fn is_drowning(route: &str, status: StatusCode) -> bool {
    matches!(route, "/livez" | "/readyz" | "/metrics") && status.is_success()
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
    fn what_a_request_causes_names_the_requests_span_in_the_callers_trace() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".parse().unwrap());
        let ids = RequestIds::of(&headers, None);
        let caused = Context::parse(&ids.trace_parent).unwrap();
        assert_eq!((caused.parent, caused.sampled), (Some(ids.span), false));
        assert_eq!(
            (ids.correlation_id.as_str(), hex(&caused.trace)),
            ("4bf92f3577b34da6a3ce929d0e0e4736", hex(&ids.context.trace))
        );
        assert_eq!(ids.context.parent.map(|span| hex(&span)).as_deref(), Some("00f067aa0ba902b7"));
        headers.insert("traceparent", "of my own".parse().unwrap());
        let own = RequestIds::of(&headers, None);
        assert!(own.context.parent.is_none() && Context::parse(&own.trace_parent).unwrap().sampled);
    }
}
