//! One call: from its path to the RPC, and back with the response.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tonic::{
    Status,
    body::Body,
    codec::CompressionEncoding,
    codegen::{
        Service,
        http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header},
    },
};

use super::{connections::HasCalled, framing};
use crate::{
    engine::Engine,
    service::{self, Call},
};

/// Longest time for a request to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Smaller responses are not worth compressing.
const COMPRESS_FROM: usize = 16 * 1024;

/// Answers every path.
#[derive(Clone)]
pub(super) struct GrpcService {
    pub(super) engine: Engine,
    pub(super) calls: Arc<Semaphore>,
}

impl Service<Request<Body>> for GrpcService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        HasCalled::note(request.extensions());
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    request.method() == Method::POST
        && kind.starts_with("application/grpc")
        && !kind.starts_with("application/grpc-web")
}

/// How the request is compressed.
fn encoding(headers: &HeaderMap) -> Result<Option<CompressionEncoding>, Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(CompressionEncoding::Gzip)),
        Some(other) => {
            let name = String::from_utf8_lossy(other).into_owned();
            let mut status = Status::unimplemented(format!("grpc-encoding {name:?} is not supported"));
            status.metadata_mut().insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static("gzip"));
            Err(status)
        }
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get("grpc-accept-encoding").and_then(|v| v.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|name| name.trim() == "gzip")
}

impl GrpcService {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        if !is_grpc(&request) {
            let mut refused = Response::new(Body::default());
            *refused.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return refused;
        }
        let gzip = accepts_gzip(request.headers());
        match self.call(request).await {
            Ok(answer) => {
                let reply = (gzip && answer.len() >= COMPRESS_FROM).then_some(CompressionEncoding::Gzip);
                let mut response = Response::new(framing::write(answer, reply));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                if reply.is_some() {
                    headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
                }
                response
            }
            Err(status) => status.into_http(),
        }
    }

    async fn call(self, request: Request<Body>) -> Result<service::Answer, Status> {
        let path = request.uri().path().trim_start_matches('/');
        let (service, rpc) = path.split_once('/').unwrap_or((path, ""));
        let (service, rpc) = (service.to_owned(), rpc.to_owned());
        let encoding = encoding(request.headers())?;
        let Ok(_call) = self.calls.try_acquire() else {
            return Err(Status::resource_exhausted("this server has too many calls in progress, try again"));
        };
        let read = tokio::time::timeout(READ_TIMEOUT, framing::read(request.into_body(), encoding)).await;
        let request = read.map_err(|_| Status::deadline_exceeded("the request did not arrive in time"))??;
        service::answer(self.engine.clone(), Call { service, rpc, request }).await
    }
}
