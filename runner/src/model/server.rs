//! The listener, and the way of one request.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, task::Context, time::Duration};

use ambient_runner_protocol::{ModelDialect, ModelEndpoint};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    calls::{Call, Calls},
    headers,
    meter::Form,
    passing,
    placeholders::Access,
    pool::{Connection, Failure, Pool},
    refusal::Refusal,
    request::{self, Asked},
    route::{Route, Want},
};
use crate::listener::serve_each;

/// Connections of the agent at once.
const MOST: usize = 64;
/// From a connection's start, or the previous response, to the end of a request's head. Agents keep connections for their next call.
const HEAD: Duration = Duration::from_secs(120);
/// Largest request, bytes: a long conversation with images.
const MAX_REQUEST: usize = 32 << 20;
/// Bytes of all requests that are being read or sent.
const MAX_REQUESTS: usize = 96 << 20;
const REQUEST_PATIENCE: Duration = Duration::from_secs(60);
/// Until the head of an answer: a model that reasons without streaming takes its time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(900);

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What every request needs.
pub(super) struct Proxy {
    endpoint: ModelEndpoint,
    pools: BTreeMap<ModelDialect, Arc<Pool>>,
    keys: BTreeMap<ModelDialect, HeaderValue>,
    token: String,
    calls: Arc<Calls>,
    /// A permit per byte.
    requests: Arc<Semaphore>,
}

impl Proxy {
    pub(super) fn new(
        endpoint: &ModelEndpoint,
        pools: BTreeMap<ModelDialect, Arc<Pool>>,
        keys: &BTreeMap<ModelDialect, String>,
        access: &Access,
        calls: Arc<Calls>,
    ) -> Self {
        let key = |(dialect, key): (&ModelDialect, &String)| Some((*dialect, headers::key_value(*dialect, key)?));
        Self {
            keys: keys.iter().filter_map(key).collect(),
            endpoint: endpoint.clone(),
            pools,
            token: access.token.clone(),
            calls,
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    pub(super) fn close_idle(&self) {
        self.pools.values().for_each(|pool| pool.close_idle());
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let (head, body) = request.into_parts();
        if !headers::carries(&head.headers, head.uri.query(), &self.token) {
            return Err(Refusal::Unauthorized);
        }
        let is_anthropic = head.headers.contains_key("anthropic-version");
        let route = Route::of(&head.method, &head.uri, is_anthropic, |dialect| self.pools.contains_key(&dialect))?;
        let pool = self.pools.get(&route.dialect).ok_or(Refusal::NoDialect(route.dialect))?;
        let (asked, permit) = self.read(&route, &head.headers, body).await?;
        let costs = route.want == Want::Answer;
        let mut call = self.calls.begin(route.dialect, asked.model, asked.body.len(), costs)?;
        let mut request = Request::new(Full::new(asked.body));
        *request.method_mut() = head.method;
        *request.headers_mut() = headers::to_endpoint(&head.headers, route.dialect, self.keys.get(&route.dialect));
        pool.address(&route.path, &mut request)?;
        let (response, connection) = exchange(&mut call, pool, request).await?;
        // What is held of it has been sent.
        drop(permit);
        answer(response, call, (connection, pool.clone()), asked.adds_usage)
    }

    /// The body, as far as the route has one, with the permits for its bytes.
    async fn read(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<(Asked, Option<OwnedSemaphorePermit>), Refusal> {
        if route.want == Want::Models {
            return Ok((Asked { model: String::new(), body: Bytes::new(), adds_usage: false }, None));
        }
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            let reason = "a compressed request cannot be checked".to_owned();
            return Err(Refusal::BadRequest { field: "content-encoding", reason });
        }
        let reading = timeout(REQUEST_PATIENCE, self.gather(body)).await;
        let (body, permit) = reading.map_err(|_| Refusal::Slow(REQUEST_PATIENCE.as_secs()))??;
        Ok((request::read(route, body, &self.endpoint, self.calls.limits_cost())?, permit))
    }

    async fn gather(&self, mut body: Incoming) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > MAX_REQUEST {
            return Err(Refusal::TooLarge(MAX_REQUEST));
        }
        let (mut all, mut permits) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await {
            let broken = |e: hyper::Error| Refusal::BadRequest { field: "body", reason: e.to_string() };
            let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
            if all.len() + piece.len() > MAX_REQUEST {
                return Err(Refusal::TooLarge(MAX_REQUEST));
            }
            let wanted = u32::try_from(piece.len()).map_err(|_| Refusal::TooLarge(MAX_REQUEST))?;
            let more = self.requests.clone().try_acquire_many_owned(wanted).map_err(|_| Refusal::Busy)?;
            match &mut permits {
                Some(permits) => permits.merge(more),
                None => permits = Some(more),
            }
            all.extend_from_slice(&piece);
        }
        Ok((all.freeze(), permits))
    }
}

/// Sends a request; over a connection that turns out to be closed only if nothing of it was sent.
async fn exchange(
    call: &mut Call,
    pool: &Arc<Pool>,
    mut request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Connection), Refusal> {
    let mut fresh = false;
    loop {
        let (mut connection, has_served) = tokio::select! {
            biased;
            () = call.cancelled() => return Err(Refusal::Stopped),
            connection = pool.connection(fresh) => connection?,
        };
        call.uses(connection.closer())?;
        let sent = tokio::select! {
            biased;
            () = call.cancelled() => return Err(Refusal::Stopped),
            sent = connection.send(request, ANSWER_PATIENCE) => sent,
        };
        match sent {
            Ok(response) => return Ok((response, connection)),
            Err(Failure::Unsent(unsent)) => {
                call.is_unsent();
                if !has_served {
                    return Err(Refusal::Upstream("has closed the connection".to_owned()));
                }
                (request, fresh) = (*unsent, true);
            }
            Err(Failure::Failed(refusal)) => {
                if matches!(refusal, Refusal::Upstream(_)) {
                    call.is_free();
                }
                return Err(refusal);
            }
        }
    }
}

/// The endpoint's answer, for the agent.
fn answer(
    response: Response<Incoming>,
    mut call: Call,
    from: (Connection, Arc<Pool>),
    adds_usage: bool,
) -> Result<Response<Body>, Refusal> {
    let (head, body) = response.into_parts();
    if head.status.is_redirection() {
        call.is_free();
        return Err(Refusal::Upstream("redirects, which is not followed".to_owned()));
    }
    let form = form(&head.headers, adds_usage);
    match &mut call.meter {
        Some(_) if !head.status.is_success() => call.is_free(),
        Some(meter) => meter.takes(form),
        None => {}
    }
    let mut headers = headers::to_agent(&head.headers);
    if form == Form::EventsWithoutUsage {
        headers.remove(CONTENT_LENGTH);
    }
    let mut response = Response::new(passing::body(body, call, from));
    *response.status_mut() =
        if head.status == StatusCode::SWITCHING_PROTOCOLS { StatusCode::BAD_GATEWAY } else { head.status };
    *response.headers_mut() = headers;
    Ok(response)
}

fn form(headers: &HeaderMap, adds_usage: bool) -> Form {
    let value = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let (kind, coding) = (value(CONTENT_TYPE), value(CONTENT_ENCODING));
    match () {
        () if !matches!(coding, "" | "identity") => Form::Opaque,
        () if kind.starts_with("text/event-stream") && adds_usage => Form::EventsWithoutUsage,
        () if kind.starts_with("text/event-stream") => Form::Events,
        () => Form::Whole,
    }
}

/// Serves forever.
pub(super) async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    serve_each("the model proxy", MOST, accept, |stream| connection(stream, proxy.clone())).await;
}

async fn connection(stream: TcpStream, proxy: Arc<Proxy>) {
    // Each event is to be seen when it comes.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let proxy = proxy.clone();
        async move {
            let dialect = Route::dialect_of(request.uri().path());
            let response = proxy.handle(request).await.unwrap_or_else(|refusal| refusal.response(dialect));
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the model proxy ended");
    }
}
