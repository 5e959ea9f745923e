//! A database per test, and the [`bad_input`] that more than one suite sends.
//!
//! `AMBIENT_TEST_DATABASE_URL` names a PostgreSQL server whose user may create databases; when it is not set,
//! `scripts/test-postgres start` is run, which starts (or adopts) one. Whole-system tests live in `tests/`.

#![allow(clippy::unwrap_used, reason = "a test that cannot get its database cannot say anything")]

pub mod bad_input;
mod own_postgres;
mod template;

use std::{path::Path, process::Command, str::FromStr, sync::OnceLock};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing_subscriber::filter::LevelFilter;

pub use own_postgres::OwnPostgres;

fn server_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        if let Ok(url) = std::env::var("AMBIENT_TEST_DATABASE_URL") {
            return url;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-postgres");
        let out = Command::new(script).arg("start").output().unwrap();
        assert!(out.status.success(), "scripts/test-postgres start failed: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    })
}

/// What a failing test's components warned of stands beside its failure.
fn show_warnings() {
    let warnings = tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_ansi(false).with_test_writer();
    // Another test of the program was first.
    let _ = warnings.try_init();
}

async fn connected(url: &str) -> (PgConnection, PgConnectOptions) {
    let options = PgConnectOptions::from_str(url).unwrap();
    (PgConnection::connect_with(&options).await.unwrap(), options)
}

/// A database of a test's own, dropped (with every connection to it) when this value is dropped.
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
}

impl TestDatabase {
    /// Creates one with both schemas up to date, and nothing in them: a copy of the server's template.
    ///
    /// # Panics
    /// When no server can be reached: a test that needs a database cannot say anything without one.
    pub async fn new() -> Self {
        let (mut server, options) = connected(server_url()).await;
        let template = template::ready(&mut server, &options).await;
        Self::create(server, options, &format!(" template {template}")).await
    }

    /// Creates an empty one, for tests of what brings it up to date.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub async fn empty() -> Self {
        Self::empty_on(server_url()).await
    }

    /// Creates an empty one on the server of `url`, whose user may create databases.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn empty_on(url: &str) -> Self {
        let (server, options) = connected(url).await;
        Self::create(server, options, "").await
    }

    async fn create(mut server: PgConnection, options: PgConnectOptions, template: &str) -> Self {
        show_warnings();
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}{template}"))).execute(&mut server).await.unwrap();
        server.close().await.unwrap();
        Self { options: options.database(&name), name }
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// URL of the database, for a child process or a pool of the test's own.
    #[must_use]
    pub fn url(&self) -> String {
        self.options.to_url_lossy().to_string()
    }

    /// A pool on the database.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(16).connect_with(self.options.clone()).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let options = self.options.clone().database("postgres");
        let sql = format!("drop database if exists {} with (force)", self.name);
        // A test's runtime may be current-thread and is about to end: clean up on a thread of our own.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut server = PgConnection::connect_with(&options).await.map_err(std::io::Error::other)?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut server).await.map_err(std::io::Error::other)?;
                Ok::<(), std::io::Error>(())
            })
        });
        // A database that stays behind goes with the throw-away server.
        let _ = cleaner.join();
    }
}
