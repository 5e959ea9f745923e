//! How the runner's socket is served: every connection has a place, and every wait on its peer an end.

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
/// From a connection's beginning, or the answer before, to the end of a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a failed accept: out of file descriptors, most likely.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves for ever.
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
                // Closed: whoever has so many gets no more.
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
