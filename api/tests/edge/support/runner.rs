//! The part of a runner that the edge talks to, on a real socket: its routes answer as in the contract.

use std::path::PathBuf;

use ambient_runner_protocol::RunnerError;
use ambient_wire::{content::Listing, git::GitStatus};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

pub const FILE: &str = "0123456789";

/// Listens in `directory`, takes only `token`.
pub fn listen(directory: &std::path::Path, token: String) -> PathBuf {
    let socket = directory.join("runner.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let router = Router::new()
        .route("/content", get(list))
        .route("/content/{*path}", get(file))
        .route("/git/status", get(status))
        .layer(middleware::from_fn_with_state(token, only));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    socket
}

async fn only(State(token): State<String>, request: Request, next: Next) -> Response {
    let shown = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    if shown != Some(format!("Bearer {token}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    next.run(request).await
}

fn refused(status: StatusCode, code: &str, field: Option<&str>) -> Response {
    let error = RunnerError { code: code.to_owned(), reason: format!("{code}!"), field: field.map(str::to_owned) };
    (status, Json(error)).into_response()
}

#[derive(Deserialize)]
struct Directory {
    path: String,
}

async fn list(Query(Directory { path }): Query<Directory>) -> Response {
    if path.starts_with('/') || path.contains("..") {
        return refused(StatusCode::BAD_REQUEST, "bad_input", Some("path"));
    }
    Json(Listing { path, entries: Vec::new(), truncated: false }).into_response()
}

async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match (path.as_str(), headers.get("range").map(|range| range.to_str().unwrap())) {
        ("dir/a b.txt", None) => ([("x-content-sha256", "abc")], FILE).into_response(),
        ("dir/a b.txt", Some("bytes=2-4")) => {
            let part = Body::from(&FILE[2..=4]);
            (StatusCode::PARTIAL_CONTENT, [("content-range", "bytes 2-4/10")], part).into_response()
        }
        ("dir/a b.txt", Some(_)) => refused(StatusCode::RANGE_NOT_SATISFIABLE, "bad_input", Some("Range")),
        ("link", _) => refused(StatusCode::BAD_REQUEST, "bad_input", Some("path")),
        _ => refused(StatusCode::NOT_FOUND, "not_found", None),
    }
}

#[derive(Deserialize)]
struct Repo {
    repo: String,
}

async fn status(Query(Repo { repo }): Query<Repo>) -> Json<GitStatus> {
    Json(GitStatus {
        repo,
        branch: Some("main".to_owned()),
        head: None,
        ahead: 0,
        files: Vec::new(),
        truncated: false,
        left_out: Vec::new(),
    })
}
