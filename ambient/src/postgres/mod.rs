//! The embedded PostgreSQL of `ambient up`: the distribution's own `initdb` and `postgres`, started, adopted, kept alive, stopped.
//!
//! * It outlives us. A server that survived our death is adopted; one that died is restarted and recovers.
//! * It listens only on a Unix socket, in a folder that only its account and root can enter, and requires a password.
//! * As root it runs under another account, which owns the cluster and its socket folder and nothing around them.
//! * Durability is never traded for speed: what was committed survives a power cut.

mod account;
mod binaries;
mod cluster;
mod error;
mod keeper;
mod postmaster;

use std::{
    fs::{File, OpenOptions},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};
use url::form_urlencoded::byte_serialize;

use self::{account::Account, cluster::Cluster};
pub use self::{binaries::Binaries, error::PostgresError, keeper::Keeper, postmaster::Postmaster};
use crate::{config::DatabaseUrl, data_dir};

/// Recovery after a crash replays at most `max_wal_size` of log; a slow disk needs time for that.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Name of the database and of the role that owns it.
const DATABASE: &str = "ambient";

/// The embedded PostgreSQL of one data directory, running or not.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    data_dir: PathBuf,
    cluster: Cluster,
    account: Account,
}

/// A server that accepts connections.
#[derive(Debug)]
pub struct RunningPostgres {
    /// How to connect; contains the password.
    pub url: DatabaseUrl,
    /// The server.
    pub postmaster: Postmaster,
    /// Whether it was already running.
    pub adopted: bool,
}

impl EmbeddedPostgres {
    /// The server with its files under `data_dir`. Touches nothing yet.
    ///
    /// # Errors
    /// When it could not run there, or not for this user.
    pub fn new(data_dir: &Path) -> Result<Self, PostgresError> {
        let cluster = Cluster::new(data_dir.join("postgres"))?;
        Ok(Self { account: Account::for_postgres(&cluster.data())?, cluster, data_dir: data_dir.to_owned() })
    }

    /// The binaries a start would use.
    ///
    /// # Errors
    /// When none are suitable.
    pub fn binaries(&self) -> Result<Binaries, PostgresError> {
        Binaries::find(&self.cluster.data(), &self.account)
    }

    /// The server, if it is alive.
    #[must_use]
    pub fn postmaster(&self) -> Option<Postmaster> {
        Postmaster::of(&self.cluster.data())
    }

    /// Where the server writes its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.cluster.log()
    }

    /// Adopts the live server, or starts one, creating the cluster on first use; returns once it accepts
    /// connections and the database exists.
    ///
    /// # Errors
    /// [`PostgresError`], with the end of the server's log if that says more.
    pub async fn start(&self) -> Result<RunningPostgres, PostgresError> {
        self.make_folders()?;
        let _lock = self.lock().await?;
        let password = self.cluster.password()?;
        let binaries = self.binaries()?;
        self.cluster.initialise(&binaries, &self.account, &password).await?;
        let admin = PgConnectOptions::from_str(self.url("postgres", &password)?.expose())?;
        let (postmaster, adopted) = self.adopt_or_launch(&binaries, &admin).await?;
        create_database(&admin, &password).await?;
        Ok(RunningPostgres { url: self.url(DATABASE, &password)?, postmaster, adopted })
    }

    /// Stops the server and waits for its end; `false` if none was running.
    ///
    /// # Errors
    /// When it cannot be signalled or does not end.
    pub async fn stop(&self) -> Result<bool, PostgresError> {
        if !self.cluster.data().exists() {
            return Ok(false);
        }
        let _lock = self.lock().await?;
        let Some(postmaster) = self.postmaster() else { return Ok(false) };
        postmaster.stop_fast().map_err(|error| PostgresError::file(&self.cluster.data(), error))?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.postmaster().is_some() {
            if Instant::now() >= deadline {
                let (pid, seconds) = (postmaster.pid(), STOP_PATIENCE.as_secs());
                return Err(PostgresError::NotStopped { pid, seconds, log: self.log() });
            }
            sleep(POLL).await;
        }
        Ok(true)
    }

    async fn adopt_or_launch(
        &self,
        binaries: &Binaries,
        admin: &PgConnectOptions,
    ) -> Result<(Postmaster, bool), PostgresError> {
        let data = self.cluster.data();
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            while postmaster::end_orphans(&data) {
                if Instant::now() >= deadline {
                    return Err(self.not_ready("backends of a killed server do not end", 0));
                }
                sleep(POLL).await;
            }
            let (mut child, begin) = if self.postmaster().is_some() {
                (None, u64::MAX)
            } else {
                let cleared = postmaster::clear_stale_files(&data, &self.cluster.socket_folder());
                cleared.map_err(|error| PostgresError::file(&data, error))?;
                let (child, begin) = self.cluster.spawn(binaries, &self.account)?;
                (Some(child), begin)
            };
            let ended = self.wait_until_ready(&mut child, admin, deadline, begin).await?;
            match (ended, self.postmaster()) {
                (None, Some(postmaster)) => return Ok((postmaster, child.is_none())),
                (Some(status), _) => {
                    return Err(PostgresError::Ended { status, log: self.log(), tail: self.cluster.log_tail(begin) });
                }
                // The server we meant to adopt is gone: try again.
                (None, None) if Instant::now() >= deadline => {
                    return Err(self.not_ready("it keeps ending", begin));
                }
                (None, None) => sleep(POLL).await,
            }
        }
    }

    /// Waits until the server accepts connections (`None`) or our child has ended (its status). Also `None` if a
    /// server that is not our child went away; the caller checks.
    async fn wait_until_ready(
        &self,
        child: &mut Option<Child>,
        admin: &PgConnectOptions,
        deadline: Instant,
        begin: u64,
    ) -> Result<Option<String>, PostgresError> {
        loop {
            let reason = match timeout(CONNECT_PATIENCE, PgConnection::connect_with(admin)).await {
                Ok(Ok(connection)) => {
                    connection.close().await?;
                    return Ok(None);
                }
                // 28P01: wrong password. Waiting will not make it right.
                Ok(Err(error)) if code_of(&error).as_deref() == Some("28P01") => return Err(error.into()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            match child.as_mut().map(Child::try_wait) {
                Some(Ok(Some(status))) => return Ok(Some(status.to_string())),
                None if self.postmaster().is_none() => return Ok(None),
                _ if Instant::now() >= deadline => return Err(self.not_ready(&reason, begin)),
                _ => sleep(POLL).await,
            }
        }
    }

    fn not_ready(&self, reason: &str, begin: u64) -> PostgresError {
        let (log, tail) = (self.log(), self.cluster.log_tail(begin));
        PostgresError::NotReady { seconds: START_PATIENCE.as_secs(), reason: reason.to_owned(), log, tail }
    }

    /// URL for the role whose database has its name. All parts are given, so that no `PG*` variable fills any in.
    fn url(&self, role: &str, password: &str) -> Result<DatabaseUrl, PostgresError> {
        let folder = self.cluster.socket_folder();
        let folder = byte_serialize(folder.as_os_str().as_bytes()).collect::<String>();
        let text = format!("postgresql://{role}:{password}@localhost:5432/{role}?host={folder}&sslmode=disable");
        DatabaseUrl::parse(&text).map_err(|error| sqlx::Error::Configuration(error.into()).into())
    }

    fn make_folders(&self) -> Result<(), PostgresError> {
        let dir = &self.data_dir;
        data_dir::prepare(dir).map_err(|error| PostgresError::file(dir, error))?;
        self.cluster.make_root(&self.account)?;
        match self.account.barrier(&self.cluster.data()) {
            Some(dir) => Err(PostgresError::Barrier { account: self.account.name.clone(), dir }),
            None => Ok(()),
        }
    }

    async fn lock(&self) -> Result<File, PostgresError> {
        let path = self.cluster.lock_file();
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| PostgresError::file(&path, error))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(PostgresError::file(&path, error.into()));
            }
            if Instant::now() >= deadline {
                return Err(PostgresError::Busy { seconds: LOCK_PATIENCE.as_secs(), lock: path });
            }
            sleep(POLL).await;
        }
        Ok(file)
    }
}

/// Creates role and database if they are missing: a start may have been interrupted between the two. The role is not a
/// superuser, so that a mistake in one of our statements stays inside its database.
async fn create_database(admin: &PgConnectOptions, password: &str) -> Result<(), PostgresError> {
    let mut server = PgConnection::connect_with(admin).await?;
    let role = sqlx::query("select 1 from pg_roles where rolname = $1").bind(DATABASE);
    if role.fetch_optional(&mut server).await?.is_none() {
        // The password is hexadecimal, and DDL takes no parameters.
        let sql = format!("create role {DATABASE} login password '{password}'");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut server).await?;
    }
    let database = sqlx::query("select 1 from pg_database where datname = $1").bind(DATABASE);
    if database.fetch_optional(&mut server).await?.is_none() {
        let sql = format!("create database {DATABASE} owner {DATABASE}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut server).await?;
    }
    server.close().await?;
    Ok(())
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
