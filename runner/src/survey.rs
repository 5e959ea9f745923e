//! What git would skip or choke on in a working tree: found with the rights of whoever asks, so by the re-execution that has
//! given up all others.

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD};

/// The program's name where a command is expected.
pub(crate) const PROGRAM: &str = "ambient:survey";
/// From this size on a file is reported with its size, bytes.
pub(crate) const LARGE: u64 = 1024 * 1024;
/// Maximum number of findings.
const MAX_FINDINGS: usize = 10_000;
/// Maximum number of entries examined.
const MAX_ENTRIES: usize = 5_000_000;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file or folder that cannot be read.
    Unreadable,
    /// Neither a file nor a folder nor a link.
    Special,
    /// A folder with its own `.git`.
    Repository,
    /// A file of [`LARGE`] bytes or more.
    Large {
        size: u64,
        /// Last change, nanoseconds since 1970.
        modified: i128,
    },
    /// A file or folder whose name git takes for its own (`.GIT`), whoever made it.
    Name,
    /// There is more than is reported.
    More,
}

/// One finding; the path is relative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
}

/// Prints what is in the current directory: `kind size modified path`, each ended by NUL.
///
/// # Errors
/// A system error.
pub(crate) fn print() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for Finding { kind, path } in survey() {
        let (word, size, modified) = match kind {
            Kind::Unreadable => ('r', 0, 0),
            Kind::Special => ('s', 0, 0),
            Kind::Repository => ('g', 0, 0),
            Kind::Large { size, modified } => ('l', size, modified),
            Kind::Name => ('n', 0, 0),
            Kind::More => ('m', 0, 0),
        };
        write!(out, "{word} {size} {modified} ")?;
        out.write_all(&path)?;
        out.write_all(b"\0")?;
    }
    out.flush()
}

/// Reads what [`print`] wrote; nothing if it is malformed.
pub(crate) fn parse(bytes: &[u8]) -> Option<Vec<Finding>> {
    let records = bytes.strip_suffix(b"\0").into_iter().flat_map(|all| all.split(|byte| *byte == 0));
    records.map(finding).collect()
}

fn finding(record: &[u8]) -> Option<Finding> {
    let mut fields = record.splitn(4, |byte| *byte == b' ');
    let mut text = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let (word, size, modified) = (text()?, text()?.parse().ok()?, text()?.parse().ok()?);
    let kind = match word {
        "r" => Kind::Unreadable,
        "s" => Kind::Special,
        "g" => Kind::Repository,
        "l" => Kind::Large { size, modified },
        "n" => Kind::Name,
        "m" => Kind::More,
        _ => return None,
    };
    Some(Finding { kind, path: fields.next()?.to_vec() })
}

fn survey() -> Vec<Finding> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    let mut looked_at = 0;
    while let Some(directory) = left.pop() {
        let place = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
        let Ok(entries) = std::fs::read_dir(place) else {
            found.push(Finding { kind: Kind::Unreadable, path: bytes(&directory) });
            continue;
        };
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        if !directory.as_os_str().is_empty() && names.iter().any(|name| name == ".git") {
            found.push(Finding { kind: Kind::Repository, path: bytes(&directory) });
            continue;
        }
        for name in names.iter().filter(|name| *name != ".git") {
            looked_at += 1;
            if looked_at > MAX_ENTRIES || found.len() >= MAX_FINDINGS {
                found.push(Finding { kind: Kind::More, path: Vec::new() });
                return found;
            }
            look(directory.join(name), &mut left, &mut found);
        }
    }
    found
}

fn look(path: PathBuf, left: &mut Vec<PathBuf>, found: &mut Vec<Finding>) {
    let kind = match path.symlink_metadata() {
        Ok(_) if path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(".git")) => Kind::Name,
        Ok(about) if about.is_dir() => return left.push(path),
        Ok(about) if about.is_symlink() => return,
        Ok(about) if !about.is_file() => Kind::Special,
        Ok(_) if rustix::fs::accessat(CWD, &path, Access::READ_OK, AtFlags::EACCESS).is_err() => Kind::Unreadable,
        Ok(about) if about.len() >= LARGE => {
            let modified = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
            Kind::Large { size: about.len(), modified }
        }
        Ok(_) => return,
        // Disappeared in the meantime.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(_) => Kind::Unreadable,
    };
    found.push(Finding { kind, path: bytes(&path) });
}

fn bytes(path: &Path) -> Vec<u8> {
    OsStr::as_bytes(path.as_os_str()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::{Finding, Kind, parse};

    #[test]
    fn findings_are_read_as_they_were_written_and_nothing_else_is() {
        let path = b"a b\xff\n".to_vec();
        let found = parse(b"r 0 0 a b\xff\n\0l 5 -7 x\0").unwrap();
        let large = Kind::Large { size: 5, modified: -7 };
        let expected = [Finding { kind: Kind::Unreadable, path }, Finding { kind: large, path: b"x".to_vec() }];
        assert_eq!(found, expected);
        assert_eq!(parse(b""), Some(Vec::new()));
        for bad in [&b"r 0 0 a"[..], b"\0", b"r x 0 a\0", b"q 0 0 a\0", b"r 0 0\0"] {
            assert!(parse(bad).is_none_or(|found| found.is_empty()), "{bad:?}");
        }
    }
}
