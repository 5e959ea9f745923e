//! `ambient replay export`: histories and operations in a file. Reads only, and nothing from the vault: operations and histories
//! refer to sealed values only by id.

use std::{path::PathBuf, process::ExitCode};

use ambient_workflows::replay::{ExportWriter, export};
use clap::Args;
use serde_json::json;

use super::{
    CommandError, Output,
    replay_check::{self, SourceFlags},
    say::say,
};
use crate::config::Engine;

/// Flags of `replay export`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file holds prompts, names of people and messages of errors, but no secrets. Only its owner may read it.

Example:
  ambient replay export ambient.export.gz && ambient replay check --from ambient.export.gz")]
pub struct ExportFlags {
    #[command(flatten)]
    source: SourceFlags,
    /// File to write; compressed if its name ends with .gz
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// PostgreSQL URL [default: the configured database, else the one that `up` runs]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Number of closed histories and of operations to write, newest first, besides all open histories
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    last: u32,
}

pub(super) async fn run(flags: &ExportFlags, output: Output) -> Result<ExitCode, CommandError> {
    let config = flags.source.load()?;
    let db = replay_check::open_read_only(&config, flags.from.as_deref()).await?;
    let (mut histories, _cluster) = replay_check::histories(&config, &db, flags.last).await?;
    let engine = match config.engine {
        Engine::Embedded => "embedded",
        Engine::Temporal => "temporal",
    };
    let mut file = ExportWriter::create(&flags.file, engine, env!("CARGO_PKG_VERSION"))?;
    let left_out = export(histories.as_mut(), &db, flags.last, &mut file).await?;
    let end = file.finish()?;
    db.pool().close().await;
    let report = json!({ "histories": end.histories, "operations": end.operations, "left_out": left_out });
    match output {
        Output::Json => say(&report),
        Output::Table => {
            eprintln!("{} histories and {} operations in {}", end.histories, end.operations, flags.file.display());
        }
    }
    for problem in &left_out {
        eprintln!("left out because it cannot be read: {problem}");
    }
    Ok(if left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
