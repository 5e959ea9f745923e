//! Connections to the endpoint. One that has served a call serves another: without that, each would cost a handshake.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use ambient_wire::network::Host;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Url;

use super::{refusal::Refusal, tls};
use crate::network::{Failure as Unreached, Reach};

const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// Most idle connections.
const MOST_IDLE: usize = 8;
/// How long one may be idle. Endpoints close them after a minute or more.
const IDLE: Duration = Duration::from_secs(45);

type Sender = SendRequest<Full<Bytes>>;

/// A connection to the endpoint; it is closed with this.
pub(super) struct Connection {
    sender: Sender,
    task: JoinHandle<()>,
}

impl Connection {
    /// Closes it from elsewhere.
    pub(super) fn closer(&self) -> AbortHandle {
        self.task.abort_handle()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connections to one base URL.
pub(super) struct Pool {
    is_tls: bool,
    host: String,
    port: u16,
    /// How it is reached, if not whatever the machine reaches.
    reach: Option<(Reach, Host)>,
    authority: HeaderValue,
    /// What comes before the dialect's path.
    prefix: String,
    tls: OnceCell<TlsConnector>,
    idle: Mutex<Vec<(Instant, Connection)>>,
}

impl Pool {
    /// Of a URL that may lead anywhere, or, with `private`, to public addresses and those that it names.
    ///
    /// # Errors
    /// In words, if the URL is none that can be asked.
    pub(super) fn new(base_url: &str, private: Option<&[String]>) -> Result<Self, String> {
        let url = Url::parse(base_url).map_err(|e| e.to_string())?;
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err("it is neither https:// nor http://".to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err("it has a user, a password, a query or a fragment".to_owned());
        }
        let host = url.host_str().ok_or("it has no host")?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let reach = match private {
            Some(private) => {
                let reach =
                    Reach::public_and(private).map_err(|p| format!("private hosts: {} {}", p.field, p.reason))?;
                Some((reach, host.parse::<Host>().map_err(|problem| format!("its host {}", problem.0))?))
            }
            None => None,
        };
        Ok(Self {
            is_tls,
            reach,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port_or_known_default().ok_or("it has no port")?,
            authority: HeaderValue::try_from(authority).map_err(|_| "its host is invalid")?,
            prefix: url.path().trim_end_matches('/').to_owned(),
            tls: OnceCell::new(),
            idle: Mutex::default(),
        })
    }

    /// Address and `Host` of a path of the dialect.
    ///
    /// # Errors
    /// When there is no such address.
    pub(super) fn address(&self, path: &str, request: &mut Request<Full<Bytes>>) -> Result<(), Refusal> {
        let uri = format!("{}{path}", self.prefix);
        *request.uri_mut() = uri.parse::<Uri>().map_err(|_| Refusal::NoRoute(path.to_owned()))?;
        request.headers_mut().insert(HOST, self.authority.clone());
        Ok(())
    }

    /// A connection, idle or new; true if it has served others.
    ///
    /// # Errors
    /// When none can be had.
    pub(super) async fn connection(&self, fresh: bool) -> Result<(Connection, bool), Refusal> {
        if let Some(connection) = self.take_idle().filter(|_| !fresh) {
            return Ok((connection, true));
        }
        let connecting = timeout(CONNECT_PATIENCE, self.connect()).await;
        let connection = connecting.map_err(|_| Refusal::UpstreamSlow(CONNECT_PATIENCE.as_secs()))?;
        connection.map(|connection| (connection, false))
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn give_back(&self, connection: Connection) {
        if let Ok(mut idle) = self.idle.lock()
            && !connection.sender.is_closed()
            && idle.len() < MOST_IDLE
        {
            idle.push((Instant::now(), connection));
        }
    }

    pub(super) fn close_idle(&self) {
        if let Ok(mut idle) = self.idle.lock() {
            idle.clear();
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().ok()?;
        idle.retain(|(since, connection)| since.elapsed() < IDLE && !connection.sender.is_closed());
        idle.pop().map(|(_, connection)| connection)
    }

    async fn connect(&self) -> Result<Connection, Refusal> {
        let stream = self.reached().await?;
        self.begin(stream).await.map_err(Refusal::Upstream)
    }

    async fn begin(&self, stream: TcpStream) -> Result<Connection, String> {
        // A request's end must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        if !self.is_tls {
            return shake_hands(stream).await;
        }
        let tls = self.tls.get_or_try_init(|| async {
            // Reads files.
            tokio::task::spawn_blocking(tls::connector).await.map_err(|e| e.to_string())?
        });
        let name = ServerName::try_from(self.host.clone()).map_err(|_| "has an invalid name")?;
        let stream = tls.await?.connect(name, stream).await.map_err(|e| format!("cannot be reached by TLS: {e}"))?;
        shake_hands(stream).await
    }
}

impl Pool {
    async fn reached(&self) -> Result<TcpStream, Refusal> {
        let failed = |why: String| Refusal::Upstream(format!("cannot be reached: {why}"));
        let Some((reach, host)) = &self.reach else {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            return stream.map_err(|e| failed(e.to_string()));
        };
        reach.connect(host, self.port).await.map_err(|failure| match failure {
            Unreached::Refused(_) => Refusal::NotPublic,
            Unreached::Failed(why) => failed(why),
            Unreached::Slow => failed("it takes too long".to_owned()),
        })
    }
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Connection, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the model endpoint ended");
        }
    });
    Ok(Connection { sender, task })
}

/// How sending a request failed.
pub(super) enum Failure {
    /// Nothing of it was sent.
    Unsent(Box<Request<Full<Bytes>>>),
    Failed(Refusal),
}

impl Connection {
    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        match timeout(patience, self.sender.try_send_request(request)).await {
            Err(_) => Err(Failure::Failed(Refusal::UpstreamSlow(patience.as_secs()))),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut failed)) => match failed.take_message() {
                Some(request) => Err(Failure::Unsent(Box::new(request))),
                None => Err(Failure::Failed(Refusal::Upstream(format!("did not answer: {}", failed.error())))),
            },
        }
    }
}
