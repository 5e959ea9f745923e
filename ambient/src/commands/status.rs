//! `ambient status`: what is running on this data directory.

use std::{path::Path, process::ExitCode};

use serde::Serialize;

use super::{CommandError, Output, say::say};
use crate::{
    config::ServerConfig,
    instance::{self, Instance},
    postgres::EmbeddedPostgres,
};

/// Exit code if no server is running, as with `systemctl status`.
const NOT_RUNNING: u8 = 3;

#[derive(Serialize)]
struct Status<'a> {
    running: bool,
    instances: Vec<Instance>,
    /// Process of the embedded PostgreSQL.
    postgres_pid: Option<i32>,
    data_dir: &'a Path,
}

pub(super) fn run(config: &ServerConfig, output: Output) -> Result<ExitCode, CommandError> {
    let dir = &config.data_dir;
    let instances = instance::running(dir).map_err(CommandError::file(dir))?;
    let postmaster = EmbeddedPostgres::new(dir).ok().and_then(|postgres| postgres.postmaster());
    let postgres_pid = postmaster.map(crate::postgres::Postmaster::pid);
    let status = Status { running: !instances.is_empty(), instances, postgres_pid, data_dir: dir };
    match output {
        Output::Json => say(serde_json::json!(status)),
        Output::Table => print_table(&status),
    }
    Ok(if status.running { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
}

fn print_table(status: &Status<'_>) {
    if status.instances.is_empty() {
        say(format_args!("{:<12} not running", "server"));
    }
    for instance in &status.instances {
        let since = instance.started_at.format("%Y-%m-%dT%H:%M:%SZ");
        say(format_args!("{:<12} running at {} since {since} (pid {})", "server", instance.url, instance.pid));
    }
    match status.postgres_pid {
        Some(pid) => say(format_args!("{:<12} running (pid {pid})", "postgres")),
        None => say(format_args!("{:<12} not running", "postgres")),
    }
    say(format_args!("{:<12} {}", "data", status.data_dir.display()));
}
