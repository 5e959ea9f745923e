//! HTTP to an S3-compatible store, with the same TLS as everything else here.

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector as Connector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use tokio::time::timeout;

const CONNECT: Duration = Duration::from_secs(5);
/// Timeout for the head of a response; uploads are sent meanwhile.
const ANSWER: Duration = Duration::from_secs(60);
/// Timeout for each piece of a response.
const PIECE: Duration = Duration::from_secs(30);

/// Makes clients.
#[derive(Debug)]
pub(crate) struct Transport;

#[derive(Debug)]
struct Service(Client<HttpsConnector<HttpConnector>, HttpRequestBody>);

impl Connector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let generic = |source| object_store::Error::Generic { store: "S3", source };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| generic(error.into()))?;
        let https = https.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(https);
        Ok(HttpClient::new(Service(client)))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let late = |_| HttpError::new(HttpErrorKind::Timeout, std::io::Error::from(std::io::ErrorKind::TimedOut));
        let response = timeout(ANSWER, self.0.request(request)).await.map_err(late)?;
        let response = response.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new_boxed(kind, innermost(error))
        })?;
        let (head, body) = response.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(Patient::new(body))))
    }
}

/// The innermost cause says what is wrong.
fn innermost(error: impl Error + Send + Sync + 'static) -> Box<dyn Error + Send + Sync> {
    let mut cause: &dyn Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().into()
}

/// A body each piece of which must come in time.
struct Patient<B> {
    body: B,
    wait: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl<B> Patient<B> {
    fn new(body: B) -> Self {
        Self { body, wait: Box::pin(tokio::time::sleep(PIECE)) }
    }
}

impl<B: hyper::body::Body<Error = HttpError> + Unpin> hyper::body::Body for Patient<B> {
    type Data = B::Data;
    type Error = HttpError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        use std::task::Poll;
        let this = &mut *self;
        match std::pin::Pin::new(&mut this.body).poll_frame(context) {
            Poll::Pending => match this.wait.as_mut().poll(context) {
                Poll::Ready(()) => {
                    let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                    Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, late))))
                }
                Poll::Pending => Poll::Pending,
            },
            ready => {
                this.wait.as_mut().reset(tokio::time::Instant::now() + PIECE);
                ready
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
