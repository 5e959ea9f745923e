//! `ambient up --detach`: an `up` that outlives its terminal.

use std::{
    env,
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::CommandError;
use super::say::say;
use crate::{
    config::ServerConfig,
    data_dir,
    instance::{self, Instance, InstanceKind},
    log_tail::log_tail,
};

/// A first start creates a database, one after a crash recovers it.
const READY_PATIENCE: Duration = Duration::from_secs(180);

/// Starts this very command again without the flag, in its own process group, and waits until it is ready. If
/// another `up` has the data directory, the new one finds that out and ends, and the other's URL is printed.
pub(super) async fn run(config: &ServerConfig) -> Result<ExitCode, CommandError> {
    let dir = &config.data_dir;
    data_dir::prepare(dir).map_err(CommandError::file(dir))?;
    let path = dir.join("up.log");
    let (log, begin) = open(&path).map_err(CommandError::file(&path))?;
    let mut child = spawn(log).map_err(|error| CommandError::Process(format!("cannot start again: {error}")))?;
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        let ended = child.try_wait().ok().flatten();
        if let Some(up) = running_up(dir)? {
            say(&up.url);
            eprintln!("ambient is up (pid {}, log {}); stop it with: ambient down", up.pid, path.display());
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(status) = ended {
            let text = format!("`ambient up` ended ({status}):\n{}", log_tail(&path, begin));
            return Err(CommandError::Process(text));
        }
        if Instant::now() >= deadline {
            return Err(CommandError::Process(not_ready(&child, &path, begin)));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn running_up(dir: &Path) -> Result<Option<Instance>, CommandError> {
    let running = instance::running(dir).map_err(CommandError::file(dir))?;
    Ok(running.into_iter().find(|instance| instance.kind == InstanceKind::Up))
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let begin = log.metadata()?.len();
    Ok((log, begin))
}

fn spawn(log: File) -> io::Result<Child> {
    let without_flag = env::args_os().skip(1).filter(|argument| argument != OsStr::new("--detach"));
    let mut command = Command::new(env::current_exe()?);
    command.args(without_flag).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    command.spawn()
}

/// It is left running: it may be recovering a large database.
fn not_ready(child: &Child, log: &Path, begin: u64) -> String {
    let (pid, seconds) = (child.id().unwrap_or_default(), READY_PATIENCE.as_secs());
    format!(
        "`ambient up` (pid {pid}) is not ready after {seconds} s and keeps running; its log:\n{}",
        log_tail(log, begin)
    )
}
