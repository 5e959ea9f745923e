//! How the runner's sockets are served: every connection has a slot, and every wait for its peer a timeout.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};

/// Connections at once; the servers of a session need a handful.
const MOST: usize = 128;
/// From a connection's start, or the previous response, to the end of a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which most likely means no file descriptors are left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves the runner's socket forever.
pub(crate) async fn serve(listener: UnixListener, router: Router) {
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    serve_each("the runner", MOST, accept, |stream| connection(stream, router.clone())).await;
}

/// Serves every connection, forever, at most `most` at once: a peer with that many gets no more.
pub(crate) async fn serve_each<S, F: Future<Output = ()> + Send + 'static>(
    what: &str,
    most: usize,
    accept: impl Fn(&mut Context<'_>) -> Poll<std::io::Result<S>>,
    connection: impl Fn(S) -> F,
) {
    let places = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = poll_fn(&accept) => match (accepted, places.clone().try_acquire_owned()) {
                (Ok(stream), Ok(place)) => {
                    let serving = connection(stream);
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                (Ok(_), Err(_)) => tracing::warn!("more than {most} connections to {what}: one is refused"),
                (Err(error), _) => {
                    tracing::warn!(%error, "connection to {what} not accepted");
                    sleep(AFTER_FAILURE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: UnixStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let service = TowerToHyperService::new(router);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "connection ended");
    }
}
