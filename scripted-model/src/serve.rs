//! The listener and its routes.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    conversation::Conversation,
    dialect::Dialect,
    play,
    scenario::{self, Script},
    seen::{Calls, Open},
};

/// Largest request, bytes.
const MAX_REQUEST: usize = 64 << 20;
/// Where keys are looked for.
const KEY_HEADERS: [&str; 3] = ["authorization", "x-api-key", "x-goog-api-key"];

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// Serves forever.
pub(crate) async fn serve(listener: TcpListener, calls: Arc<Calls>, key: Option<String>) {
    let key: Option<Arc<str>> = key.map(Into::into);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, calls.clone(), key.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, calls: Arc<Calls>, key: Option<Arc<str>>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (calls, key) = (calls.clone(), key.clone());
        async move { Ok::<_, Infallible>(answer(request, &calls, key.as_deref()).await) }
    });
    // How it ends is seen call by call.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, calls: &Arc<Calls>, key: Option<&str>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path == "/seen" {
        return object(StatusCode::OK, &json!(calls.all()));
    }
    let whole_path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let call = calls.begin(request.method().as_str(), &whole_path, plain(request.headers()));
    if let Some(key) = key
        && !carries(request.headers(), key)
    {
        let refusal = Dialect::of(&path).unwrap_or(Dialect::Chat).refusal(401);
        call.done();
        return object(StatusCode::UNAUTHORIZED, &refusal);
    }
    if request.method() != Method::POST {
        return listing(request.method(), &path, call);
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_REQUEST).collect().await else {
        call.done();
        return object(StatusCode::BAD_REQUEST, &json!({ "error": { "message": "the body cannot be read" } }));
    };
    let body = body.to_bytes();
    call.body(&body);
    match (Dialect::of(&path), serde_json::from_slice(&body)) {
        (Some(dialect), Ok(body)) => play(dialect, dialect.read(&whole_path, &body), call).await,
        (Some(_), Err(error)) => {
            call.done();
            object(StatusCode::BAD_REQUEST, &json!({ "error": { "message": error.to_string() } }))
        }
        (None, _) => counting(&path, call),
    }
}

/// Answers a call by its script.
async fn play(dialect: Dialect, asked: Conversation, call: Open) -> Response<Body> {
    call.plays(asked.scenario(), asked.step);
    match scenario::script(&asked) {
        Script::Nothing => {
            let _open = call;
            std::future::pending().await
        }
        Script::Refusal(status) => {
            call.done();
            let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            object(code, &dialect.refusal(status))
        }
        Script::Parts(parts) if asked.stream => events(play::streamed(dialect, asked, parts, call)),
        Script::Parts(parts) => match play::whole(dialect, &asked, parts, call).await {
            Some(whole) => object(StatusCode::OK, &whole),
            None => broken(),
        },
    }
}

/// What is asked without a model.
fn listing(method: &Method, path: &str, call: Open) -> Response<Body> {
    call.done();
    if path.ends_with("/models") {
        let model = json!({ "id": "scripted", "object": "model", "type": "model", "created": 1, "owned_by": "tests" });
        let gemini = json!({ "name": "models/scripted", "supportedGenerationMethods": ["generateContent"] });
        return object(StatusCode::OK, &json!({ "object": "list", "data": [model], "models": [gemini] }));
    }
    if method == Method::HEAD {
        return Response::new(full(Bytes::new()));
    }
    object(StatusCode::NOT_FOUND, &json!({ "error": { "message": format!("no {path}") } }))
}

/// Counting tokens beforehand.
fn counting(path: &str, call: Open) -> Response<Body> {
    call.done();
    if path.ends_with("/count_tokens") {
        return object(StatusCode::OK, &json!({ "input_tokens": 10 }));
    }
    if path.ends_with(":countTokens") {
        return object(StatusCode::OK, &json!({ "totalTokens": 10 }));
    }
    object(StatusCode::NOT_FOUND, &json!({ "error": { "message": format!("no {path}") } }))
}

fn plain(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn carries(headers: &HeaderMap, key: &str) -> bool {
    let values = KEY_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    values.map(|value| value.strip_prefix("Bearer ").unwrap_or(value)).any(|value| value == key)
}

fn object(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string().into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn events(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// A head, and then the connection ends.
fn broken() -> Response<Body> {
    let error = futures::stream::iter([Err(std::io::Error::other("as the script has it"))]);
    Response::new(BodyExt::boxed(http_body_util::StreamBody::new(error)))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
