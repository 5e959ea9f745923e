//! HTTP/1.1 over TLS, as far as Git LFS needs it: one request per connection, no threads, no unsolicited redirects.
//!
//! It runs in a process that has given up its rights, in namespaces where no thread can be created: names are resolved in place.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use hyper_util::{client::proxy::matcher::Matcher, rt::TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    net::TcpStream,
    time::{timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use url::Url;

const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// Timeout for the head of a response, and for each piece of its body.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most headers that an action may bring.
const MAX_HEADERS: usize = 32;
/// What a server may not set on a request to another one: it is for us to set.
const OURS: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "proxy-authorization"];

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// Connects to `https://` and nothing else.
pub(super) struct Client {
    tls: TlsConnector,
    proxies: Matcher,
}

/// A request.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// How long sending the body may take.
    pub(super) patience: Duration,
}

impl Client {
    /// With the machine's CAs, or those named by the session's variables, and its proxies.
    ///
    /// # Errors
    /// In words.
    pub(super) fn new() -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        match std::env::var_os("GIT_SSL_CAINFO") {
            Some(file) => {
                let all =
                    CertificateDer::pem_file_iter(Path::new(&file)).map_err(|e| format!("GIT_SSL_CAINFO: {e}"))?;
                roots.add_parsable_certificates(all.filter_map(Result::ok));
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err("the machine has no CA certificates".to_owned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), proxies: Matcher::from_env() })
    }

    /// Sends a request; returns the response, whatever its status.
    ///
    /// # Errors
    /// In words that contain nothing of the URL but the host.
    pub(super) async fn send(&self, call: Call) -> Result<Response<Incoming>, String> {
        let host = host_of(&call.url)?;
        self.exchange(call, &host).await.map_err(|e| format!("{host}: {e}"))
    }

    async fn exchange(&self, call: Call, host: &str) -> Result<Response<Incoming>, String> {
        let patience = call.patience + PATIENCE;
        let stream =
            timeout(CONNECT_PATIENCE, self.connect(&call.url, host)).await.map_err(|_| "no connection in time")??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let path = match call.url.query() {
            Some(query) => format!("{}?{query}", call.url.path()),
            None => call.url.path().to_owned(),
        };
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = path.parse().map_err(|_| "its address cannot be requested")?;
        *request.headers_mut() = call.headers;
        let authority = authority(&call.url, host);
        let value = HeaderValue::try_from(authority).map_err(|_| "its host is invalid")?;
        request.headers_mut().insert("host", value);
        request.headers_mut().insert("user-agent", HeaderValue::from_static("ambient"));
        let answer = timeout(patience, sender.send_request(request)).await;
        answer.map_err(|_| "no answer in time")?.map_err(|e| e.to_string())
    }

    async fn connect(&self, url: &Url, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let port = url.port_or_known_default().unwrap_or(443);
        let target = authority(url, host).parse::<hyper::Uri>().ok();
        let whole = hyper::Uri::builder().scheme("https").path_and_query("/");
        let whole = target.and_then(|target| whole.authority(target.authority()?.clone()).build().ok());
        let proxy = whole.and_then(|whole| self.proxies.intercept(&whole));
        let stream = match proxy {
            None => dial(host, port).await?,
            Some(proxy) => {
                let (at, auth) = (proxy.uri(), proxy.basic_auth());
                if at.scheme_str() != Some("http") {
                    return Err("a proxy must be named by http://".to_owned());
                }
                let stream = dial(at.host().unwrap_or_default(), at.port_u16().unwrap_or(80)).await?;
                tunnel(stream, host, port, auth).await.map_err(|e| format!("the proxy: {e}"))?
            }
        };
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|_| "its host is invalid")?;
        self.tls.connect(name, stream).await.map_err(|e| e.to_string())
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(|e| e.to_string())?.take(8).collect();
    let mut why = "its name has no address".to_owned();
    for address in addresses {
        match timeout(CONNECT_PATIENCE / 3, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => "no connection in time".clone_into(&mut why),
        }
    }
    Err(why)
}

/// Asks a proxy for a tunnel; the byte after its response is the server's.
async fn tunnel(mut stream: TcpStream, host: &str, port: u16, auth: Option<&HeaderValue>) -> Result<TcpStream, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(auth) = auth {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(auth.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await.map_err(|e| e.to_string())?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() > 8192 || stream.read(&mut byte).await.map_err(|e| e.to_string())? == 0 {
            return Err("it does not answer as a proxy does".to_owned());
        }
        answer.push(byte[0]);
    }
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned();
    if status == "200" { Ok(stream) } else { Err(format!("it refuses: {}", plain(&status))) }
}

fn authority(url: &Url, host: &str) -> String {
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The host of a URL that may be contacted.
///
/// # Errors
/// In words.
pub(super) fn host_of(url: &Url) -> Result<String, String> {
    if url.scheme() != "https" {
        return Err("a URL is not https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL contains credentials".to_owned());
    }
    url.host_str().map(str::to_owned).ok_or_else(|| "a URL has no host".to_owned())
}

/// Headers that a server wants on a request to where it sends us.
///
/// # Errors
/// In words.
pub(super) fn headers(wanted: &serde_json::Map<String, serde_json::Value>) -> Result<HeaderMap, String> {
    if wanted.len() > MAX_HEADERS {
        return Err(format!("it asks for more than {MAX_HEADERS} headers"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in wanted {
        let name = HeaderName::try_from(name.to_ascii_lowercase()).map_err(|_| "it asks for an invalid header")?;
        if OURS.contains(&name.as_str()) {
            continue;
        }
        let value = value.as_str().and_then(|value| HeaderValue::try_from(value).ok());
        headers.insert(name, value.ok_or("it asks for an invalid header")?);
    }
    Ok(headers)
}

/// The whole body, if it is no longer than that.
///
/// # Errors
/// In words.
pub(super) async fn whole(mut body: Incoming, most: usize) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(piece) = next(&mut body).await? {
        if all.len() + piece.len() > most {
            return Err(format!("it answers with more than {most} bytes"));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// The next piece of a body.
///
/// # Errors
/// In words.
pub(super) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| "it stopped in the middle of its answer")?;
        match frame {
            None => return Ok(None),
            Some(frame) => match frame.map_err(|e| e.to_string())?.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            },
        }
    }
}

/// A server's message, for people: short, and without anything that moves a cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
