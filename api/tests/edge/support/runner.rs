//! The part of a runner that the edge talks to, on a real socket: its routes answer as in the contract.

use std::path::PathBuf;

use ambient_runner_protocol::RunnerError;
use ambient_wire::{
    content::{FileMove, FileStatus, Listing},
    git::GitStatus,
    git_history::{GitLog, GitLogQuery},
    git_merge::GitPull,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;

pub const FILE: &str = "0123456789";

/// Listens in `directory`, takes only `token`.
pub fn listen(directory: &std::path::Path, token: String) -> PathBuf {
    let socket = directory.join("runner.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let router = Router::new()
        .route("/content", get(list))
        .route("/content/{*path}", get(file).put(write).delete(remove))
        .route("/content-status", get(file_status))
        .route("/content-move", post(relocate))
        .route("/git/status", get(status))
        .route("/git/log", get(log))
        .route("/git/pull", post(pull))
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

fn status_of(path: String, sha256: Option<String>) -> FileStatus {
    let modified = chrono::DateTime::UNIX_EPOCH;
    FileStatus { path, kind: "file".to_owned(), size: 10, mode: "0644".to_owned(), modified, sha256 }
}

/// Says in the sum what it was sent.
async fn write(Path(path): Path<String>, request: Request) -> Response {
    let (query, headers) = (request.uri().query().unwrap_or_default().to_owned(), request.headers().clone());
    let Ok(bytes) = axum::body::to_bytes(request.into_body(), usize::MAX).await else {
        return refused(StatusCode::BAD_REQUEST, "bad_input", Some("body"));
    };
    if headers.contains_key("if-match") {
        return refused(StatusCode::PRECONDITION_FAILED, "stale", None);
    }
    let status = if path.starts_with("new/") { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(status_of(path, Some(format!("{query} {}", bytes.len()))))).into_response()
}

#[derive(Deserialize)]
struct Removal {
    recursive: bool,
}

async fn remove(Path(path): Path<String>, Query(Removal { recursive }): Query<Removal>) -> Response {
    match path.as_str() {
        "dir" if !recursive => refused(StatusCode::BAD_REQUEST, "bad_input", Some("recursive")),
        "dir" | "a.txt" => StatusCode::NO_CONTENT.into_response(),
        _ => refused(StatusCode::NOT_FOUND, "not_found", None),
    }
}

#[derive(Deserialize)]
struct About {
    path: String,
    sha256: bool,
}

async fn file_status(Query(About { path, sha256 }): Query<About>) -> Json<FileStatus> {
    Json(status_of(path, sha256.then(|| "abc".to_owned())))
}

async fn relocate(Json(request): Json<FileMove>) -> Response {
    match request.to.as_str() {
        "taken" if !request.overwrite => refused(StatusCode::CONFLICT, "conflict", None),
        _ => Json(status_of(request.to, None)).into_response(),
    }
}

/// Says in the cursor what it was asked.
async fn log(Query(query): Query<GitLogQuery>) -> Json<GitLog> {
    let next = serde_json::to_string(&query).ok();
    Json(GitLog { repo: query.repo.unwrap(), items: Vec::new(), next })
}

async fn pull(Json(request): Json<GitPull>) -> Response {
    assert_eq!(request.repo, "demo");
    refused(StatusCode::CONFLICT, "conflict", None)
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
