//! `ambient session upload|uploads`: files for a session that does not run yet.

use std::path::PathBuf;

use ambient_wire::upload::{MAX_UPLOAD, UploadedFile};
use chrono::Utc;
use clap::Args;
use reqwest::header::HeaderMap;

use super::{
    change::{local_name, place, read},
    files::relative,
};
use crate::{
    client::route::Route,
    commands::Connection,
    error::CliError,
    exit::Exit,
    output::{duration, fields::Fields, table::Table},
};

/// Flags of `session upload`.
#[derive(Debug, Clone, Args)]
pub struct Upload {
    /// Id or name
    session: String,
    /// Local file, or - for standard input; at most 10 MiB
    source: PathBuf,
    /// Where it goes: a file, or a folder (., or with a / at the end) for a file of the same name; folders are made
    path: String,
}

/// Flags of `session uploads`.
#[derive(Debug, Clone, Args)]
pub struct Uploads {
    /// Id or name
    session: String,
    /// Take back the file with this path; may be repeated
    #[arg(long, value_name = "PATH")]
    remove: Vec<String>,
}

pub(super) async fn upload(arguments: Upload, connection: &Connection) -> Result<Exit, CliError> {
    let path = place(&arguments.path, local_name(&arguments.source))?;
    let (content, executable) = read(&arguments.source, MAX_UPLOAD as u64)?;
    let id = connection.session_id(&arguments.session).await?;
    let route = Route::new(["sessions", &id, "upload_file"]).query("path", Some(path)).query("executable", executable);
    let answer = connection.client.put_bytes(&route, HeaderMap::new(), content).await?;
    connection.object(&answer, |file: &UploadedFile| &file.path, fields)
}

pub(super) async fn uploads(arguments: Uploads, connection: &Connection) -> Result<Exit, CliError> {
    let paths = arguments.remove.iter().map(|path| relative(path)).collect::<Result<Vec<_>, _>>()?;
    let id = connection.session_id(&arguments.session).await?;
    for path in &paths {
        let route = Route::new(["sessions", &id, "upload_file"]).query("path", Some(path));
        connection.client.delete(&route).await?;
    }
    if !paths.is_empty() {
        return Ok(Exit::Success);
    }
    let answer = connection.client.get(&Route::new(["sessions", &id, "uploads"])).await?;
    connection.list(&answer, "files", |file: &UploadedFile| &file.path, table)
}

fn fields(file: &UploadedFile) -> String {
    let mut fields = Fields::new(10);
    fields.add("Path", &file.path);
    fields.add("Size", file.size.to_string());
    fields.add("SHA-256", &file.sha256);
    fields.into_text()
}

fn table(files: &[UploadedFile]) -> Table {
    let now = Utc::now();
    let mut table = Table::new(["AGE", "BY", "SIZE", "PATH"]);
    for file in files {
        let mark = if file.executable { "*" } else { "" };
        let age = duration::age(file.uploaded_at, now);
        table.row([age, file.uploaded_by.clone(), file.size.to_string(), format!("{}{mark}", file.path)]);
    }
    table
}
