//! Reading and writing a file with the rights of whoever asks: a re-execution of this program that has given up all others.

use std::{
    ffi::OsString,
    fs::{File, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The program's name where a command is expected.
pub(crate) const PROGRAM: &str = "ambient:file";
/// Largest file that is read or written, bytes.
pub(crate) const MAX_FILE: u64 = 10 * 1024 * 1024;
/// Exit code: there is no such file.
pub(crate) const EXIT_ABSENT: i32 = 3;

/// `read PATH` to standard output, or `write PATH` from standard input.
///
/// # Errors
/// In words.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), String> {
    let [word, path] = arguments else { return Err("usage: read|write PATH".to_owned()) };
    let path = Path::new(path);
    let done = match word.to_str() {
        Some("read") => read(path),
        Some("write") => write(path),
        _ => return Err("usage: read|write PATH".to_owned()),
    };
    match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && word == "read" => {
            eprintln!("{error}");
            std::process::exit(EXIT_ABSENT)
        }
        other => other.map_err(|e| e.to_string()),
    }
}

fn read(path: &Path) -> std::io::Result<()> {
    // A pipe or device in its place would hold us up.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?.take(MAX_FILE + 1);
    std::io::copy(&mut file, &mut std::io::stdout().lock()).map(drop)
}

/// Replaces the file in one step; what it was allowed to be, it stays.
fn write(path: &Path) -> std::io::Result<()> {
    // Through a link, as editors do.
    let path: PathBuf = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some((folder, name)) = path.parent().zip(path.file_name()) else {
        return Err(std::io::Error::other("it is not the name of a file"));
    };
    std::fs::create_dir_all(folder)?;
    let mode = match std::fs::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => return Err(std::io::Error::other("it is not a regular file")),
        Ok(metadata) => Some(metadata.permissions().mode()),
        Err(_) => None,
    };
    let mut beside = OsString::from(".ambient-");
    beside.push(std::process::id().to_string());
    beside.push("-");
    beside.push(name);
    let beside = folder.join(beside);
    let written = (|| {
        let mut file = File::create_new(&beside)?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        file.flush()?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
        }
        std::fs::rename(&beside, &path)
    })();
    written.inspect_err(|_| drop(std::fs::remove_file(&beside)))
}
