//! A PostgreSQL server of one test's own, which it may kill, configure and start again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::TestDatabase;

/// Longest wait for the server to begin or end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server; ended and removed when dropped.
pub struct OwnPostgres {
    dir: tempfile::TempDir,
    settings: String,
}

impl OwnPostgres {
    /// Starts one with further command-line settings, such as `-c ssl=on`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(settings: &str) -> Self {
        // A short path: a Unix socket's is cut at 108 bytes.
        let dir = tempfile::Builder::new().prefix("amb-pg").tempdir_in("/tmp").unwrap();
        let server = Self { dir, settings: settings.to_owned() };
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
        format!("postgresql://ambient@localhost/postgres?host={}", self.dir().display().to_string().replace('/', "%2F"))
    }

    /// A fresh database on it.
    pub async fn database(&self) -> TestDatabase {
        TestDatabase::on(&self.url()).await
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
        for left in ["data/postmaster.pid", ".s.PGSQL.5432.lock", ".s.PGSQL.5432"] {
            let _ = fs::remove_file(self.dir().join(left));
        }
    }

    /// Runs statements as its superuser, in a database of its own choice.
    pub async fn execute(&self, options: PgConnectOptions, sql: &str) {
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
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
