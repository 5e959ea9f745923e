//! The proxy between a client and servers of the test.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ambient_runner_protocol::{Network, NetworkMode};
use ambient_wire::runner_event::{NetworkRefusal, RunnerEvent};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    NetworkProxy,
    reach::{Lookup, Reach},
};
use crate::log::EventLog;

struct Scene {
    _directory: TempDir,
    log: EventLog,
    proxy: NetworkProxy,
    address: SocketAddr,
}

fn allow(entries: &[&str]) -> Network {
    Network { mode: NetworkMode::AllowList, allow: entries.iter().map(|&entry| entry.to_owned()).collect() }
}

/// A server that answers with what it was sent, once per connection.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                let read = stream.read(&mut bytes).await.unwrap_or_default();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsent: ").await;
                let _ = stream.write_all(&bytes[..read]).await;
            });
        }
    });
    port
}

impl Scene {
    async fn new(network: &Network) -> Self {
        Self::with(Reach::new(network).unwrap()).await
    }

    async fn looking_up(network: &Network, lookup: Lookup) -> Self {
        Self::with(Reach::new(network).unwrap().looking_up(lookup)).await
    }

    async fn with(reach: Reach) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = EventLog::open(&directory.path().join("events.ndjson"), |_| {}).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = NetworkProxy::with(reach, listener, log.clone()).unwrap();
        Self { _directory: directory, log, proxy, address }
    }

    /// Sends it, and reads until the end.
    async fn send(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn connect(&self, target: &str) -> String {
        self.send(&format!("CONNECT {target} HTTP/1.1\r\n\r\nhello")).await
    }

    /// What was recorded, once everything is.
    async fn refused(&self) -> Vec<(String, u16, NetworkRefusal, u64)> {
        self.proxy.close().await;
        self.log.append(vec![RunnerEvent::AgentNotice { text: "the end".to_owned() }]).await.unwrap();
        let records = self.log.read(0, 1000).unwrap();
        let refused = records.iter().filter_map(|record| match RunnerEvent::read(&record.event) {
            Some(RunnerEvent::NetworkRefused { host, port, reason, count }) => Some((host, port, reason, count)),
            _ => None,
        });
        refused.collect()
    }
}

#[tokio::test]
async fn what_the_list_names_is_reached_and_nothing_else() {
    let (port, other) = (server().await, server().await);
    let scene = Scene::new(&allow(&[&format!("127.0.0.1:{port}"), "*.example.com"])).await;
    let answer = scene.connect(&format!("127.0.0.1:{port}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("sent: hello"), "{answer}");
    let answer = scene.send(&format!("GET http://127.0.0.1:{port}/a HTTP/1.1\r\nHost: example.com\r\n\r\n")).await;
    assert!(answer.contains(&format!("sent: GET /a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n")), "{answer}");
    let target = format!("127.0.0.1:{other}");
    for _ in 0..2 {
        let answer = scene.connect(&target).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("allow-list"), "{answer}");
    }
    assert!(scene.send("GET http://evil.test/ HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 403 "));
    assert!(scene.send("GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let long = format!("GET http://a/ HTTP/1.1\r\nX: {}", "x".repeat(40_000));
    assert!(scene.send(&long).await.starts_with("HTTP/1.1 431 "));
    use NetworkRefusal::NotAllowed;
    let expected = [
        ("127.0.0.1".to_owned(), other, NotAllowed, 1),
        ("evil.test".to_owned(), 80, NotAllowed, 1),
        ("127.0.0.1".to_owned(), other, NotAllowed, 1),
    ];
    assert_eq!(scene.refused().await, expected);
}

#[tokio::test]
async fn without_a_network_everything_is_refused() {
    let port = server().await;
    let scene = Scene::new(&Network { mode: NetworkMode::None, allow: Vec::new() }).await;
    let answer = scene.connect(&format!("127.0.0.1:{port}")).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("no network"), "{answer}");
    assert_eq!(scene.refused().await, [("127.0.0.1".to_owned(), port, NetworkRefusal::NoNetwork, 1)]);
}

static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_and_the_address_that_was_checked_is_the_one_that_is_connected_to() {
    let (port, other) = (server().await, server().await);
    let allowed = allow(&["rebinds.test:*", "x"]);
    assert!(Reach::new(&allowed).is_err());
    let entries = [format!("rebinds.test:{port}"), format!("rebinds.test:{other}"), format!("127.0.0.1:{port}")];
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    // First inside, then what the list names, then inside again.
    let lookup: Lookup = |_, port| {
        Box::pin(async move {
            let n = LOOKUPS.fetch_add(1, Ordering::SeqCst);
            let address = if n == 1 { [127, 0, 0, 1] } else { [127, 0, 0, 2] };
            Ok(vec![SocketAddr::from(([169, 254, 169, 254], port)), SocketAddr::from((address, port))])
        })
    };
    let scene = Scene::looking_up(&allow(&entries), lookup).await;
    let target = format!("rebinds.test:{port}");
    assert!(scene.connect(&target).await.starts_with("HTTP/1.1 403 "));
    let answer = scene.connect(&target).await;
    assert!(answer.ends_with("sent: hello"), "{answer}");
    assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2, "one look per connection");
    // The address is named, but not with this port.
    assert!(scene.connect(&format!("rebinds.test:{other}")).await.starts_with("HTTP/1.1 403 "));
    // What is not allowed is not even looked up.
    assert!(scene.connect("secret-data.evil.test:443").await.starts_with("HTTP/1.1 403 "));
    assert_eq!(LOOKUPS.load(Ordering::SeqCst), 3);
    let refused = scene.refused().await;
    assert_eq!(refused[0], ("rebinds.test".to_owned(), port, NetworkRefusal::NotPublic, 1));
}

#[tokio::test]
async fn a_stop_closes_every_connection_and_the_next_turn_opens_new_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let scene = Scene::new(&allow(&[&target.to_string()])).await;
    let mut stream = TcpStream::connect(scene.address).await.unwrap();
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    scene.proxy.close().await;
    let mut bytes = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(1), accepted.read_to_end(&mut bytes)).await;
    assert!(closed.is_ok(), "the host sees the end");
    assert_eq!(scene.connect(&target.to_string()).await, "", "a stopped turn has no network");
    scene.proxy.begin_turn();
    let mut stream = TcpStream::connect(scene.address).await.unwrap();
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    listener.accept().await.unwrap();
}
