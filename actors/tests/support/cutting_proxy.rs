//! Sits between a server and its database and cuts connections at the worst moment: during a commit.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

#[derive(Default)]
struct Counters {
    commits: AtomicUsize,
    answers_lost: AtomicUsize,
    commits_swallowed: AtomicUsize,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    counters: Arc<Counters>,
}

impl Proxy {
    pub(crate) fn answers_lost(&self) -> usize {
        self.counters.answers_lost.load(Ordering::SeqCst)
    }
    pub(crate) fn commits_swallowed(&self) -> usize {
        self.counters.commits_swallowed.load(Ordering::SeqCst)
    }
}

pub(crate) async fn start(url: &str) -> Proxy {
    let server = PgConnectOptions::from_str(url).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut url = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(server.get_username())
        .database(server.get_database().unwrap())
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
        .to_url_lossy();
    // A server under test that wants a password finds it in its own URL.
    let password = server.to_url_lossy().password().map(str::to_owned);
    url.set_password(password.as_deref()).unwrap();
    let counters = Arc::<Counters>::default();
    let proxy = Proxy { url: url.to_string(), counters: counters.clone() };
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (server, counters) = (server.clone(), counters.clone());
            tokio::spawn(async move {
                match server.get_socket().cloned() {
                    Some(directory) => {
                        let socket = directory.join(format!(".s.PGSQL.{}", server.get_port()));
                        relay(client, UnixStream::connect(socket).await.unwrap(), &counters).await;
                    }
                    None => {
                        let server = TcpStream::connect((server.get_host(), server.get_port())).await.unwrap();
                        relay(client, server, &counters).await;
                    }
                }
            });
        }
    });
    proxy
}

/// A statement that writes a message and commits by itself, or the end of a transaction.
fn commits(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    has(b"\"event\":\"message_accepted\"") || has(b"commit\0")
}

/// Of three commits one passes, of one the answer is lost, one never reaches the server.
async fn relay(
    mut client: TcpStream,
    mut server: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    counters: &Counters,
) {
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    let mut lose_answer = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(n @ 1..) = read else { return };
                let bytes = &from_client[..n];
                if commits(bytes) {
                    match counters.commits.fetch_add(1, Ordering::SeqCst) % 3 {
                        0 => {}
                        1 => lose_answer = true,
                        _ => {
                            counters.commits_swallowed.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    }
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(n @ 1..) = read else { return };
                if lose_answer {
                    counters.answers_lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if client.write_all(&from_server[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}
