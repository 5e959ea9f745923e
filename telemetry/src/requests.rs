//! Requests of the edge: spans as they end, in memory.

use std::time::Duration;

use chrono::{DateTime, Utc};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    collector::{Collector, MAX_SPANS},
    ids::{Context, SpanId, TraceId, is_sampled},
    span::{Draft, SpanKind},
};

/// Most spans that wait; more are dropped and counted.
const QUEUE: usize = 4096;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long shutting down may take.
const END: Duration = Duration::from_secs(2);

/// A request that has been answered.
#[derive(Debug, Clone)]
pub struct EndedRequest {
    /// The caller's trace, or a new one.
    pub context: Context,
    /// The request's own span, which what it causes hangs on.
    pub span: SpanId,
    /// Method, one of the known ones.
    pub method: &'static str,
    /// Route, as it is documented.
    pub route: String,
    /// Status of the response.
    pub status: u16,
    /// What names the request in the log.
    pub request_id: String,
    /// When it arrived.
    pub began: DateTime<Utc>,
    /// When its response was made.
    pub ended: DateTime<Utc>,
}

/// Takes requests that have been answered. Never waits.
#[derive(Clone)]
pub struct Requests {
    queue: mpsc::Sender<Span>,
    ratio: f64,
}

/// What sends them.
pub(crate) struct Sending(JoinHandle<()>);

impl Requests {
    /// Sends to this collector until all clones are gone.
    pub(crate) fn start(collector: Collector, ratio: f64) -> (Self, Sending) {
        let (queue, spans) = mpsc::channel(QUEUE);
        (Self { queue, ratio }, Sending(tokio::spawn(send_all(collector, spans))))
    }

    /// Whether a trace that begins here is exported.
    #[must_use]
    pub fn samples(&self, trace: &TraceId) -> bool {
        is_sampled(trace, self.ratio)
    }

    /// Takes one, if its trace is exported.
    pub fn take(&self, request: &EndedRequest) {
        if request.context.sampled && self.queue.try_send(span(request)).is_err() {
            metrics::counter!("ambient_trace_spans_dropped_total", "of" => "requests").increment(1);
        }
    }
}

impl Sending {
    /// Ends it; what waits is sent if that takes no time.
    pub(crate) async fn end(mut self) {
        if tokio::time::timeout(END, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

fn span(request: &EndedRequest) -> Span {
    let EndedRequest { context, span, method, route, status, request_id, began, ended } = request;
    let name = format!("{method} {route}");
    let draft = Draft::new(*context, *span, &name, SpanKind::Server, (*began, *ended))
        .word("http.request.method", method)
        .word("http.route", route)
        .number("http.response.status_code", i64::from(*status))
        .word("ambient.request.id", request_id);
    // What a caller did wrong is no failure of the server.
    if *status >= 500 { draft.failed(&status.to_string(), "").done() } else { draft.done() }
}

async fn send_all(collector: Collector, mut spans: mpsc::Receiver<Span>) {
    let mut pause = FIRST_PAUSE;
    while let Some(first) = spans.recv().await {
        let mut batch = vec![first];
        let due = Instant::now() + GATHER;
        while batch.len() < MAX_SPANS {
            match tokio::time::timeout_at(due, spans.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        while let Err(error) = collector.send(batch.clone()).await {
            tracing::debug!(%error, "spans of requests wait for the collector");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        pause = FIRST_PAUSE;
    }
}
