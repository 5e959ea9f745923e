//! Paths in the workspace as callers name them, and what is wrong with them.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use ambient_wire::file_name;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A path beneath the workspace, without `.`, `..` and empty parts; empty for the workspace itself.
///
/// # Errors
/// Bad input that names `field`.
pub(crate) fn parse(field: &str, text: &str) -> Result<PathBuf> {
    let path = file_name::in_workspace(text).map_err(|reason| Error::bad(field, reason))?;
    Ok(OsString::from_vec(path).into())
}

/// Like [`parse`], for what must not be the workspace itself.
///
/// # Errors
/// Bad input that names `field`.
pub(crate) fn parse_beneath(field: &str, text: &str) -> Result<PathBuf> {
    match parse(field, text)? {
        path if path.as_os_str().is_empty() => Err(Error::bad(field, "must name something in the workspace")),
        path => Ok(path),
    }
}

/// A system error about a path, reported as what it is: the state of the workspace is the agent's doing and no fault of the
/// runner's.
pub(crate) fn failure(field: &str, path: &str, error: Errno) -> Error {
    match error {
        // A name that is too long names nothing.
        Errno::NOENT | Errno::STALE | Errno::NAMETOOLONG => Error::NotFound(format!("no '{path}' in the workspace")),
        Errno::LOOP => Error::bad(field, "goes through a symbolic link"),
        Errno::XDEV => Error::bad(field, "leads out of the workspace"),
        Errno::NOTDIR => Error::Conflict(format!("{field}: is not a directory, or leads through a file")),
        Errno::ISDIR => Error::bad(field, "is a directory"),
        Errno::NXIO | Errno::NODEV => Error::bad(field, "is not a regular file"),
        Errno::EXIST | Errno::NOTEMPTY => Error::Conflict(format!("'{path}' exists already")),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            Error::Conflict(format!("'{path}' cannot be used: its permissions forbid it"))
        }
        // Its tree is being moved about, or someone holds a lease on it.
        Errno::AGAIN | Errno::BUSY | Errno::TXTBSY => {
            Error::Conflict(format!("'{path}' cannot be used right now: it is in use"))
        }
        Errno::NOSPC => Error::Conflict(format!("there is no space left for '{path}': the disk is full")),
        Errno::DQUOT => Error::Conflict(format!("there is no space left for '{path}': the disk quota is used up")),
        Errno::FBIG => Error::TooLarge(format!("'{path}' would be larger than files of the session may be")),
        error => Error::io(&format!("'{path}' cannot be used"), &error.into()),
    }
}

/// The same for a stream's error.
pub(crate) fn stream_failure(field: &str, path: &str, error: &std::io::Error) -> Error {
    match Errno::from_io_error(error) {
        Some(errno) => failure(field, path, errno),
        None => Error::io(&format!("'{path}' cannot be used"), error),
    }
}
