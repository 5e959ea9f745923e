//! `ambient doctor`: what a server needs on this machine, checked one by one. Changes nothing.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use ambient_compute::local::{SESSION_UIDS, free_space, probe_user_ids};
use ambient_postgres::{Transport, connect_options};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::{CommandError, Output, say::say};
use crate::{
    config::{DatabaseUrl, ServerConfig},
    instance,
    port_holder::port_holder,
    postgres::EmbeddedPostgres,
};

const DATABASE_PATIENCE: Duration = Duration::from_secs(5);
/// With less free space than this, a checkout and a database soon do not fit.
const LITTLE_SPACE: u64 = 2 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum CheckStatus {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: CheckStatus,
    detail: String,
}

fn check(name: &'static str, verdict: CheckStatus, detail: impl Into<String>) -> Check {
    Check { name, verdict, detail: detail.into() }
}

pub(super) async fn run(config: &ServerConfig, output: Output) -> Result<ExitCode, CommandError> {
    let mut checks =
        vec![git(), git_lfs(), runner(&config.runner_binary), landlock(), namespaces(), database(config).await];
    checks.extend([data_dir(&config.data_dir), space(config), snapshots(config).await, port(config)]);
    if rustix::process::geteuid().is_root() {
        checks.push(session_uids(config));
    }
    checks.extend(config.warnings.iter().map(|warning| check("settings", CheckStatus::Warning, warning)));
    match output {
        Output::Json => say(serde_json::json!({ "checks": checks })),
        Output::Table => checks.iter().for_each(print_row),
    }
    let failed = checks.iter().any(|check| check.verdict == CheckStatus::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_row(check: &Check) {
    let mark = match check.verdict {
        CheckStatus::Ok => "ok",
        CheckStatus::Warning => "warning",
        CheckStatus::Failed => "FAILED",
    };
    say(format_args!("{mark:<8} {:<10} {}", check.name, check.detail));
}

fn git() -> Check {
    match Command::new("git").arg("--version").output() {
        Ok(output) if output.status.success() => {
            check("git", CheckStatus::Ok, String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => check("git", CheckStatus::Failed, "not found on PATH; sessions work in git repositories: install it"),
    }
}

/// Where sessions look for it, unless one of their variables says otherwise.
fn git_lfs() -> Check {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    match Command::new("git-lfs").arg("version").env("PATH", PATH).output() {
        Ok(output) if output.status.success() => {
            check("git-lfs", CheckStatus::Ok, String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => check(
            "git-lfs",
            CheckStatus::Ok,
            "not found: files kept with Git LFS stay pointers in sessions, with a notice",
        ),
    }
}

fn runner(binary: &Path) -> Check {
    let executable = fs::metadata(binary).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let shown = binary.display();
    if executable {
        return check("runner", CheckStatus::Ok, shown.to_string());
    }
    check("runner", CheckStatus::Failed, format!("{shown} is not a program; build it or set runner_binary"))
}

/// The newest Landlock version that the kernel grants. Creating a ruleset restricts nothing.
fn landlock() -> Check {
    use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let granted = |abi: ABI| {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset.handle_access(AccessFs::from_all(abi)).and_then(Ruleset::create).is_ok()
    };
    // Versions 4 and 6 add nothing to the file system.
    let versions = [(5, ABI::V5), (3, ABI::V3), (2, ABI::V2), (1, ABI::V1)];
    match versions.into_iter().find(|(_, abi)| granted(*abi)) {
        Some((number, _)) => check("landlock", CheckStatus::Ok, format!("version {number} or newer")),
        None => check("landlock", CheckStatus::Warning, "not in this kernel: sessions are confined by uid only"),
    }
}

/// Whether the kernel creates namespaces for ordinary users; checked with the standard program for it.
fn namespaces() -> Check {
    let without = "agents see the machine's processes, hidden ones may outlive a session, and no network can be restricted (see \
                   docs/security.md)";
    let made =
        Command::new("unshare").args(["--user", "--pid", "--mount", "--ipc", "--net", "--fork", "true"]).output();
    match made {
        Ok(made) if made.status.success() => check("namespaces", CheckStatus::Ok, "user, PID, mount, IPC and network"),
        Ok(made) => {
            let reason = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            check("namespaces", CheckStatus::Warning, format!("{reason}: {without}"))
        }
        Err(_) => check(
            "namespaces",
            CheckStatus::Ok,
            "not tried: `unshare` is not on PATH; see a session's Confined condition",
        ),
    }
}

async fn database(config: &ServerConfig) -> Check {
    match &config.database_url {
        Some(url) => named_database(url).await,
        None => embedded_database(&config.data_dir),
    }
}

async fn named_database(url: &DatabaseUrl) -> Check {
    let look = async {
        let options = connect_options(url.expose())?;
        let mut connection = PgConnection::connect_with(&options).await?;
        let transport = Transport::of(&mut connection, options.get_ssl_mode()).await?;
        let sql = "select current_setting('server_version')";
        let version = sqlx::query_scalar::<_, String>(sql).fetch_one(&mut connection).await?;
        Ok::<_, sqlx::Error>((version, transport))
    };
    match timeout(DATABASE_PATIENCE, look).await {
        Ok(Ok((version, transport))) => {
            let verdict = if transport.is_exposed() { CheckStatus::Warning } else { CheckStatus::Ok };
            check("database", verdict, format!("PostgreSQL {version} at {url}: {transport}"))
        }
        Ok(Err(error)) => check("database", CheckStatus::Failed, format!("{url}: {error}")),
        Err(_) => check("database", CheckStatus::Failed, format!("{url}: no answer")),
    }
}

fn embedded_database(data_dir: &Path) -> Check {
    let found = EmbeddedPostgres::new(data_dir).and_then(|postgres| Ok((postgres.binaries()?, postgres.postmaster())));
    match found {
        Ok((binaries, postmaster)) => {
            let state = postmaster.map_or("not running".to_owned(), |server| format!("running, pid {}", server.pid()));
            let folder = binaries.folder.display();
            check("database", CheckStatus::Ok, format!("embedded PostgreSQL {} in {folder}, {state}", binaries.major))
        }
        Err(error) => check("database", CheckStatus::Failed, error.to_string()),
    }
}

fn data_dir(dir: &Path) -> Check {
    let shown = dir.display();
    let Ok(meta) = fs::metadata(dir) else {
        return check("data", CheckStatus::Ok, format!("{shown} does not exist yet"));
    };
    if !meta.is_dir() {
        return check("data", CheckStatus::Failed, format!("{shown} is not a folder"));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return check("data", CheckStatus::Failed, format!("{shown} belongs to uid {}", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return check("data", CheckStatus::Warning, format!("others may write to {shown}; chmod go-w it"));
    }
    if let Some(closed) = closed_to_others(dir) {
        let text =
            format!("{} is closed to the users of sessions (mode {:o}): no session can start", closed.0, closed.1);
        return check("data", CheckStatus::Failed, format!("{text}; chmod a+x it, or set data_dir to another place"));
    }
    check("data", CheckStatus::Ok, shown.to_string())
}

/// As root, sessions run as other users, who have to pass through every folder on the way.
fn closed_to_others(dir: &Path) -> Option<(String, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let dir = dir.canonicalize().ok()?;
    let modes =
        dir.ancestors().filter_map(|dir| Some((dir.display().to_string(), fs::metadata(dir).ok()?.mode() & 0o7777)));
    modes.into_iter().find(|(_, mode)| mode & 0o001 == 0)
}

/// The same check as the server's: below the low-water mark it starts nothing.
fn space(config: &ServerConfig) -> Check {
    let dir = config.data_dir.as_path();
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let limits = &config.limits;
    match free_space(existing, limits.disk_reserve.get(), limits.disk_low_water.get()) {
        Some((free, low_water)) => {
            let (mib, shown) = (free >> 20, existing.display());
            if free < low_water {
                let low = low_water >> 20;
                let text = format!(
                    "the disk is full: {mib} MiB free in {shown}; below {low} MiB (disk_low_water) nothing is started"
                );
                return check("space", CheckStatus::Failed, text);
            }
            let verdict = if free < LITTLE_SPACE { CheckStatus::Warning } else { CheckStatus::Ok };
            check("space", verdict, format!("{mib} MiB free in {shown}"))
        }
        None => check("space", CheckStatus::Failed, format!("{}: the file system does not answer", existing.display())),
    }
}

/// A folder is one server's own. Whether a bucket can be used is asked.
async fn snapshots(config: &ServerConfig) -> Check {
    let Some(place) = config.snapshots.place(&config.data_dir) else {
        let text = "not stored (snapshot_store = \"none\"): turns can be looked at only while their workspace exists";
        return check("snapshots", CheckStatus::Warning, text);
    };
    if !place.is_shared() {
        let text = format!("in {place}, for this server alone: several servers on one database need an s3:// place");
        return check("snapshots", CheckStatus::Ok, text);
    }
    match place.check().await {
        Ok(()) => check("snapshots", CheckStatus::Ok, format!("in {place}")),
        Err(error) => check("snapshots", CheckStatus::Failed, format!("{place}: {error}")),
    }
}

fn port(config: &ServerConfig) -> Check {
    let listen = config.listen;
    let ours = instance::running(&config.data_dir).unwrap_or_default();
    if let Some(own) = ours.iter().find(|instance| instance.url == format!("http://{listen}")) {
        return check("port", CheckStatus::Ok, format!("{listen} is ours (pid {})", own.pid));
    }
    match TcpListener::bind(listen) {
        Ok(_) => check("port", CheckStatus::Ok, format!("{listen} is free")),
        Err(error) => {
            let holder =
                port_holder(listen.port()).map_or_else(|| error.to_string(), |holder| format!("taken by {holder}"));
            check("port", CheckStatus::Failed, format!("{listen}: {holder}"))
        }
    }
}

/// In a container the user namespace may lack the uids that sessions should run under.
fn session_uids(config: &ServerConfig) -> Check {
    let base = config.session_uid_base;
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let last = u64::from(base) + u64::from(SESSION_UIDS) - 1;
    let covers = |line: &str| {
        let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        matches!(fields[..], [first, _, count] if first <= u64::from(base) && last < first.saturating_add(count))
    };
    if !map.is_empty() && !map.lines().any(covers) {
        let text = format!("this container has no uids {base} to {last}: set session_uid_base");
        return check("uids", CheckStatus::Failed, text);
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = accounts.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let uid: u64 = rest.split(':').nth(1)?.parse().ok()?;
        (u64::from(base)..=last).contains(&uid).then(|| format!("{name} (uid {uid})"))
    });
    if let Some(account) = account {
        let text = format!(
            "the uids of sessions, {base} to {last}, have an account among them, {account}: set session_uid_base"
        );
        return check("uids", CheckStatus::Warning, text);
    }
    match probe_user_ids(&config.runner_binary, base) {
        Ok(()) => {
            let text = format!("each agent, and each runner, has its own uid, from {base} to {last}");
            check("uids", CheckStatus::Ok, text)
        }
        // Reported by a check of its own.
        Err(_) if !config.runner_binary.exists() => {
            check("uids", CheckStatus::Ok, format!("sessions have their own uids, from {base} to {last}"))
        }
        Err(reason) => {
            let text =
                format!("sessions have their own uids, from {base} up, but an agent shares its runner's: {reason}");
            check("uids", CheckStatus::Warning, text)
        }
    }
}
