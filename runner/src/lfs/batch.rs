//! The batch API of Git LFS (version 2, transfer `basic`), used with the endpoint that follows from an origin's URL, and with wherever
//! that sends us for content. No file of a repository and no configuration decides where.

use std::{fs::File, io::Read, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{
    Method, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    https::{self, Body, Call, Client, headers, host_of, plain},
    pointer::Object,
    store::Store,
};

/// Objects per request.
const BATCH: usize = 100;
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.git-lfs+json");
/// Largest response that is not content, bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
const MAX_REDIRECTS: usize = 5;
/// Slowest rate of content, bytes per second.
const PACE: u64 = 10_000;

/// An endpoint over `https://`.
pub(super) struct Endpoint {
    client: Client,
    url: Url,
    /// The branch that is pushed to: some servers grant rights by it.
    reference: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    transfer: Option<String>,
    hash_algo: Option<String>,
    objects: Vec<Answered>,
}

#[derive(Deserialize)]
pub(super) struct Answered {
    oid: String,
    #[serde(default)]
    actions: Actions,
    error: Option<Fault>,
}

#[derive(Default, Deserialize)]
struct Actions {
    download: Option<Action>,
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Map<String, Value>,
}

#[derive(Deserialize)]
struct Fault {
    code: i64,
    #[serde(default)]
    message: String,
}

/// The outcome for one object.
pub(super) type ObjectResult = (Object, Result<bool, String>);

impl Endpoint {
    /// As Git LFS documents it: `info/lfs` is appended to the URL, which ends with `.git`.
    ///
    /// # Errors
    /// In words.
    pub(super) fn of_origin(origin: &str, reference: Option<String>) -> Result<Self, String> {
        let trimmed = origin.trim_end_matches('/');
        let dot_git = if trimmed.ends_with(".git") { "" } else { ".git" };
        let url = Url::parse(&format!("{trimmed}{dot_git}/info/lfs/objects/batch")).map_err(|e| e.to_string())?;
        host_of(&url)?;
        Ok(Self { client: Client::new()?, url, reference })
    }

    /// Downloads what the store does not have.
    ///
    /// # Errors
    /// In words, if no more can come.
    pub(super) async fn fetch(&self, objects: &[Object], store: &Store) -> Result<Vec<ObjectResult>, String> {
        let mut outcomes = Vec::new();
        for some in objects.chunks(BATCH) {
            let mut answers = self.ask("download", some).await?;
            for object in some {
                let fetched = match take(&mut answers, object) {
                    Ok(Actions { download: Some(action), .. }) => self.download(&action, object, store).await,
                    Ok(_) => Err("the origin gives no URL to fetch it from".to_owned()),
                    Err(why) => Err(why),
                };
                outcomes.push((object.clone(), fetched.map(|()| true)));
            }
        }
        Ok(outcomes)
    }

    /// Which of them the origin wants: those it does not have.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn lacks(&self, objects: &[Object]) -> Result<Vec<ObjectResult>, String> {
        let mut outcomes = Vec::new();
        for some in objects.chunks(BATCH) {
            let mut answers = self.ask("upload", some).await?;
            let of =
                |object: &Object| (object.clone(), take(&mut answers, object).map(|actions| actions.upload.is_some()));
            outcomes.extend(some.iter().map(of));
        }
        Ok(outcomes)
    }

    /// Uploads what the origin wants.
    ///
    /// # Errors
    /// In words, if no more can go.
    pub(super) async fn send(&self, objects: &[Object], store: &Store) -> Result<Vec<ObjectResult>, String> {
        let mut outcomes = Vec::new();
        for some in objects.chunks(BATCH) {
            let mut answers = self.ask("upload", some).await?;
            for object in some {
                let sent = match take(&mut answers, object) {
                    Ok(actions) => self.upload(actions, object, store).await,
                    Err(why) => Err(why),
                };
                outcomes.push((object.clone(), sent));
            }
        }
        Ok(outcomes)
    }

    async fn ask(&self, operation: &str, objects: &[Object]) -> Result<Vec<Answered>, String> {
        let mut question =
            json!({ "operation": operation, "transfers": ["basic"], "objects": objects, "hash_algo": "sha256" });
        if let Some(reference) = &self.reference {
            question["ref"] = json!({ "name": reference });
        }
        let mut url = self.url.clone();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.client.send(post(&url, HeaderMap::new(), &question)).await?;
            match answer.status() {
                StatusCode::OK => return read(answer).await,
                // The batch request is redirected only within the same host: it is the one that was named.
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                    let next = location(&url, &answer)?;
                    if next.origin() != self.url.origin() {
                        return Err("the origin redirects to another host, which is not allowed".to_owned());
                    }
                    url = next;
                }
                status => return Err(format!("the origin answers {}", refusal(status, answer).await)),
            }
        }
        Err("the origin redirects endlessly".to_owned())
    }

    /// From wherever the origin says. A host other than the first gets none of the headers that were meant for that one.
    async fn download(&self, action: &Action, object: &Object, store: &Store) -> Result<(), String> {
        let mut url = Url::parse(&action.href).map_err(|_| "the origin gives an invalid URL")?;
        let mut wanted = headers(&action.header)?;
        let patience = Duration::from_secs(1);
        for _ in 0..MAX_REDIRECTS {
            let (method, body) = (Method::GET, Empty::new().map_err(|never| match never {}).boxed());
            let call = Call { method, url: url.clone(), headers: wanted.clone(), body, patience };
            let answer = self.client.send(call).await?;
            match answer.status() {
                StatusCode::OK => return receive(answer.into_body(), object, store).await,
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let next = location(&url, &answer)?;
                    if next.origin() != url.origin() {
                        wanted = HeaderMap::new();
                    }
                    url = next;
                }
                status => return Err(format!("{} answers {}", host_of(&url)?, refusal(status, answer).await)),
            }
        }
        Err("it is redirected endlessly".to_owned())
    }

    /// True if it was sent, false if the origin has it.
    async fn upload(&self, actions: Actions, object: &Object, store: &Store) -> Result<bool, String> {
        let Some(action) = actions.upload else { return Ok(false) };
        let file = store.find(object).map_err(|e| e.to_string())?.ok_or("it is not there")?;
        let url = Url::parse(&action.href).map_err(|_| "the origin gives an invalid URL")?;
        let mut wanted = headers(&action.header)?;
        wanted.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
        wanted.insert(header::CONTENT_LENGTH, object.size.into());
        let patience = Duration::from_secs(object.size / PACE);
        let call = Call { method: Method::PUT, url, headers: wanted, body: content(file, object.size), patience };
        self.succeed(call).await?;
        if let Some(verify) = actions.verify {
            let url = Url::parse(&verify.href).map_err(|_| "the origin gives an invalid URL")?;
            self.succeed(post(&url, headers(&verify.header)?, &json!(object))).await?;
        }
        Ok(true)
    }

    async fn succeed(&self, call: Call) -> Result<(), String> {
        let host = host_of(&call.url)?;
        let answer = self.client.send(call).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("{host} answers {}", refusal(status, answer).await))
    }
}

fn post(url: &Url, mut headers: HeaderMap, body: &Value) -> Call {
    headers.insert(header::ACCEPT, MEDIA_TYPE);
    headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed();
    Call { method: Method::POST, url: url.clone(), headers, body, patience: Duration::from_secs(1) }
}

/// A file's content, read piece by piece.
fn content(file: File, size: u64) -> Body {
    let pieces = futures::stream::unfold(file.take(size), |mut file| async move {
        let mut piece = vec![0; 64 * 1024];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Frame::data(Bytes::from(piece))), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    BodyExt::boxed(StreamBody::new(pieces))
}

async fn receive(mut body: Incoming, object: &Object, store: &Store) -> Result<(), String> {
    let mut incoming = store.begin(object).map_err(|e| e.to_string())?;
    let begin = tokio::time::Instant::now();
    let patience = Duration::from_secs(120 + object.size / PACE);
    while let Some(piece) = https::next(&mut body).await? {
        incoming.write(&piece).map_err(|e| e.to_string())?;
        if begin.elapsed() > patience {
            return Err("it arrives too slowly".to_owned());
        }
    }
    incoming.keep().map_err(|e| e.to_string())
}

async fn read(answer: Response<Incoming>) -> Result<Vec<Answered>, String> {
    let bytes = https::whole(answer.into_body(), MAX_ANSWER).await?;
    let answer: Answer =
        serde_json::from_slice(&bytes).map_err(|e| format!("the origin does not answer as a Git LFS server: {e}"))?;
    if answer.transfer.is_some_and(|transfer| transfer != "basic") {
        return Err("the origin chose a transfer method that was not offered".to_owned());
    }
    if answer.hash_algo.is_some_and(|hash| hash != "sha256") {
        return Err("the origin chose a hash that was not offered".to_owned());
    }
    Ok(answer.objects)
}

/// The response about an object.
fn take(answers: &mut Vec<Answered>, object: &Object) -> Result<Actions, String> {
    let at = answers.iter().position(|answer| answer.oid == object.oid);
    let answer = answers.swap_remove(at.ok_or("the origin says nothing of it")?);
    match answer.error {
        Some(Fault { code: 404, .. }) => Err("the origin does not have it".to_owned()),
        Some(Fault { code, message }) => Err(format!("the origin refuses it: {code} {}", plain(&message))),
        None => Ok(answer.actions),
    }
}

fn location(from: &Url, answer: &Response<Incoming>) -> Result<Url, String> {
    let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
    let to = to.and_then(|to| from.join(to).ok()).ok_or("it is redirected to nowhere")?;
    host_of(&to).map(|_| to)
}

/// A failing status, and the message with it.
async fn refusal(status: StatusCode, answer: Response<Incoming>) -> String {
    let said = https::whole(answer.into_body(), 64 * 1024).await.ok();
    let said = said.and_then(|said| serde_json::from_slice::<Value>(&said).ok());
    let said = said.and_then(|said| Some(plain(said.get("message")?.as_str()?)));
    said.map_or_else(|| status.as_u16().to_string(), |said| format!("{}: {said}", status.as_u16()))
}
