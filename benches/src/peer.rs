//! Commits of rows by pgbench; by a loop of our own where there is no pgbench.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::process::Command;

use crate::{Failure, domain::TEXT, interleave::per_second};

/// How long pgbench may take to connect and to end, beside what it measures.
const SLACK: Duration = Duration::from_secs(20);

/// Who commits.
pub(crate) struct Peer {
    url: String,
    pgbench: Option<PathBuf>,
}

impl Peer {
    /// Makes the peer's table.
    pub(crate) async fn new(url: &str, pool: &PgPool) -> Result<Self, Failure> {
        let sql =
            "create table public.peer (id bigint generated always as identity primary key, client integer not null,
                       at timestamptz not null default now(), data text not null)";
        sqlx::query(sql).execute(pool).await?;
        Ok(Self { url: url.to_owned(), pgbench: find_pgbench() })
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.pgbench.is_some() { "pgbench" } else { "a loop over sqlx (there is no pgbench)" }
    }

    /// Rows a second of `clients` that insert `rows` of them a commit.
    pub(crate) async fn rate(&self, clients: u16, rows: u16, duration: Duration) -> Result<f64, Failure> {
        let commits = match &self.pgbench {
            Some(pgbench) => {
                let script = insert(":client_id", rows) + ";\n";
                Bench { pgbench, url: &self.url, script: &script, options: "" }.run(clients, duration).await?
            }
            None => loop_of_inserts(&self.url, clients, rows, duration).await?,
        };
        Ok(commits * f64::from(rows))
    }
}

fn insert(client: &str, rows: u16) -> String {
    match rows {
        1 => format!("insert into public.peer (client, data) values ({client}, '{TEXT}')"),
        n => format!("insert into public.peer (client, data) select {client}, '{TEXT}' from generate_series(1, {n})"),
    }
}

/// Where pgbench is, if it is.
pub(crate) fn find_pgbench() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    std::env::split_paths(&path).chain(debian).map(|dir| dir.join("pgbench")).find(|file| file.is_file())
}

/// A script for pgbench.
pub(crate) struct Bench<'a> {
    pub(crate) pgbench: &'a Path,
    pub(crate) url: &'a str,
    pub(crate) script: &'a str,
    /// Of the sessions, as `PGOPTIONS` has them.
    pub(crate) options: &'a str,
}

impl Bench<'_> {
    /// Transactions a second.
    pub(crate) async fn run(&self, clients: u16, duration: Duration) -> Result<f64, Failure> {
        let script = tempfile::NamedTempFile::new()?;
        std::fs::write(script.path(), self.script)?;
        let mut command = Command::new(self.pgbench);
        let jobs = clients.min(2);
        command.args(["--no-vacuum", "--protocol=prepared", &format!("--jobs={jobs}"), &format!("--client={clients}")]);
        command.arg(format!("--time={}", duration.as_secs())).arg("--file").arg(script.path());
        connect_to(&mut command, self.url)?;
        command.env("PGOPTIONS", self.options).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(duration + SLACK, command.output()).await??;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.ok_or_else(|| format!("pgbench: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// The driver's URLs have parameters that libpq does not know.
fn connect_to(command: &mut Command, url: &str) -> Result<(), Failure> {
    let options = PgConnectOptions::from_str(url)?;
    let host = options.get_socket().map_or_else(|| options.get_host().into(), |socket| socket.as_os_str().to_owned());
    command.env("PGHOST", host).env("PGPORT", options.get_port().to_string()).env("PGUSER", options.get_username());
    if let Some(password) = options.to_url_lossy().password() {
        command.env("PGPASSWORD", password);
    }
    command.arg(options.get_database().ok_or("the URL names no database")?);
    Ok(())
}

async fn loop_of_inserts(url: &str, clients: u16, rows: u16, duration: Duration) -> Result<f64, Failure> {
    let pool = PgPoolOptions::new().max_connections(u32::from(clients)).connect(url).await?;
    let began = Instant::now();
    let client = |client: u16| {
        let (pool, sql) = (pool.clone(), insert(&client.to_string(), rows));
        async move {
            let mut connection = pool.acquire().await?;
            let mut commits = 0_u64;
            while began.elapsed() < duration {
                sqlx::query(sqlx::AssertSqlSafe(sql.as_str())).execute(&mut *connection).await?;
                commits += 1;
            }
            Ok::<u64, sqlx::Error>(commits)
        }
    };
    let commits: u64 = futures::future::try_join_all((0..clients).map(client)).await?.into_iter().sum();
    let rate = per_second(commits, began.elapsed());
    pool.close().await;
    Ok(rate)
}
