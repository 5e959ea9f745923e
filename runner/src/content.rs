//! The workspace, read-only: listings and files.
//!
//! Every path is opened relative to a handle of the workspace, beneath it and following no links (`openat2`), so that what the
//! agent does to the tree in the meantime cannot lead outside.

use std::{
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use ambient_wire::content::{Entry, Listing};
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::{
    app::SharedApp,
    beneath,
    error::{Error, Result},
};

const MAX_ENTRIES: usize = 10_000;
const MAX_PATH: usize = 4096;
/// Largest file whose hash is reported.
const MAX_HASHED: u64 = 64 * 1024 * 1024;

/// `GET /content?path=`.
///
/// # Errors
/// Bad input; not found.
pub(crate) async fn list(app: SharedApp, path: String) -> Result<Listing> {
    blocking(move || list_blocking(&app.attempt.paths.workspace(), path)).await
}

fn list_blocking(workspace: &Path, path: String) -> Result<Listing> {
    let directory = open(workspace, &path, OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    // This very handle: `read_from` would look up `.`, which a directory that may only be listed does not allow.
    let handle = directory.try_clone().map_err(|e| stream_failure(&path, &e))?;
    let mut dir = Dir::new(handle).map_err(|e| failure(&path, e))?;
    while let Some(entry) = dir.read() {
        let entry = entry.map_err(|e| failure(&path, e))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
        if names.len() > MAX_ENTRIES {
            break;
        }
    }
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    let truncated = names.len() > MAX_ENTRIES;
    names.truncate(MAX_ENTRIES);
    let entries = names.into_iter().filter_map(|(name, listed)| {
        let looked = rustix::fs::statat(&directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
        let (kind, size, modified) = match looked {
            Ok(stat) => (FileType::from_raw_mode(stat.st_mode), stat.st_size, stat.st_mtime),
            // It has disappeared in the meantime.
            Err(Errno::NOENT) => return None,
            // A directory that may be listed but not entered.
            Err(_) => (listed, 0, 0),
        };
        let kind = match kind {
            FileType::RegularFile => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            _ => "other",
        };
        let modified = DateTime::<Utc>::from_timestamp(modified, 0).unwrap_or_default();
        let size = u64::try_from(size).unwrap_or(0);
        Some(Entry { name: name.to_string_lossy().into_owned(), kind: kind.to_owned(), size, modified })
    });
    let entries = entries.collect();
    Ok(Listing { path, entries, truncated })
}

/// `GET /content/{*path}`.
///
/// # Errors
/// Bad input; not found; a range outside the file.
pub(crate) async fn read(app: SharedApp, path: String, headers: &HeaderMap) -> Result<Response> {
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap_or_default().to_owned());
    let (file, size, hash) = blocking(move || read_blocking(&app.attempt.paths.workspace(), &path)).await?;
    let (from, length, status) = match range.as_deref().map(|text| parse_range(text, size)).transpose()?.flatten() {
        Some((from, to)) => (from, to - from + 1, StatusCode::PARTIAL_CONTENT),
        None => (0, size, StatusCode::OK),
    };
    let mut file = tokio::fs::File::from_std(file);
    file.seek(std::io::SeekFrom::Start(from)).await.map_err(|e| Error::io("cannot read", &e))?;
    let mut response = (status, Body::from_stream(ReaderStream::new(file.take(length)))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, header::HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = format!("bytes {from}-{}/{size}", from + length - 1).parse()
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    if let Some(Ok(value)) = hash.map(|hash| hash.parse()) {
        headers.insert("x-content-sha256", value);
    }
    Ok(response)
}

fn read_blocking(workspace: &Path, path: &str) -> Result<(File, u64, Option<String>)> {
    let mut file = open(workspace, path, OFlags::empty())?;
    let about = file.metadata().map_err(|e| stream_failure(path, &e))?;
    if about.is_dir() {
        return Err(Error::bad("path", "is a directory: list it with GET /content?path="));
    }
    if !about.is_file() {
        return Err(Error::bad("path", "is not a regular file"));
    }
    let hash = (about.size() <= MAX_HASHED).then(|| hash(&mut file)).transpose();
    let hash = hash.map_err(|e| stream_failure(path, &e))?;
    Ok((file, about.size(), hash))
}

fn hash(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..read]);
    }
}

/// `bytes=a-b`, `bytes=a-`, `bytes=-n` into first and last byte. Other units and lists of ranges are ignored, as HTTP allows.
fn parse_range(text: &str, size: u64) -> Result<Option<(u64, u64)>> {
    let Some(range) = text.strip_prefix("bytes=") else { return Ok(None) };
    let Some((from, to)) = range.split_once('-').filter(|_| !range.contains(',')) else { return Ok(None) };
    let number =
        |text: &str| text.parse::<u64>().map_err(|_| Error::bad("range", "must be bytes=a-b, bytes=a- or bytes=-n"));
    let (from, to) = match (from, to) {
        ("", last) => (size.saturating_sub(number(last)?), size.saturating_sub(1)),
        (from, "") => (number(from)?, size.saturating_sub(1)),
        (from, to) => (number(from)?, number(to)?.min(size.saturating_sub(1))),
    };
    if from > to || from >= size { Err(Error::Range(size)) } else { Ok(Some((from, to))) }
}

/// Opens what is beneath the workspace; never blocks (pipes) and never follows a link.
fn open(workspace: &Path, path: &str, flags: OFlags) -> Result<File> {
    if path.len() > MAX_PATH || path.contains('\0') {
        return Err(Error::bad("path", format!("at most {MAX_PATH} bytes without NUL")));
    }
    if path.starts_with('/') {
        return Err(Error::bad("path", "must be relative to the workspace"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Error::bad("path", "must not contain '..'"));
    }
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let root = rustix::fs::open(workspace, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("cannot open the workspace", &e.into()))?;
    let path_or_itself = if path.is_empty() { "." } else { path };
    let handle = beneath::open(&root, path_or_itself, OFlags::PATH | flags.intersection(OFlags::DIRECTORY));
    let opened = handle.and_then(|handle| reopen(&handle, flags));
    opened.map(File::from).map_err(|error| failure(path, error))
}

/// Opens what a handle refers to for reading, whatever has its name by now. Only a file or a folder: a pipe would notice.
fn reopen(handle: &OwnedFd, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(Errno::NXIO);
    }
    rustix::fs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty())
}

/// A system error about a path, reported as what it is: the state of the workspace is the agent's doing and no fault of the
/// runner's.
fn failure(path: &str, error: Errno) -> Error {
    match error {
        // A name that is too long names nothing.
        Errno::NOENT | Errno::STALE | Errno::NAMETOOLONG => Error::NotFound(format!("no '{path}' in the workspace")),
        Errno::LOOP => Error::bad("path", "goes through a symbolic link"),
        Errno::XDEV => Error::bad("path", "leads out of the workspace"),
        Errno::NOTDIR => Error::bad("path", "is not a directory, or leads through a file"),
        Errno::ISDIR => Error::bad("path", "is a directory"),
        Errno::NXIO | Errno::NODEV => Error::bad("path", "is not a regular file"),
        Errno::ACCESS | Errno::PERM => Error::Conflict(format!("'{path}' cannot be read: its permissions forbid it")),
        // Its tree is being moved about, or someone holds a lease on it.
        Errno::AGAIN | Errno::BUSY | Errno::TXTBSY => {
            Error::Conflict(format!("'{path}' cannot be read right now: it is in use"))
        }
        error => Error::io("cannot read", &error.into()),
    }
}

/// The same for a stream's error.
fn stream_failure(path: &str, error: &std::io::Error) -> Error {
    match Errno::from_io_error(error) {
        Some(errno) => failure(path, errno),
        None => Error::io("cannot read", error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(e.to_string()))?
}
