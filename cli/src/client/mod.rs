//! HTTP to the server.
//!
//! Whatever can safely be retried is retried when the connection fails or the server is busy: reads, deletions, and every
//! POST, because each carries an `Idempotency-Key` that stays the same across attempts. Redirects are not followed and
//! proxies from the environment are not used: the token goes to the server that was named, and nowhere else.

pub(crate) mod answer;
pub(crate) mod retry;
pub(crate) mod route;

use std::{sync::Arc, time::Duration};

use reqwest::{
    Method, Request, Response, StatusCode,
    header::HeaderMap,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH, RETRY_AFTER},
    redirect,
};
use serde::Serialize;
use tokio::time::sleep;
use url::Url;
use uuid::Uuid;

use self::{answer::Answer, retry::Backoff, route::Route};
use crate::{
    config::{ConfigError, Target},
    error::CliError,
    output::{Console, duration},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence while the server responds: a pull and a push, one after the other.
const READ_TIMEOUT: Duration = Duration::from_secs(600);
/// Timeout for a simple request that causes no work.
const GET_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout for work in a workspace: a diff, for which the runner takes at most 50 s.
const LOOK_TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout for most commands.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout for a push, for which a runner takes 300 s plus a look at the workspace.
const PUSH_TIMEOUT: Duration = Duration::from_secs(360);
/// How long a command tries to reach its server: enough for a restart, short enough for a person.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to keep retrying when the server is busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);

/// Variable with a W3C trace context, as other tools set it.
const TRACE_PARENT: &str = "TRACEPARENT";

/// A client of one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
    /// The trace that this command is part of, as the environment says.
    trace_parent: Option<HeaderValue>,
    patience: Duration,
    console: Arc<Console>,
}

impl Client {
    pub(crate) fn new(target: &Target, console: Arc<Console>) -> Result<Self, CliError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("ambient/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| CliError::Protocol(innermost(&error)))?;
        let authorization = target.token.as_deref().map(bearer).transpose()?;
        let trace_parent = std::env::var(TRACE_PARENT).ok().and_then(|value| HeaderValue::try_from(value).ok());
        Ok(Self { http, base: target.url.clone(), authorization, trace_parent, patience: PATIENCE, console })
    }

    /// The same client, but waiting longer for a server that is down: for commands that survive a restart.
    pub(crate) fn with_patience(&self, patience: Duration) -> Self {
        Self { patience: patience.max(self.patience), ..self.clone() }
    }

    /// Address of a live channel, and the authorization for it.
    pub(crate) fn channel(&self, route: &Route) -> Result<(Url, Option<HeaderValue>), CliError> {
        let mut url = route.url(&self.base)?;
        // A target's URL starts with "http", and "ws" may take its place.
        let _ = url.set_scheme("ws");
        Ok((url, self.authorization.clone()))
    }

    /// The server, for messages.
    pub(crate) fn server(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    pub(crate) fn console(&self) -> &Arc<Console> {
        &self.console
    }

    pub(crate) async fn get(&self, route: &Route) -> Result<Answer, CliError> {
        let request = self.question(route, GET_TIMEOUT)?;
        self.repeat(&request, route, Answer::read).await
    }

    /// A GET that causes work in a workspace.
    pub(crate) async fn get_patiently(&self, route: &Route) -> Result<Answer, CliError> {
        let request = self.question(route, LOOK_TIMEOUT)?;
        self.repeat(&request, route, Answer::read).await
    }

    /// A body that need not be text.
    pub(crate) async fn get_bytes(&self, route: &Route) -> Result<(HeaderMap, Vec<u8>), CliError> {
        let request = self.question(route, LOOK_TIMEOUT)?;
        let read = |mut response: Response| async move {
            let head = std::mem::take(response.headers_mut());
            Ok((head, answer::body(response).await?))
        };
        self.repeat(&request, route, read).await
    }

    /// A POST with its own idempotency key.
    pub(crate) async fn post(&self, route: &Route, body: &impl Serialize) -> Result<Answer, CliError> {
        self.exchange(Method::POST, route, Some(body), COMMAND_TIMEOUT).await
    }

    /// A POST that the server may take a long time for.
    pub(crate) async fn post_patiently(&self, route: &Route, body: &impl Serialize) -> Result<Answer, CliError> {
        self.exchange(Method::POST, route, Some(body), PUSH_TIMEOUT).await
    }

    /// A POST that the server may take the longest time for.
    pub(crate) async fn post_most_patiently(&self, route: &Route, body: &impl Serialize) -> Result<Answer, CliError> {
        self.exchange(Method::POST, route, Some(body), READ_TIMEOUT).await
    }

    /// A merge patch, which may be sent twice.
    pub(crate) async fn patch(&self, route: &Route, body: &impl Serialize) -> Result<Answer, CliError> {
        self.exchange(Method::PATCH, route, Some(body), COMMAND_TIMEOUT).await
    }

    /// A merge patch of this version. Sent twice, because an answer was lost, it may be refused as stale.
    pub(crate) async fn patch_version(
        &self,
        route: &Route,
        body: &impl Serialize,
        version: i64,
    ) -> Result<Answer, CliError> {
        let mut request = self.request(&Method::PATCH, route, Some(body))?;
        *request.timeout_mut() = Some(COMMAND_TIMEOUT);
        if let Ok(version) = HeaderValue::from_str(&format!("\"{version}\"")) {
            request.headers_mut().insert(IF_MATCH, version);
        }
        self.repeat(&request, route, Answer::read).await
    }

    /// A POST without a body.
    pub(crate) async fn post_nothing(&self, route: &Route) -> Result<Answer, CliError> {
        self.exchange(Method::POST, route, None::<&()>, COMMAND_TIMEOUT).await
    }

    /// A PUT of bytes, which may be sent twice.
    pub(crate) async fn put_bytes(
        &self,
        route: &Route,
        headers: HeaderMap,
        bytes: Vec<u8>,
    ) -> Result<Answer, CliError> {
        let mut request = self.request(&Method::PUT, route, None::<&()>)?;
        request.headers_mut().extend(headers);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        *request.body_mut() = Some(bytes.into());
        *request.timeout_mut() = Some(PUSH_TIMEOUT);
        self.repeat(&request, route, Answer::read).await
    }

    /// A deletion; if an earlier attempt may have done it, "not found" counts as success.
    pub(crate) async fn delete(&self, route: &Route) -> Result<(), CliError> {
        self.exchange(Method::DELETE, route, None::<&()>, COMMAND_TIMEOUT).await.map(drop)
    }

    /// A body to be read as it arrives; retried only until it starts.
    pub(crate) async fn stream(&self, route: &Route) -> Result<Response, CliError> {
        let request = self.request(&Method::GET, route, None::<&()>)?;
        self.repeat(&request, route, |response| async { Ok(response) }).await
    }

    fn question(&self, route: &Route, limit: Duration) -> Result<Request, CliError> {
        let mut request = self.request(&Method::GET, route, None::<&()>)?;
        *request.timeout_mut() = Some(limit);
        Ok(request)
    }

    async fn exchange(
        &self,
        method: Method,
        route: &Route,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<Answer, CliError> {
        let mut request = self.request(&method, route, body)?;
        *request.timeout_mut() = Some(limit);
        self.repeat(&request, route, Answer::read).await
    }

    fn request(&self, method: &Method, route: &Route, body: Option<&impl Serialize>) -> Result<Request, CliError> {
        let mut builder =
            self.http.request(method.clone(), route.url(&self.base)?).header(ACCEPT, "application/json, */*");
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(trace_parent) = &self.trace_parent {
            builder = builder.header("traceparent", trace_parent.clone());
        }
        if *method == Method::POST {
            builder = builder.header("Idempotency-Key", Uuid::new_v4().to_string());
        }
        if let Some(body) = body {
            let json = serde_json::to_vec(body).map_err(|error| CliError::Protocol(error.to_string()))?;
            builder = builder.header(CONTENT_TYPE, "application/json").body(json);
        }
        builder.build().map_err(|error| CliError::Protocol(innermost(&error)))
    }

    /// Sends until there is a definite response, and reads it in full with `read`.
    async fn repeat<T, F>(&self, request: &Request, route: &Route, read: impl Fn(Response) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<T, CliError>>,
    {
        let mut lost = Backoff::new(self.patience);
        let mut busy = Backoff::new(self.patience.max(BUSY_PATIENCE));
        let mut sent = false;
        loop {
            let again =
                request.try_clone().ok_or_else(|| CliError::Protocol("a body that cannot be sent twice".to_owned()))?;
            match self.http.execute(again).await {
                Ok(response) if is_busy(response.status()) => {
                    let wish = retry_after(&response);
                    let refusal = answer::refusal(response).await;
                    let Some(delay) = busy.failed(wish) else { return Err(refusal) };
                    self.say_busy(&refusal, delay);
                    sleep(delay).await;
                }
                Ok(response) if response.status().is_success() && answer::is_page(response.headers()) => {
                    let status = response.status().as_u16();
                    return Err(answer::foreign(status, &answer::body(response).await.unwrap_or_default()));
                }
                Ok(response) if response.status().is_success() => match read(response).await {
                    Err(CliError::Unreachable { cause, .. }) => {
                        sent = true;
                        self.wait(&mut lost, request, route, sent, cause).await?;
                    }
                    other => return other,
                },
                Ok(response)
                    if sent && request.method() == Method::DELETE && response.status() == StatusCode::NOT_FOUND =>
                {
                    // An earlier attempt deleted it, but its response was lost.
                    return read(response).await;
                }
                Ok(response) => return Err(answer::refusal(response).await),
                Err(error) => {
                    sent |= !error.is_connect();
                    self.wait(&mut lost, request, route, sent, innermost(&error)).await?;
                }
            }
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn wait(
        &self,
        lost: &mut Backoff,
        request: &Request,
        route: &Route,
        sent: bool,
        cause: String,
    ) -> Result<(), CliError> {
        let first = lost.is_first();
        let Some(delay) = lost.failed(None) else {
            let sent = sent && request.method() != Method::GET;
            return Err(CliError::Unreachable { url: self.server(), cause, sent });
        };
        if first {
            let patience = duration::span(chrono::TimeDelta::from_std(lost.patience()).unwrap_or_default());
            let what = format!("{} {}", request.method(), route.shown());
            self.console.note(&format!("{what}: {cause}; trying again for up to {patience} …"));
        }
        sleep(delay).await;
        Ok(())
    }

    fn say_busy(&self, refusal: &CliError, delay: Duration) {
        let reason = refusal.to_string();
        let delay = delay.as_secs_f64();
        self.console.note(&format!("server is busy ({reason}); trying again in {delay:.1} s …"));
    }
}

fn bearer(token: &str) -> Result<HeaderValue, CliError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
        let problem = "contains characters that cannot be sent".to_owned();
        CliError::Config(ConfigError::Setting { setting: "token".to_owned(), problem })
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

/// Seconds from `Retry-After`; the API does not use its date form.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The cause beneath the layers, each of which only says that the one below failed.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no response in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
