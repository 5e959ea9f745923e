//! `ambient session files|cat`.

use ambient_wire::content::{Entry, Listing};
use chrono::SecondsFormat;
use clap::Args;
use futures::StreamExt;
use reqwest::Response;

use crate::{
    OutputFormat, client::innermost, client::route::Route, commands::Connection, error::CliError, exit::Exit,
    output::table::Table,
};

/// Flags of `session files`.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// Id or name
    session: String,
    /// Folder to list or file to print; begins with the repository's folder, such as hello/src [default: the workspace itself]
    #[arg(default_value = "", hide_default_value = true)]
    path: String,
    /// Only print a file, never list a folder
    #[arg(long, requires = "path", hide = true)]
    cat: bool,
    /// Print a file to a terminal unescaped, whatever the terminal does with it; output elsewhere is always exact
    #[arg(long, requires = "path")]
    raw: bool,
}

/// Flags of `session cat`.
#[derive(Debug, Clone, Args)]
pub struct Cat {
    /// Id or name
    session: String,
    /// File to print; begins with the repository's folder, such as hello/README.md
    path: String,
    /// Print to a terminal unescaped, whatever the terminal does with it; output elsewhere is always exact
    #[arg(long)]
    raw: bool,
    /// As this turn has left it, such as 1-2: the second of run 1; works when the workspace is gone
    #[arg(long, value_name = "TURN")]
    turn: Option<String>,
}

pub(super) async fn cat(Cat { session, path, raw, turn }: Cat, connection: &Connection) -> Result<Exit, CliError> {
    if let Some(turn) = turn {
        let whole = relative(&path)?;
        let Some((repo, path)) = whole.split_once('/') else {
            return Err(CliError::Usage(format!(
                "PATH: '{whole}' must begin with the repository's folder, such as hello/README.md"
            )));
        };
        let id = connection.session_id(&session).await?;
        let route = Route::new(["sessions", &id, "turns", &turn, "file"]);
        let route = route.query("repo", Some(repo)).query("path", Some(path));
        return print(connection.client.stream(&route).await?, raw, connection).await;
    }
    files(Files { session, path, cat: true, raw }, connection).await
}

pub(super) async fn files(arguments: Files, connection: &Connection) -> Result<Exit, CliError> {
    let path = relative(&arguments.path)?;
    if arguments.cat && path.is_empty() {
        return Err(CliError::Usage("--cat: needs the PATH of a file".to_owned()));
    }
    let id = connection.session_id(&arguments.session).await?;
    if path.is_empty() || (arguments.path.ends_with('/') && !arguments.cat) {
        return list(&id, &path, connection).await;
    }
    match connection.client.stream(&Route::new(["sessions", &id, "workspace"]).path(&path)).await {
        Ok(file) => print(file, arguments.raw, connection).await,
        // What is not a file may be a folder; if it is neither, the error about the file says more.
        Err(CliError::Api { status: 400, error }) if !arguments.cat => match list(&id, &path, connection).await {
            Err(CliError::Api { status: 400 | 409, .. }) => Err(CliError::Api { status: 400, error }),
            listed => listed,
        },
        Err(error) => Err(error),
    }
}

/// The normalised path; one that could leave the workspace is refused right here.
pub(super) fn relative(path: &str) -> Result<String, CliError> {
    if path.starts_with('/') {
        return Err(CliError::Usage(format!("PATH: '{path}' must be relative to the workspace")));
    }
    let steps: Vec<_> = path.split('/').filter(|step| !matches!(*step, "" | ".")).collect();
    if steps.contains(&"..") {
        return Err(CliError::Usage(format!("PATH: '{path}' must not contain '..'")));
    }
    Ok(steps.join("/"))
}

async fn list(id: &str, path: &str, connection: &Connection) -> Result<Exit, CliError> {
    let answer = connection.client.get(&Route::new(["sessions", id, "workspace"]).query("path", Some(path))).await?;
    let listing: Listing = answer.decode()?;
    let console = &connection.console;
    match connection.format {
        OutputFormat::Json => console.json(answer.text())?,
        OutputFormat::Name => {
            let full =
                |entry: &Entry| if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
            let names: Vec<_> = listing.entries.iter().map(full).collect();
            console.names(names.iter().map(String::as_str))?;
        }
        OutputFormat::Table if listing.entries.is_empty() => console.note("no files"),
        OutputFormat::Table => console.data(&table(&listing).render(""))?,
    }
    if listing.truncated {
        console.warn("there are more entries than are shown");
    }
    Ok(Exit::Success)
}

fn table(listing: &Listing) -> Table {
    let mut table = Table::new(["MODIFIED", "SIZE", "NAME"]);
    for entry in &listing.entries {
        let (size, mark) = match entry.kind.as_str() {
            "directory" => (String::new(), "/"),
            "symlink" => (String::new(), "@"),
            "file" => (entry.size.to_string(), ""),
            _ => (String::new(), "?"),
        };
        let modified = entry.modified.to_rfc3339_opts(SecondsFormat::Secs, true);
        table.row([modified, size, format!("{}{mark}", entry.name)]);
    }
    table
}

async fn print(file: Response, raw: bool, connection: &Connection) -> Result<Exit, CliError> {
    let mut bytes = file.bytes_stream();
    let mut out = connection.console.byte_stream(raw);
    while let Some(chunk) = bytes.next().await {
        // What has been printed cannot be taken back, so there are no retries from here on.
        let chunk = chunk.map_err(|error| CliError::Unreachable {
            url: connection.client.server(),
            cause: format!("{}; the file is incomplete", innermost(&error)),
            sent: false,
        })?;
        out.write(&chunk)?;
    }
    out.finish()?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_workspace() {
        assert_eq!(relative("./a//b/").unwrap(), "a/b");
        assert_eq!(relative("").unwrap(), "");
        for bad in ["/etc/passwd", "..", "a/../../b"] {
            assert!(relative(bad).unwrap_err().to_string().starts_with("PATH: "), "{bad}");
        }
    }
}
