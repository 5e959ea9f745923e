//! `ambient replay check`: whether this program can continue what is stored, before it replaces the one that stored it.
//!
//! Writes nothing: no engine is started, no schema is migrated, and the database refuses writes.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use ambient_engine::HistoryReader;
use ambient_persistence::{Database, DatabaseOptions};
use ambient_workflows::{
    Cluster,
    replay::{
        CheckOptions, ClientHistories, EngineHistories, ExportReader, HistorySource, Report, check_file,
        check_histories, check_operations, workflows,
    },
};
use clap::Args;

use super::{CommandError, Output, database, say::say};
use crate::{
    config::{ConfigFlags, DatabaseUrl, Engine, ServerConfig, TemporalFlags},
    workflow_engine::look_into_cluster,
};

/// Exit code if this program decides differently anywhere.
pub const DIVERGED: u8 = 3;

/// Reading a large log takes longer than a request may.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

const HELP: &str = "\
Replays every open workflow history and the last closed ones against the workflows of this program, and decides the last \
operations again with its rules. Run it with the new program on the old one's database, before the new one is started. \
Writes nothing.

Exit codes:
  0    this program goes on with everything
  3    it does not: the table names the first divergence of each kind
  1    the check could not be made

Examples:
  ambient replay check
  ambient replay check --from export.gz --output json";

/// The settings that say where histories and operations are.
#[derive(Debug, Clone, Args)]
pub(super) struct SourceFlags {
    /// Configuration file (TOML) [default: AMBIENT_SERVER_CONFIG, else server.toml in the usual place]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the PostgreSQL that `up` runs
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Which engine runs the workflows: embedded or temporal [default: embedded]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// With engine temporal: its frontend [default: 127.0.0.1:7233]
    #[arg(long, value_name = "HOST:PORT")]
    temporal_address: Option<String>,
    /// With engine temporal: namespace of all executions [default: default]
    #[arg(long, value_name = "NAME")]
    temporal_namespace: Option<String>,
}

impl SourceFlags {
    pub(super) fn load(&self) -> Result<ServerConfig, CommandError> {
        let Self { config, data_dir, engine, temporal_address, temporal_namespace } = self.clone();
        let temporal = TemporalFlags { temporal_address, temporal_namespace, ..TemporalFlags::default() };
        Ok(ServerConfig::load(&ConfigFlags { config, data_dir, engine, temporal, ..ConfigFlags::default() })?)
    }
}

/// Flags of `replay check`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct CheckFlags {
    #[command(flatten)]
    source: SourceFlags,
    /// A file written by 'ambient replay export', or a PostgreSQL URL [default: the configured database, else the one that `up` runs]
    #[arg(long, value_name = "SOURCE")]
    from: Option<String>,
    /// Number of closed histories and of operations to check, newest first; a file is checked in full
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    last: u32,
}

impl CheckFlags {
    /// Checks, prints the table and returns the exit code.
    ///
    /// # Errors
    /// When the check cannot run.
    pub async fn run(self, output: Output) -> Result<ExitCode, CommandError> {
        let mut report = Report::default();
        let (workflows, options) = (workflows()?, CheckOptions::default());
        match self.from.as_deref() {
            Some(file) if DatabaseUrl::parse(file).is_err() => {
                check_file(ExportReader::open(Path::new(file))?, &workflows, &options, &mut report).await?;
            }
            url => {
                let config = self.source.load()?;
                let db = open_read_only(&config, url).await?;
                let (mut histories, _cluster) = histories(&config, &db, self.last).await?;
                check_histories(histories.as_mut(), &workflows, &options, &mut report).await?;
                check_operations(&db, self.last, &mut report).await?;
                db.pool().close().await;
            }
        }
        match output {
            Output::Json => say(report.to_json()),
            Output::Table => say(report.to_string().trim_end()),
        }
        let (runs, diverged) = (report.runs(), report.diverged());
        let verdict = match diverged {
            0 => "this program decides every one as recorded".to_owned(),
            1 => "this program decides 1 of them differently".to_owned(),
            several => format!("this program decides {several} of them differently"),
        };
        eprintln!("{runs} histories and operations checked: {verdict}");
        Ok(if diverged == 0 { ExitCode::SUCCESS } else { ExitCode::from(DIVERGED) })
    }
}

/// The source's database, read-only.
pub(super) async fn open_read_only(config: &ServerConfig, url: Option<&str>) -> Result<Database, CommandError> {
    let url = match url.map(DatabaseUrl::parse) {
        Some(url) => without_password(url.map_err(CommandError::Process)?)?,
        None => database::found(config).await?,
    };
    let options = DatabaseOptions {
        max_connections: 2,
        statement_timeout: STATEMENT_TIMEOUT,
        application_name: "ambient replay check".to_owned(),
        read_only: true,
        ..DatabaseOptions::default()
    };
    let opened = Database::connect(url.expose(), options).await;
    opened.map_err(|error| CommandError::Process(format!("database {url}: {error}")))
}

/// Every user of the machine can read a process's arguments.
fn without_password(url: DatabaseUrl) -> Result<DatabaseUrl, CommandError> {
    if url.to_string() == url.expose() {
        return Ok(url);
    }
    let text = "a password does not belong in an argument: set AMBIENT_DATABASE_URL, or PGPASSWORD";
    Err(CommandError::Process(text.to_owned()))
}

/// Histories of the configured engine; the second part keeps a cluster's connection alive.
pub(super) async fn histories(
    config: &ServerConfig,
    db: &Database,
    last: u32,
) -> Result<(Box<dyn HistorySource>, Option<Cluster>), CommandError> {
    let queue = config.task_queue.as_str();
    match config.engine {
        Engine::Embedded => {
            let reader = HistoryReader::new(db.pool().clone());
            Ok((Box::new(EngineHistories::new(reader, queue, last)), None))
        }
        Engine::Temporal => {
            let (client, cluster) = look_into_cluster(&config.temporal).await.map_err(CommandError::Process)?;
            Ok((Box::new(ClientHistories::new(client, queue, last)), Some(cluster)))
        }
    }
}
