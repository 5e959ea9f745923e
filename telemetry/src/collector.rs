//! Sending spans: OTLP over HTTP, in protobuf.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use tokio::time::timeout;

use crate::span::word_attribute;

/// The release of the semantic conventions that names and attributes follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.41.0";
const CONNECT: Duration = Duration::from_secs(5);
/// Timeout of a request.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Spans of a request at most, and their size, bytes: collectors refuse what is larger than 4 MiB.
pub(crate) const MAX_SPANS: usize = 512;
const MAX_BYTES: usize = 2 << 20;

/// Where spans go.
#[derive(Debug, Clone)]
pub struct CollectorOptions {
    /// URL that spans are posted to: `http://host:4318/v1/traces`.
    pub url: String,
    /// Further headers, such as for authentication. Values are secrets.
    pub headers: Vec<(String, String)>,
    /// `service.name`.
    pub service_name: String,
    /// `service.version`.
    pub service_version: String,
    /// `host.name`.
    pub host: String,
}

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The settings are no use.
    #[error("{0}")]
    Settings(String),
    /// They may be taken later.
    #[error("{0}")]
    Later(String),
    /// They never will.
    #[error("{0}")]
    Never(String),
}

/// A collector. Clones share connections.
#[derive(Clone)]
pub struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    resource: Resource,
}

impl Collector {
    /// One that is reached when there is something to send.
    ///
    /// # Errors
    /// [`CollectorError::Settings`] without values of headers.
    pub fn new(options: &CollectorOptions) -> Result<Self, CollectorError> {
        let uri = options.url.parse().map_err(|error| CollectorError::Settings(format!("the URL: {error}")))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            let refused = |_| CollectorError::Settings(format!("the header '{name}' cannot be sent"));
            let name_of = HeaderName::try_from(name.as_str()).map_err(|_| refused(()))?;
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| refused(()))?;
            value.set_sensitive(true);
            headers.insert(name_of, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("ambient/", env!("CARGO_PKG_VERSION"))));
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let roots = HttpsConnectorBuilder::new().with_native_roots();
        let roots = roots.map_err(|error| CollectorError::Settings(format!("certificate authorities: {error}")))?;
        let https = roots.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(https);
        let attributes = vec![
            word_attribute("service.name", &options.service_name),
            word_attribute("service.version", &options.service_version),
            word_attribute("service.instance.id", &options.host),
            word_attribute("host.name", &options.host),
        ];
        Ok(Self { client, uri, headers, resource: resource(attributes) })
    }

    /// Sends spans, all or as far as it is possible. What the collector refuses for good is counted and told, and does not come again.
    ///
    /// # Errors
    /// [`CollectorError::Later`]: none of the rest was taken; it may be sent again.
    pub async fn send(&self, spans: Vec<Span>) -> Result<(), CollectorError> {
        for part in parts(spans) {
            let count = part.len() as u64;
            let refused = match self.post(part).await {
                Ok(0) => 0,
                Ok(refused) => {
                    tracing::warn!(refused, "the collector has refused spans");
                    refused.min(count)
                }
                Err(CollectorError::Never(reason)) => {
                    tracing::warn!(spans = count, reason, "the collector does not take spans; they are given up");
                    count
                }
                Err(error) => {
                    metrics::counter!("ambient_trace_export_failures_total").increment(1);
                    return Err(error);
                }
            };
            metrics::counter!("ambient_trace_spans_exported_total").increment(count - refused);
            metrics::counter!("ambient_trace_spans_refused_total").increment(refused);
        }
        Ok(())
    }

    /// Sends one request; how many of its spans were refused.
    async fn post(&self, spans: Vec<Span>) -> Result<u64, CollectorError> {
        let later = |reason: String| CollectorError::Later(reason);
        let mut request = Request::post(self.uri.clone())
            .body(Full::new(Bytes::from(self.request(spans).encode_to_vec())))
            .map_err(|error| CollectorError::Settings(error.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| later(innermost(&error)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map(http_body_util::Collected::to_bytes);
            Ok((head.status, body))
        };
        let (status, body) =
            timeout(ANSWER, exchange).await.map_err(|_| later(format!("no answer within {ANSWER:?}")))??;
        if status.is_success() {
            // An answer that cannot be read says nothing against what was sent.
            let answer = body.ok().and_then(|body| ExportTraceServiceResponse::decode(body).ok()).unwrap_or_default();
            let refused = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
            return Ok(u64::try_from(refused).unwrap_or(0));
        }
        // Whatever the settings or the collector's state are to blame for can be put right while the spans wait.
        let for_good = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        let reason = format!("it answers {status}");
        Err(if for_good.contains(&status) { CollectorError::Never(reason) } else { CollectorError::Later(reason) })
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "ambient".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: SCHEMA.to_owned() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, schema_url: SCHEMA.to_owned() }];
        ExportTraceServiceRequest { resource_spans }
    }
}

fn resource(attributes: Vec<KeyValue>) -> Resource {
    Resource { attributes, ..Resource::default() }
}

/// In pieces that a collector takes.
fn parts(spans: Vec<Span>) -> Vec<Vec<Span>> {
    let (mut parts, mut bytes) = (Vec::<Vec<Span>>::new(), 0);
    for span in spans {
        let size = span.encoded_len();
        match parts.last_mut().filter(|part| part.len() < MAX_SPANS && bytes + size <= MAX_BYTES) {
            Some(part) => part.push(span),
            None => {
                parts.push(vec![span]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    parts
}

/// The innermost cause says what is wrong.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_by_number_and_size() {
        let small = vec![Span::default(); 1200];
        assert_eq!(parts(small).iter().map(Vec::len).collect::<Vec<_>>(), [512, 512, 176]);
        let large = Span { name: "x".repeat(900 << 10), ..Span::default() };
        assert_eq!(parts(vec![large; 5]).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_named_without_its_value() {
        let mut options = CollectorOptions {
            url: "http://127.0.0.1:4318/v1/traces".to_owned(),
            headers: vec![("authorization".to_owned(), "canary\n".to_owned())],
            service_name: "ambient".to_owned(),
            service_version: "1".to_owned(),
            host: "h".to_owned(),
        };
        let error = Collector::new(&options).err().unwrap().to_string();
        assert!(error.contains("authorization") && !error.contains("canary"), "{error}");
        options.headers.clear();
        assert!(Collector::new(&options).is_ok());
    }
}
