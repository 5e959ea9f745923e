//! The way out of a restricted network: an HTTP proxy, which listens where only the agent can connect, on the loopback interface of the
//! agent's own network namespace.
//!
//! Invariants: a host is compared with the session's list before anything is done about it; it is looked up once, by us, and the address
//! that was checked is the one that is connected to; nothing that is not public is reached unless the list names that very address; no
//! connection outlives the turn that was stopped; whatever an agent tries, memory, connections and records are bounded.
//!
//! Not looked at is what goes through a connection: whoever is allowed answers for whom they pass it on to.

mod address;
mod connection;
mod idle;
mod reach;
mod refusals;
mod request;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::Context,
};

use ambient_runner_protocol::Network;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{listener::serve_each, log::EventLog};
use refusals::Refusals;

pub(crate) use reach::{Failure, Reach};

/// Connections of the agent at once.
const MOST: usize = 128;

/// A running proxy; it ends with this.
pub(crate) struct NetworkProxy {
    url: String,
    proxy: Arc<Proxy>,
    tasks: [JoinHandle<()>; 2],
}

/// What every connection needs.
struct Proxy {
    reach: Reach,
    refusals: Refusals,
    /// Cancelled when the turn is stopped; then no connection is served until the next begins.
    open: Mutex<CancellationToken>,
}

impl NetworkProxy {
    /// Serves what comes to the listener, as the network allows.
    ///
    /// # Errors
    /// In words: the network is not valid, or the listener has no port.
    pub(crate) fn start(network: &Network, listener: TcpListener, log: EventLog) -> Result<Self, String> {
        let reach = Reach::new(network).map_err(|problem| format!("network.{} {}", problem.field, problem.reason))?;
        Self::with(reach, listener, log)
    }

    fn with(reach: Reach, listener: TcpListener, log: EventLog) -> Result<Self, String> {
        let address = listener.local_addr().map_err(|e| format!("the network proxy cannot be started: {e}"))?;
        let (refusals, open) = (Refusals::new(log), Mutex::default());
        let proxy = Arc::new(Proxy { reach, refusals, open });
        let (serving, telling) = (proxy.clone(), proxy.clone());
        let tasks = [
            tokio::spawn(async move {
                let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
                serve_each("the network proxy", MOST, accept, |stream| connection::serve(stream, serving.clone()))
                    .await;
            }),
            tokio::spawn(async move { telling.refusals.tell_each_window().await }),
        ];
        Ok(Self { url: format!("http://{address}"), proxy, tasks })
    }

    /// What tells programs to use it.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        // Some read only capitals; curl reads `http_proxy` only in small letters, because a web server could set the other one.
        const PROXY: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        // What listens here, the model proxy included, is reached without one. Node heeds all this only if told to.
        const FIXED: [(&str, &str); 3] = [
            ("NO_PROXY", "127.0.0.1,localhost,::1"),
            ("no_proxy", "127.0.0.1,localhost,::1"),
            ("NODE_USE_ENV_PROXY", "1"),
        ];
        PROXY.into_iter().map(|name| (name, self.url.as_str())).chain(FIXED)
    }

    /// Connections are served again.
    pub(crate) fn begin_turn(&self) {
        let mut open = self.proxy.open();
        if open.is_cancelled() {
            *open = CancellationToken::new();
        }
    }

    /// Closes every connection, serves none until the next turn begins, and tells of refusals that were not told yet.
    pub(crate) async fn close(&self) {
        self.proxy.open().cancel();
        self.proxy.refusals.tell().await;
    }
}

impl Proxy {
    fn open(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> CancellationToken {
        self.open().clone()
    }
}

impl Drop for NetworkProxy {
    fn drop(&mut self) {
        self.proxy.open().cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
