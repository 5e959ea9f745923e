//! A PostgreSQL server for a single test, which may kill, configure and restart it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use crate::TestDatabase;

/// Longest wait for the server to begin or end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server; ended and removed when dropped.
pub struct OwnPostgres {
    dir: tempfile::TempDir,
    settings: String,
    port: u16,
}

impl OwnPostgres {
    /// Starts one that listens on its Unix socket.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        Self::with("", 5432)
    }

    /// Starts one that listens on a port of this machine too.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn on_tcp() -> Self {
        // Free at present; the kernel gives it to nobody else soon.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::with(&format!("-c listen_addresses=127.0.0.1 -c port={port}"), port)
    }

    fn with(settings: &str, port: u16) -> Self {
        // A short path: a Unix socket's is cut at 108 bytes.
        let dir = tempfile::Builder::new().prefix("amb-pg").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        // As in production, which the server that all tests share is not in this.
        let server = Self { dir, settings: format!("-c fsync=on {settings}"), port };
        server.start_again();
        server
    }

    /// Starts it after [`Self::kill_9`].
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_again(&self) {
        let (ok, said) = self.script("start");
        assert!(ok, "scripts/test-postgres start failed: {said}");
    }

    /// Where its data directory, its socket and its log are.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("pg")
    }

    /// URL of its first database, over its Unix socket, for its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        let folder = self.dir().display().to_string().replace('/', "%2F");
        format!("postgresql://ambient@localhost:{}/postgres?host={folder}", self.port)
    }

    /// Where it listens, when it listens on TCP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts a file of the server's own into its data directory.
    ///
    /// # Panics
    /// When it cannot.
    pub fn give(&self, name: &str, content: &[u8]) {
        let path = self.dir().join("data").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let owner = fs::metadata(self.dir().join("data")).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// A fresh, empty database on it.
    pub async fn database(&self) -> TestDatabase {
        TestDatabase::empty_on(&self.url()).await
    }

    /// Kills the postmaster, and waits until its backends are gone too.
    ///
    /// # Panics
    /// When they stay.
    pub fn kill_9(&self) {
        let pid = fs::read_to_string(self.dir().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().trim().to_owned();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        while self.lives() {
            assert!(Instant::now() < deadline, "backends of a killed server live on");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Where nobody collects the dead process, its number looks alive to PostgreSQL's programs.
        let socket = format!(".s.PGSQL.{}", self.port);
        for left in ["data/postmaster.pid", &format!("{socket}.lock"), &socket] {
            let _ = fs::remove_file(self.dir().join(left));
        }
    }

    /// Runs statements as its superuser, one after the other.
    ///
    /// # Panics
    /// When one fails.
    pub async fn execute(&self, database: &str, statements: &[&str]) {
        let options = PgConnectOptions::from_str(&self.url()).unwrap().database(database);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        for sql in statements {
            sqlx::raw_sql(AssertSqlSafe((*sql).to_owned())).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    }

    /// Whether any process works in its data directory.
    fn lives(&self) -> bool {
        let data = self.dir().join("data");
        let works_there = |entry: fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data);
        fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(works_there)
    }

    fn script(&self, what: &str) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-postgres");
        let mut command = Command::new(script);
        command.arg(what).stdin(Stdio::null());
        command.env("AMBIENT_TEST_PG_DIR", self.dir()).env("AMBIENT_TEST_PG_SETTINGS", &self.settings);
        let out = command.output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        let _ = self.script("stop");
    }
}
