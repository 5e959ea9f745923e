//! How the runner's socket is served: every connection has a slot, and every wait for its peer a timeout.

use std::{sync::Arc, time::Duration};

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

/// Serves forever.
pub(crate) async fn serve(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match (accepted, places.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => {
                    let serving = connection(stream, router.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                // Closed: a peer with that many gets no more.
                (Ok(_), Err(_)) => tracing::warn!("more than {MOST} connections: one is refused"),
                (Err(error), _) => {
                    tracing::warn!(%error, "connection not accepted");
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
