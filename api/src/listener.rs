//! How the listener serves: every connection has a slot, and every wait for its peer a timeout.
//!
//! HTTP/1.1 only: there is no second protocol to limit. Invariants
//! * Connections are counted in total and per address for as long as their socket is open, WebSockets included; any more are
//!   answered 503 and closed.
//! * A peer that does not send a complete head in time, whose body arrives too slowly, or that does not read what is written is
//!   disconnected. A connection waiting for its next request counts as sending a head.
//! * Once shutdown has begun, a connection ends after the response in progress.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use ambient_connections::{Bounds, Place, Places, Socket};
use ambient_persistence::new_id;
use axum::{
    Router,
    body::{Body, HttpBody as _},
    extract::connect_info::ConnectInfo,
    http::{Request, StatusCode},
};
use futures::{StreamExt as _, stream};
use hyper::{body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    authority::AppState,
    envelope::{Enveloped, by_hand},
    error::ApiError,
};

/// Pause after a failed accept, which most likely means no file descriptors are left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// `Retry-After` for a connection without a slot, seconds.
const RETRY_AFTER: u32 = 1;

/// Limits on what peers may take, and for how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (one /64 network for IPv6).
    pub per_address: usize,
    /// The same for an address of this machine, where a proxy may run.
    pub per_own_address: usize,
    /// From a connection's start, or the previous response, to the end of a request's head.
    pub head: Duration,
    /// A body starts, and continues, within this time.
    pub body: Duration,
    /// Slowest body, bytes per second; a faster one gains no more time than [`Self::body`].
    pub slowest_body: u64,
    /// The peer reads some of a response within this time.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 12_288,
            per_address: 1_024,
            per_own_address: 11_264,
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            slowest_body: 1_024,
            write: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// For a process that may open this many files: at most half of them are for connections.
    #[must_use]
    pub fn for_open_files(files: u64) -> Self {
        let most = Self::default();
        let connections = usize::try_from(files / 2).unwrap_or(usize::MAX).clamp(16, most.connections);
        Self {
            connections,
            per_address: most.per_address.min(connections / 2),
            per_own_address: most.per_own_address.min(connections - connections / 12),
            ..most
        }
    }
}

/// Serves the API until `ended`, then lets responses in progress finish. If dropped, it cuts every connection that is not a
/// WebSocket.
pub async fn serve(listener: TcpListener, state: AppState, limits: Limits, ended: impl Future<Output = ()>) {
    serve_router(listener, crate::router(state), limits, ended).await;
}

/// Like [`serve`], for any router.
pub async fn serve_router(listener: TcpListener, router: Router, limits: Limits, ended: impl Future<Output = ()>) {
    let Limits { connections, per_address, per_own_address, .. } = limits;
    let (places, limits) = (Places::new(Bounds { connections, per_address, per_own_address }), Arc::new(limits));
    let (closing, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut ended = pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match take_place(&places, peer) {
                    Some(place) => {
                        let socket = Socket::new(stream, place, limits.write);
                        let serving = connection(socket, router.clone(), limits.clone(), closing.subscribe());
                        connections.spawn(serving);
                    }
                    None => refuse(&stream),
                },
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    sleep(AFTER_FAILURE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    closing.send_replace(true);
    while connections.join_next().await.is_some() {}
}

fn take_place(places: &Places, peer: SocketAddr) -> Option<Place> {
    let place = places.take(peer.ip());
    if place.is_none() {
        metrics::counter!("ambient_connections_refused_total").increment(1);
    }
    place
}

/// Best effort, without waiting: a peer with too many connections gets no more of our time.
fn refuse(stream: &TcpStream) {
    let error = ApiError::unavailable("too many connections", RETRY_AFTER);
    let answer = by_hand(StatusCode::SERVICE_UNAVAILABLE, error, &new_id());
    // A peer that cannot be written to at once only sees the connection close.
    let _ = stream.try_write(answer.as_bytes());
}

async fn connection(socket: Socket, router: Router, limits: Arc<Limits>, mut closing: watch::Receiver<bool>) {
    let io = Enveloped::new(socket);
    let exchanges = ConnectInfo(io.exchanges());
    let (head, service) = (limits.head, TowerToHyperService::new(router));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| paced(Body::new(body), &limits));
        request.extensions_mut().insert(exchanges.clone());
        service.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head);
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), service).with_upgrades());
    let closes = async { drop(closing.wait_for(|closing| *closing).await) };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = closes => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

/// A body that must arrive in time: first its start, then at the slowest pace allowed.
fn paced(body: Body, limits: &Limits) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let (grace, pace) = (limits.body, limits.slowest_body.max(1));
    let begin = (body.into_data_stream(), Instant::now() + grace);
    Body::from_stream(stream::unfold(Some(begin), move |state| async move {
        let (mut data, deadline) = state?;
        match timeout_at(deadline, data.next()).await {
            Ok(Some(Ok(bytes))) => {
                let earned = Duration::from_secs_f64(bytes.len() as f64 / pace as f64);
                let deadline = (deadline + earned).min(Instant::now() + grace);
                Some((Ok(bytes), Some((data, deadline))))
            }
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(axum::Error::new(too_slow())), None)),
        }
    }))
}

fn too_slow() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the body arrived too slowly")
}
