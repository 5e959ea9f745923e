//! Whether a host may be reached, and a connection to it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ambient_runner_protocol::Network;
use ambient_wire::{
    network::{Entry, Host, NetworkMode, Problem},
    runner_event::NetworkRefusal,
};
use futures::future::BoxFuture;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

use super::address;

/// Until a host is connected to, looking it up included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// Names that are looked up at once: each takes one of the runner's threads, which it needs for files.
const MOST_LOOKUPS: usize = 4;
/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Addresses of a name.
pub(super) type Lookup = fn(String, u16) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;

/// What a session may reach.
pub(crate) struct Reach {
    mode: NetworkMode,
    /// Hosts that the list does not name may be reached too, at public addresses.
    any_host: bool,
    entries: Vec<Entry>,
    lookup: Lookup,
    lookups: Semaphore,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is not allowed.
    Refused(NetworkRefusal),
    /// It did not work, in words.
    Failed(String),
    /// It took too long.
    Slow,
}

impl Reach {
    /// # Errors
    /// What is wrong with the list.
    pub(super) fn new(network: &Network) -> Result<Self, Problem> {
        let lookup: Lookup = |name, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.take(MOST_ADDRESSES).collect()) })
        };
        let (mode, entries) = (network.mode, network.entries()?);
        Ok(Self { mode, any_host: false, entries, lookup, lookups: Semaphore::new(MOST_LOOKUPS) })
    }

    /// Whatever has a public address, and besides the hosts and addresses that the entries name.
    ///
    /// # Errors
    /// What is wrong with the entries.
    pub(crate) fn public_and(entries: &[String]) -> Result<Self, Problem> {
        let allow = entries.to_vec();
        let mode = if allow.is_empty() { NetworkMode::None } else { NetworkMode::AllowList };
        Ok(Self { any_host: true, ..Self::new(&Network { mode, allow })? })
    }

    #[cfg(test)]
    pub(super) fn looking_up(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// Connects to a host, if it may be reached.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, Failure> {
        if !self.any_host && !self.names(host, port) {
            let is_none = self.mode == NetworkMode::None;
            let why = if is_none { NetworkRefusal::NoNetwork } else { NetworkRefusal::NotAllowed };
            return Err(Failure::Refused(why));
        }
        timeout(CONNECT_PATIENCE, self.connect_to_checked(host, port)).await.unwrap_or(Err(Failure::Slow))
    }

    async fn connect_to_checked(&self, host: &Host, port: u16) -> Result<TcpStream, Failure> {
        let addresses = match host {
            Host::Address(address) => vec![SocketAddr::new(*address, port)],
            Host::Name(name) => self.look_up(name, port).await?,
        };
        let own = address::own().map_err(|e| Failure::Failed(format!("this machine's addresses: {e}")))?;
        // Whoever lists hosts beside any others means that very host, wherever it is.
        let is_meant = self.any_host && self.names(host, port);
        let is_open = |address: &IpAddr| {
            let address = address.to_canonical();
            let is_anybodys = address::is_public(address) && !own.contains(&address);
            is_meant || is_anybodys || self.names(&Host::Address(address), port)
        };
        let (mut last, mut is_refused) = (None, true);
        for address in addresses.into_iter().filter(|address| is_open(&address.ip())) {
            is_refused = false;
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        if is_refused {
            return Err(Failure::Refused(NetworkRefusal::NotPublic));
        }
        Err(Failure::Failed(last.map_or_else(String::new, |error| error.to_string())))
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let _place = self.lookups.acquire().await;
        let found = (self.lookup)(name.to_owned(), port).await;
        match found {
            Ok(addresses) if addresses.is_empty() => Err(Failure::Failed("it has no address".to_owned())),
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(Failure::Failed(error.to_string())),
        }
    }

    fn names(&self, host: &Host, port: u16) -> bool {
        self.entries.iter().any(|entry| entry.names(host, port))
    }
}
