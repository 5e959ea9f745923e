//! The workspace as it is read: listings, files, and what is known about them.
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

use ambient_wire::{
    content::{Entry, FileStatus, Listing, SHA256_HEADER},
    file_name::escape,
};
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
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::{
    app::SharedApp,
    beneath,
    error::{Error, Result},
    file_change::hash,
    workspace_path::{failure, parse, stream_failure},
};

const MAX_ENTRIES: usize = 10_000;

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
    let handle = directory.try_clone().map_err(|e| stream_failure("path", &path, &e))?;
    let mut dir = Dir::new(handle).map_err(|e| failure("path", &path, e))?;
    while let Some(entry) = dir.read() {
        let entry = entry.map_err(|e| failure("path", &path, e))?;
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
        let (file_type, size, modified) = match looked {
            Ok(stat) => (FileType::from_raw_mode(stat.st_mode), stat.st_size, stat.st_mtime),
            // It has disappeared in the meantime.
            Err(Errno::NOENT) => return None,
            // A directory that may be listed but not entered.
            Err(_) => (listed, 0, 0),
        };
        let (kind, modified) = (kind(file_type).to_owned(), time(modified));
        let size = u64::try_from(size).unwrap_or(0);
        Some(Entry { name: escape(name.to_bytes()), kind, size, modified })
    });
    let entries = entries.collect();
    Ok(Listing { path, entries, truncated })
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        _ => "other",
    }
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default()
}

/// `GET /content-status?path=&sha256=`: also of a link itself.
///
/// # Errors
/// Bad input; not found.
pub(crate) async fn status(app: SharedApp, path: String, with_hash: bool) -> Result<FileStatus> {
    blocking(move || status_blocking(&app.attempt.paths.workspace(), path, with_hash)).await
}

fn status_blocking(workspace: &Path, path: String, with_hash: bool) -> Result<FileStatus> {
    let failed = |error| failure("path", &path, error);
    let handle = locate(workspace, &path, OFlags::NOFOLLOW)?;
    let about = rustix::fs::fstat(&handle).map_err(failed)?;
    let (file_type, size) = (FileType::from_raw_mode(about.st_mode), u64::try_from(about.st_size).unwrap_or(0));
    let sha256 = match file_type {
        FileType::RegularFile if with_hash => {
            let file = reopen(&handle, READ).map(File::from).map_err(failed)?;
            hash(file, size).map_err(|e| stream_failure("path", &path, &e))?
        }
        _ => None,
    };
    let mode = format!("{:04o}", about.st_mode & 0o7777);
    Ok(FileStatus { kind: kind(file_type).to_owned(), size, mode, modified: time(about.st_mtime), sha256, path })
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
        headers.insert(SHA256_HEADER, value);
    }
    Ok(response)
}

/// A file of the workspace that is to have at most `limit` bytes; none if there is none.
///
/// # Errors
/// It is larger, not a file, or cannot be read.
pub(crate) async fn small_file(workspace: &Path, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let (workspace, path) = (workspace.to_owned(), path.to_owned());
    blocking(move || {
        let file = match open(&workspace, &path, OFlags::empty()) {
            Ok(file) => file,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| stream_failure("path", &path, &e))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge(format!("it is longer than {limit} bytes")));
        }
        Ok(Some(bytes))
    })
    .await
}

fn read_blocking(workspace: &Path, path: &str) -> Result<(File, u64, Option<String>)> {
    let file = open(workspace, path, OFlags::empty())?;
    let about = file.metadata().map_err(|e| stream_failure("path", path, &e))?;
    if about.is_dir() {
        return Err(Error::bad("path", "is a directory: list it with GET /content?path="));
    }
    if !about.is_file() {
        return Err(Error::bad("path", "is not a regular file"));
    }
    let hash = hash(&file, about.size()).map_err(|e| stream_failure("path", path, &e))?;
    Ok((file, about.size(), hash))
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

/// For reading what a handle refers to; never blocks (pipes).
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens what is beneath the workspace; never blocks and never follows a link.
fn open(workspace: &Path, path: &str, flags: OFlags) -> Result<File> {
    let handle = locate(workspace, path, flags)?;
    reopen(&handle, flags | READ).map(File::from).map_err(|error| failure("path", path, error))
}

/// A handle of what is beneath the workspace, which says what it is and no more.
fn locate(workspace: &Path, path: &str, flags: OFlags) -> Result<OwnedFd> {
    let relative = parse("path", path)?;
    let root = rustix::fs::open(workspace, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("cannot open the workspace", &e.into()))?;
    let path_or_itself = if relative.as_os_str().is_empty() { Path::new(".") } else { &relative };
    let opened = beneath::open(&root, path_or_itself, OFlags::PATH | flags);
    opened.map_err(|error| failure("path", path, error))
}

/// Opens what a handle refers to for reading, whatever has its name by now. Only a file or a folder: a pipe would notice.
fn reopen(handle: &OwnedFd, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(Errno::NXIO);
    }
    rustix::fs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(e.to_string()))?
}
