//! `ambient session stat|put|rm|mv`.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ambient_wire::{
    content::{FileMove, FileStatus, MAX_FILE},
    file_name,
};
use chrono::SecondsFormat;
use clap::Args;
use reqwest::header::{HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use super::files::relative;
use crate::{
    client::{answer::Answer, route::Route},
    commands::Connection,
    error::CliError,
    exit::Exit,
    output::fields::Fields,
};

/// Flags of `session stat`.
#[derive(Debug, Clone, Args)]
pub struct Stat {
    /// Id or name
    session: String,
    /// File or folder [default: the workspace itself]
    #[arg(default_value = "", hide_default_value = true)]
    path: String,
    /// Also the SHA-256 of a file's content
    #[arg(long)]
    sha256: bool,
}

/// Flags of `session put`.
#[derive(Debug, Clone, Args)]
pub struct Put {
    /// Id or name
    session: String,
    /// Local file, or - for standard input; at most 100 MiB
    source: PathBuf,
    /// Where to: a file, or a folder (., or with a / at the end) for a file of the same name
    path: String,
    /// Create the folders it is in
    #[arg(long)]
    parents: bool,
    /// Only if there is no such file
    #[arg(long, conflicts_with = "if_sha256")]
    no_clobber: bool,
    /// Only if the file there has this SHA-256
    #[arg(long, value_name = "HEX")]
    if_sha256: Option<String>,
}

/// Flags of `session rm`.
#[derive(Debug, Clone, Args)]
pub struct Remove {
    /// Id or name
    session: String,
    /// Files or folders; links are removed themselves
    #[arg(required = true)]
    paths: Vec<String>,
    /// Also folders, with everything in them
    #[arg(long, short)]
    recursive: bool,
}

/// Flags of `session mv`.
#[derive(Debug, Clone, Args)]
pub struct Move {
    /// Id or name
    session: String,
    /// File or folder
    from: String,
    /// Its new path, or a folder (., or with a / at the end) to move it into
    to: String,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// Create the folders that the new path leads through
    #[arg(long)]
    parents: bool,
}

pub(super) async fn stat(arguments: Stat, connection: &Connection) -> Result<Exit, CliError> {
    let path = relative(&arguments.path)?;
    let id = connection.session_id(&arguments.session).await?;
    let route = Route::new(["sessions", &id, "workspace_stat"]).query("path", Some(path));
    let answer = connection.client.get(&route.query("sha256", arguments.sha256.then_some(true))).await?;
    show(&answer, connection)
}

pub(super) async fn put(arguments: Put, connection: &Connection) -> Result<Exit, CliError> {
    let path = place(&arguments.path, local_name(&arguments.source))?;
    let (content, executable) = read(&arguments.source, MAX_FILE)?;
    let id = connection.session_id(&arguments.session).await?;
    let route = Route::new(["sessions", &id, "workspace"]).path(&path);
    let route = route.query("parents", arguments.parents.then_some(true)).query("executable", executable);
    let mut headers = HeaderMap::new();
    if arguments.no_clobber {
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    if let Some(sum) = arguments.if_sha256 {
        let tag = HeaderValue::from_str(&format!("\"{sum}\""));
        headers.insert(IF_MATCH, tag.map_err(|_| CliError::Usage("--if-sha256: is not a SHA-256".to_owned()))?);
    }
    match connection.client.put_bytes(&route, headers, content).await {
        Err(CliError::Api { status: 404, error })
            if !arguments.parents && path.contains('/') && error.reason.ends_with("in the workspace") =>
        {
            let reason = format!("there is no folder for '{path}'; --parents creates it");
            Err(CliError::refused(Exit::NotFound, reason))
        }
        answer => show(&answer?, connection),
    }
}

/// The name of a local file; none of standard input.
pub(super) fn local_name(source: &Path) -> Option<String> {
    let name = source.file_name().filter(|_| source != Path::new("-"))?;
    Some(file_name::escape(name.as_encoded_bytes()))
}

/// A local file's content, at most so many bytes, and whether it may be executed; what comes from standard input says nothing about that.
pub(super) fn read(source: &Path, most: u64) -> Result<(Vec<u8>, Option<bool>), CliError> {
    let wrong = |problem: String| CliError::Usage(format!("SOURCE: {}: {problem}", source.display()));
    let failed = |error: io::Error| wrong(error.to_string());
    let (input, executable): (Box<dyn Read>, _) = if source == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(source).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.is_dir() {
            return Err(wrong("is a folder".to_owned()));
        }
        (Box::new(file), Some(about.permissions().mode() & 0o100 != 0))
    };
    let mut content = Vec::new();
    input.take(most + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > most {
        return Err(wrong(format!("has more than {most} bytes")));
    }
    Ok((content, executable))
}

/// The path that is meant: in a folder, of the same name.
pub(super) fn place(path: &str, name: Option<String>) -> Result<String, CliError> {
    let is_folder = path.ends_with('/') || matches!(path.rsplit('/').next(), Some("." | ""));
    let relative = relative(path)?;
    match name {
        _ if !is_folder => Ok(relative),
        Some(name) if relative.is_empty() => Ok(name),
        Some(name) => Ok(format!("{relative}/{name}")),
        None => Err(CliError::Usage(format!("PATH: '{path}' is a folder, and standard input has no name"))),
    }
}

pub(super) async fn remove(arguments: Remove, connection: &Connection) -> Result<Exit, CliError> {
    let paths = arguments.paths.iter().map(|path| relative(path)).collect::<Result<Vec<_>, _>>()?;
    let id = connection.session_id(&arguments.session).await?;
    if paths.iter().any(String::is_empty) {
        return Err(CliError::Usage("PATH: the workspace itself cannot be removed".to_owned()));
    }
    for path in paths {
        let route = Route::new(["sessions", &id, "workspace"]).path(&path);
        match connection.client.delete(&route.query("recursive", arguments.recursive.then_some(true))).await {
            Err(CliError::Api { error, .. }) if error.details.iter().any(|detail| detail.field == "recursive") => {
                return Err(CliError::Usage(format!(
                    "PATH: '{path}' is a folder; -r removes it with everything in it"
                )));
            }
            removed => removed?,
        };
    }
    Ok(Exit::Success)
}

pub(super) async fn relocate(arguments: Move, connection: &Connection) -> Result<Exit, CliError> {
    let from = relative(&arguments.from)?;
    let to = place(&arguments.to, from.rsplit('/').next().map(str::to_owned))?;
    let id = connection.session_id(&arguments.session).await?;
    let body = FileMove { from, to, overwrite: arguments.force, parents: arguments.parents };
    let answer = connection.client.post_patiently(&Route::new(["sessions", &id, "workspace_move"]), &body).await?;
    show(&answer, connection)
}

fn show(answer: &Answer, connection: &Connection) -> Result<Exit, CliError> {
    connection.object(answer, |file: &FileStatus| &file.path, fields)
}

fn fields(file: &FileStatus) -> String {
    let mut fields = Fields::new(10);
    fields.add("Path", if file.path.is_empty() { "." } else { &file.path });
    fields.add("Kind", &file.kind);
    fields.add("Size", file.size.to_string());
    fields.add("Mode", &file.mode);
    fields.add("Modified", file.modified.to_rfc3339_opts(SecondsFormat::Secs, true));
    if let Some(sum) = &file.sha256 {
        fields.add("SHA-256", sum);
    }
    fields.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_a_file_by_its_name() {
        let named = |path: &str| place(path, Some("a.txt".to_owned())).unwrap();
        assert_eq!(
            [".", "./", "d/", "d/.", "d", "d/b"].map(named),
            ["a.txt", "a.txt", "d/a.txt", "d/a.txt", "d", "d/b"]
        );
        assert_eq!(place("d/b", None).unwrap(), "d/b");
        assert!(matches!(place("d/", None), Err(CliError::Usage(_))));
    }
}
