//! The engine as a gRPC server, for Temporal's command line, other SDKs and workers in other processes.
//!
//! One service takes any `/package.Service/Method` and passes its name and bytes on to where calls within the process go (see
//! `service`), so both have the same RPCs and errors. Limited are: connections, calls per connection and in total, the size of
//! a request, the time of a peer that sends or reads nothing. A caller that hangs up, or whose `grpc-timeout` expires, gives its task back.
//!
//! Anyone who can reach the address may read and change every workflow: without TLS only loopback addresses are served.

mod connections;
mod framing;
mod service;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use ambient_connections::Places;
use tokio::sync::Semaphore;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

pub use ambient_connections::Bounds;

use self::service::GrpcService;
use crate::engine::Engine;

/// Calls at once per connection; its client holds back any more.
const MAX_CALLS_PER_CONNECTION: u32 = 1024;
/// Calls in progress at once, including long polls; any more get `ResourceExhausted`.
const MAX_CALLS: usize = 16_384;
/// How often a connection without traffic is pinged.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Connections that do not answer for this long are closed, and their polls end.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that calls in progress have when the server ends.
const DRAIN: Duration = Duration::from_secs(10);

/// How many connections there may be, and how long their peers may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Slots; a connection without one is closed at once.
    pub connections: Bounds,
    /// From a connection's start to its first call, TLS included.
    pub first_call: Duration,
    /// The peer reads some of a response within this time.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Bounds { connections: 1024, per_address: 256, per_own_address: 960 },
            first_call: Duration::from_secs(30),
            write: Duration::from_secs(60),
        }
    }
}

/// What TLS needs, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// The server's certificate, with the chain up to its CA.
    pub certificate: Vec<u8>,
    /// The certificate's private key.
    pub key: Vec<u8>,
    /// The CA of clients' certificates; without it any client is accepted.
    pub client_authority: Option<Vec<u8>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("client_authority", &self.client_authority.is_some()).finish_non_exhaustive()
    }
}

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address that others can reach, without TLS.
    #[error(
        "{0} is not a loopback address: anyone who reaches it could read and change every workflow; configure a certificate (TLS)"
    )]
    NeedsTls(SocketAddr),
    /// The listener cannot be used.
    #[error("listen: {0}")]
    Listen(#[from] std::io::Error),
    /// Certificate, key or CA cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The transport failed.
    #[error("gRPC server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl Engine {
    /// Serves gRPC on `listener` until `ended`; then stops the engine ([`Engine::shutdown`]), and calls in progress get 10 s.
    ///
    /// # Errors
    /// When the address needs TLS and there is none, or the listener, certificate or key cannot be used.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<Tls>,
        limits: Limits,
        ended: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let address = listener.local_addr()?;
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::NeedsTls(address));
        }
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut server = Server::builder()
            .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
        if let Some(tls) = tls {
            server = server.tls_config(config(tls)?).map_err(|e| ServeError::Tls(with_causes(&e)))?;
        }
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        let service = GrpcService { engine: self.clone(), calls };
        let incoming = connections::accept(listener, Places::new(limits.connections), limits);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = server.serve_with_incoming_shutdown(service, incoming, async move {
            let _ = stopped.await;
        });
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            result = &mut serving => return result.map_err(ServeError::from),
            () = ended => {}
        }
        let _ = stop.send(());
        // Both at once: long polls end with the engine.
        let drained = tokio::join!(tokio::time::timeout(DRAIN, serving), self.shutdown()).0;
        if drained.is_err() {
            tracing::warn!(seconds = DRAIN.as_secs(), "connections still open at the end are cut");
        }
        Ok(())
    }
}

fn config(tls: Tls) -> Result<ServerTlsConfig, ServeError> {
    let has = |pem: &[u8], what: &str| {
        let mark = format!("-----BEGIN {what}").into_bytes();
        pem.windows(mark.len()).any(|w| w == mark)
    };
    if !has(&tls.certificate, "CERTIFICATE") {
        return Err(ServeError::Tls("the certificate file contains no PEM certificate".to_owned()));
    }
    let mut config = ServerTlsConfig::new().timeout(HANDSHAKE_TIMEOUT);
    if let Some(authority) = tls.client_authority {
        // Without this check an empty file would let nobody in, or, worse, count as "none".
        if !has(&authority, "CERTIFICATE") {
            return Err(ServeError::Tls("the client CA file contains no PEM certificate".to_owned()));
        }
        config = config.client_ca_root(Certificate::from_pem(authority));
    }
    Ok(config.identity(Identity::from_pem(tls.certificate, tls.key)))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
