//! git-lfs, and an origin over https that keeps files with it: git's own server, and the batch API over TLS.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Session, git};

/// git-lfs, built when it is missing. None, loudly, where it cannot be.
pub fn git_lfs() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/git-lfs");
    let said = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    if said.status.code() == Some(3) && std::env::var("CI").is_err() {
        eprintln!("SKIPPED: there is no git-lfs on this machine, and no Go to build it with");
        return None;
    }
    assert!(said.status.success(), "scripts/git-lfs failed");
    Some(String::from_utf8(said.stdout).unwrap().trim().into())
}

/// A session whose agent finds git-lfs, and the URL of its origin `up`.
pub fn with_git_lfs() -> Option<(Session, String)> {
    let program = git_lfs()?;
    let mut session = Session::new(true);
    give(&mut session, &program, &[]);
    let url = session.origin("up");
    Some((session, url))
}

/// Lets the session's agent find git-lfs, and gives it variables.
pub fn give(session: &mut Session, git_lfs: &Path, variables: &[(&str, &str)]) {
    let folder = git_lfs.parent().unwrap();
    session.spec.readable_paths.push(folder.to_owned());
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display());
    let all: BTreeMap<&str, &str> = variables.iter().copied().chain([("PATH", path.as_str())]).collect();
    std::fs::write(session.paths.environment(1), serde_json::to_vec(&all).unwrap()).unwrap();
}

/// A pointer to some content.
pub fn pointer(content: &[u8]) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", oid(content), content.len())
}

pub fn oid(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where an object is in a folder of them.
pub fn object(folder: &Path, content: &[u8]) -> PathBuf {
    let oid = oid(content);
    folder.join("lfs/objects").join(&oid[..2]).join(&oid[2..4]).join(oid)
}

/// Commits files to the origin's working repository as pointers, and pushes them to the bare one.
pub fn commit_pointers(session: &Session, files: &[(&str, &[u8])]) {
    let up = session.directory().join("up");
    std::fs::write(up.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    for (path, content) in files {
        std::fs::write(up.join(path), pointer(content)).unwrap();
    }
    git(&up, &["add", "."]);
    git(&up, &["commit", "--quiet", "-m", "pointers"]);
    git(&up, &["push", "--quiet", &session.directory().join("up.git").to_string_lossy(), "main"]);
}

/// Puts an object into a folder of them.
pub fn put(folder: &Path, content: &[u8]) {
    let path = object(folder, content);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// What a server is asked, and how it answers.
#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Method, path, and the headers that were secret.
    pub asked: Vec<(String, String, Vec<String>)>,
    pub verified: Vec<String>,
    /// Where downloads are: an address before the hash; its own when empty.
    pub elsewhere: String,
    /// Downloads are sent on to there.
    pub sent_on: String,
}

/// A server over TLS.
pub struct HttpsOrigin {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for HttpsOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const SECRETS: [&str; 3] = ["authorization", "x-secret", "cookie"];

/// An authority and a certificate for 127.0.0.1 in a folder of the session's that its git may read; the authority's file.
pub fn authority(session: &mut Session) -> Option<PathBuf> {
    let folder = session.directory().join("tls");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let openssl = |arguments: &str| {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(&folder).output();
        done.is_ok_and(|done| done.status.success())
    };
    let made = openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -days 30")
        && openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=127.0.0.1")
        && openssl(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 30 -extfile names",
        );
    if !made {
        eprintln!("SKIPPED: openssl makes no certificates on this machine");
        assert!(std::env::var("CI").is_err(), "openssl is needed");
        return None;
    }
    session.spec.readable_paths.push(folder.clone());
    Some(folder.join("ca.pem"))
}

impl HttpsOrigin {
    pub async fn start(session: &Session) -> Self {
        let root = session.directory().to_owned();
        let pem = |file: &str| root.join("tls").join(file);
        let certificates = CertificateDer::pem_file_iter(pem("cert.pem")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(pem("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let served = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state, root) = (acceptor.clone(), served.clone(), root.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, state.clone(), root.clone(), address));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, state, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }
}

type Answer = Response<Full<Bytes>>;

fn say(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    root: PathBuf,
    address: SocketAddr,
) -> Result<Answer, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let path = head.uri.path().to_owned();
    let secrets =
        SECRETS.iter().filter(|name| head.headers.contains_key(**name)).map(|name| (*name).to_owned()).collect();
    state.lock().unwrap().asked.push((head.method.to_string(), path.clone(), secrets));
    if path.ends_with("/info/lfs/objects/batch") {
        return Ok(batch(&serde_json::from_slice(&body).unwrap(), &state.lock().unwrap(), address));
    }
    if let Some(oid) = path.strip_prefix("/content/") {
        let mut state = state.lock().unwrap();
        if head.method == "PUT" {
            state.objects.insert(oid.to_owned(), body.to_vec());
            return Ok(say(StatusCode::OK, ""));
        }
        if !state.sent_on.is_empty() {
            let mut on = say(StatusCode::FOUND, "");
            on.headers_mut().insert("location", format!("{}{oid}", state.sent_on).parse().unwrap());
            return Ok(on);
        }
        return Ok(match state.objects.get(oid) {
            Some(content) => say(StatusCode::OK, content.clone()),
            None => say(StatusCode::NOT_FOUND, ""),
        });
    }
    if path == "/verify" {
        let object: Value = serde_json::from_slice(&body).unwrap();
        state.lock().unwrap().verified.push(object["oid"].as_str().unwrap().to_owned());
        return Ok(say(StatusCode::OK, "{}"));
    }
    backend(&head, &body, &root).await
}

fn batch(question: &Value, state: &State, address: SocketAddr) -> Answer {
    let own = format!("https://{address}/content/");
    let header = json!({ "Authorization": "Basic c2VjcmV0", "X-Secret": "secret", "Host": "evil" });
    let objects = question["objects"].as_array().unwrap().iter().map(|object| {
        let oid = object["oid"].as_str().unwrap();
        let has = state.objects.contains_key(oid);
        let place = if state.elsewhere.is_empty() { &own } else { &state.elsewhere };
        let mut answer = json!({ "oid": oid, "size": object["size"] });
        match (question["operation"].as_str().unwrap(), has) {
            ("download", true) => {
                answer["actions"] = json!({ "download": { "href": format!("{place}{oid}"), "header": header } });
            }
            ("download", false) => answer["error"] = json!({ "code": 404, "message": "none" }),
            (_, true) => {}
            (_, false) => {
                answer["actions"] = json!({
                    "upload": { "href": format!("{own}{oid}"), "header": header },
                    "verify": { "href": format!("https://{address}/verify"), "header": header },
                });
            }
        }
        answer
    });
    let objects: Vec<_> = objects.collect();
    say(StatusCode::OK, json!({ "transfer": "basic", "objects": objects }).to_string())
}

/// git's own server of repositories in a folder.
async fn backend(head: &hyper::http::request::Parts, body: &[u8], root: &Path) -> Result<Answer, std::io::Error> {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let body = body.to_vec();
    tokio::spawn(async move { stdin.write_all(&body).await });
    let output = child.wait_with_output().await?.stdout;
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(output.len().saturating_sub(4));
    let mut answer = say(StatusCode::OK, output[end + 4..].to_vec());
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            *answer.status_mut() = value[..3].parse().unwrap();
        } else {
            answer.headers_mut().insert(hyper::header::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
    }
    Ok(answer)
}
