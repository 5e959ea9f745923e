//! The embedded PostgreSQL, with the real binaries and real processes.

#![allow(clippy::unwrap_used, reason = "a test ends where its machine fails it")]

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use ambient::postgres::{EmbeddedPostgres, PostgresError, RunningPostgres};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};

/// A data directory; whatever server is in it is stopped at the end, also after a failure.
struct DataDir(tempfile::TempDir);

impl DataDir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // As root, PostgreSQL runs under another uid and has to get in.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn postgres(&self) -> EmbeddedPostgres {
        EmbeddedPostgres::new(self.path()).unwrap()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Some(postmaster) = self.postgres().postmaster() {
            let _ = kill_process(Pid::from_raw(postmaster.pid()).unwrap(), Signal::QUIT);
            wait_until(|| self.postgres().postmaster().is_none());
        }
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn connect(server: &RunningPostgres) -> PgConnection {
    PgConnection::connect(server.url.expose()).await.unwrap()
}

async fn setting(connection: &mut PgConnection, name: &str) -> String {
    let row = sqlx::query("select current_setting($1)").bind(name).fetch_one(connection).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_server_is_started_adopted_and_stopped() {
    let dir = DataDir::new();
    let started = dir.postgres().start().await.unwrap();
    assert!(!started.adopted);
    let adopted = dir.postgres().start().await.unwrap();
    assert!(adopted.adopted);
    assert_eq!((adopted.postmaster, &adopted.url), (started.postmaster, &started.url));

    let mut connection = connect(&adopted).await;
    assert_eq!(setting(&mut connection, "listen_addresses").await, "");
    assert_eq!(setting(&mut connection, "fsync").await, "on");
    let row = sqlx::query("select current_user::text, usesuper from pg_user where usename = current_user");
    let row = row.fetch_one(&mut connection).await.unwrap();
    assert_eq!((row.get::<String, _>(0).as_str(), row.get::<bool, _>(1)), ("ambient", false));
    sqlx::raw_sql("create table t (i int)").execute(&mut connection).await.unwrap();

    let password = dir.path().join("postgres/password");
    assert_eq!(fs::metadata(&password).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(password).unwrap();
    let arguments = fs::read(format!("/proc/{}/cmdline", adopted.postmaster.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(&secret));

    assert!(dir.postgres().stop().await.unwrap());
    assert!(!dir.postgres().stop().await.unwrap());
    assert_eq!(dir.postgres().postmaster(), None);
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let dir = DataDir::new();
    let server = dir.postgres().start().await.unwrap();
    let wrong = PgConnectOptions::from_str(server.url.expose()).unwrap().password("wrong");
    let error = PgConnection::connect_with(&wrong).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "28P01");

    // A start with a password that is not the cluster's says so at once; one without any does not invent another.
    fs::write(dir.path().join("postgres/password"), "wrong").unwrap();
    assert!(matches!(dir.postgres().start().await, Err(PostgresError::Refused(_))));
    fs::remove_file(dir.path().join("postgres/password")).unwrap();
    assert!(matches!(dir.postgres().start().await, Err(PostgresError::PasswordLost { .. })));
}

#[tokio::test]
async fn what_was_committed_survives_kill_9_of_the_server() {
    let dir = DataDir::new();
    let server = dir.postgres().start().await.unwrap();
    let mut connection = connect(&server).await;
    sqlx::raw_sql("create table t (i int); insert into t values (1)").execute(&mut connection).await.unwrap();
    // A backend that computes does not notice the death of its postmaster, and holds the shared memory on.
    let mut busy = connect(&server).await;
    let computing = tokio::spawn(async move {
        sqlx::raw_sql("select count(*) from generate_series(1, 1000000000)").execute(&mut busy).await
    });
    let sql = "select 1 from pg_stat_activity where state = 'active' and query like 'select count%'";
    let deadline = Instant::now() + Duration::from_secs(30);
    while sqlx::query(sql).fetch_optional(&mut connection).await.unwrap().is_none() {
        assert!(Instant::now() < deadline);
    }
    kill_process(Pid::from_raw(server.postmaster.pid()).unwrap(), Signal::KILL).unwrap();
    wait_until(|| dir.postgres().postmaster().is_none());

    let begin = Instant::now();
    let again = dir.postgres().start().await.unwrap();
    assert!(!again.adopted && again.postmaster != server.postmaster);
    assert!(begin.elapsed() < Duration::from_secs(60), "the computing backend was waited for, not ended");
    let rows = sqlx::query("select i from t").fetch_all(&mut connect(&again).await).await.unwrap();
    assert_eq!(rows.len(), 1);
    let _ = computing.await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_does_not_prevent_a_start() {
    let dir = DataDir::new();
    let server = dir.postgres().start().await.unwrap();
    let file = dir.path().join("postgres/data/postmaster.pid");
    let socket_lock = dir.path().join("postgres/run/.s.PGSQL.5432.lock");
    let [text, lock_text] = [&file, &socket_lock].map(|file| fs::read_to_string(file).unwrap());
    assert!(dir.postgres().stop().await.unwrap());

    // The pid lives on as a process that is not PostgreSQL, then as none at all.
    let owner = fs::metadata(dir.path().join("postgres/data")).unwrap();
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let stale = |text: &str| text.replacen(&server.postmaster.pid().to_string(), &other.id().to_string(), 1);
    let stale = [(&file, stale(&text)), (&socket_lock, stale(&lock_text))];
    let start_over_stale_file = async || {
        for (file, text) in &stale {
            fs::write(file, text).unwrap();
            chown_like(file, &owner);
        }
        assert_eq!(dir.postgres().postmaster(), None);
        assert!(!dir.postgres().start().await.unwrap().adopted);
        assert!(dir.postgres().stop().await.unwrap());
    };
    start_over_stale_file().await;
    other.kill().unwrap();
    other.wait().unwrap();
    start_over_stale_file().await;

    // Power cuts leave files without content.
    for blank in ["", "\0\0\0\0"] {
        for file in [&file, &socket_lock] {
            fs::write(file, blank).unwrap();
            chown_like(file, &owner);
            assert!(!dir.postgres().start().await.unwrap().adopted);
            assert!(dir.postgres().stop().await.unwrap());
        }
    }
}

fn chown_like(file: &Path, owner: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, chown};
    chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[tokio::test]
async fn an_interrupted_initdb_is_done_again() {
    let dir = DataDir::new();
    let remains = dir.path().join("postgres/data.new");
    fs::create_dir_all(&remains).unwrap();
    fs::write(remains.join("PG_VERSION"), "15\n").unwrap();
    assert!(dir.postgres().start().await.is_ok());
    assert!(!remains.exists());
}

#[tokio::test]
async fn two_starts_at_once_get_one_server() {
    let dir = DataDir::new();
    let (one, two) = (dir.postgres(), dir.postgres());
    let (one, two) = tokio::join!(one.start(), two.start());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.postmaster, two.postmaster);
    assert_ne!(one.adopted, two.adopted);
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_the_end_of_its_log() {
    let dir = DataDir::new();
    let _ = dir.postgres().start().await.unwrap();
    assert!(dir.postgres().stop().await.unwrap());
    let conf = dir.path().join("postgres/data/postgresql.conf");
    fs::write(&conf, "no_such_setting = 1\n").unwrap();
    let error = dir.postgres().start().await.unwrap_err().to_string();
    assert!(error.contains("no_such_setting") && error.contains("server.log"), "{error}");
}

#[test]
fn a_data_dir_too_long_for_a_socket_is_refused() {
    let dir = Path::new("/tmp").join("x".repeat(100));
    let error = EmbeddedPostgres::new(&dir).unwrap_err().to_string();
    assert!(error.contains("data_dir") && error.contains("bytes"), "{error}");
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_data_dir_out_of_reach_of_its_account_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // only root starts PostgreSQL under another account
    }
    let dir = DataDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = EmbeddedPostgres::new(&dir.path().join("data")).unwrap().start().await.unwrap_err().to_string();
    assert!(error.contains("chmod o+x") && error.contains(dir.path().to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn as_root_the_account_owns_the_cluster_and_nothing_around_it() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        return; // only root starts PostgreSQL under another account
    }
    let dir = DataDir::new();
    let owner = |path: &str| fs::metadata(dir.path().join(path)).unwrap().uid();
    let _ = dir.postgres().start().await.unwrap();
    // Else the account could put a link where root is about to write or to give a file away.
    for ours in [".", "postgres", "postgres/password", "postgres/server.log", "postgres/lock"] {
        assert_eq!(owner(ours), 0, "{ours}");
    }
    assert!(owner("postgres/data") != 0 && owner("postgres/run") == owner("postgres/data"));
    assert!(!dir.path().join("postgres/initdb-password").exists());

    // A cluster keeps its account, also when a better one has come to the machine.
    assert!(dir.postgres().stop().await.unwrap());
    let nobody = 65_534;
    let files = Command::new("chown").args(["-R", "65534:65534"]).arg(dir.path().join("postgres/data")).status();
    assert!(files.unwrap().success());
    chown(dir.path().join("postgres/run"), Some(nobody), Some(nobody)).unwrap();
    let server = dir.postgres().start().await.unwrap();
    let status = fs::metadata(format!("/proc/{}", server.postmaster.pid())).unwrap();
    assert_eq!(status.uid(), nobody);
}

const CHILD_DIR: &str = "AMBIENT_TEST_CHILD_DATA_DIR";

/// Not a test of its own: what other tests run under another uid.
#[tokio::test]
#[ignore = "started by other tests"]
async fn child_starts_and_stops_a_server() {
    let dir = env::var(CHILD_DIR).unwrap();
    match EmbeddedPostgres::new(Path::new(&dir)) {
        Ok(postgres) => {
            assert!(!postgres.start().await.unwrap().adopted);
            assert!(postgres.start().await.unwrap().adopted);
            assert!(postgres.stop().await.unwrap());
            println!("child: done");
        }
        Err(error) => println!("child: {error}"),
    }
}

fn run_child_as(uid: u32) -> String {
    run_child(uid, "022", "")
}

/// Runs it under a uid and a umask, with its data directory at `place` in a directory of its own.
fn run_child(uid: u32, umask: &str, place: &str) -> String {
    let dir = DataDir::new();
    let (program, own) = (dir.path().join("test"), dir.path().join("own"));
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(uid), Some(uid)).unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("umask {umask} && exec \"$@\"")).arg("sh").arg(program);
    command.args(["--exact", "child_starts_and_stops_a_server", "--ignored", "--nocapture"]);
    command.env(CHILD_DIR, own.join(place)).env("TMPDIR", "/nonexistent").env("LC_ALL", "xx_YY").env_remove("HOME");
    command.current_dir("/").stdin(Stdio::null()).uid(uid).gid(uid);
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn neither_umask_nor_an_odd_path_nor_a_poor_environment_keeps_it_from_starting() {
    let us = rustix::process::geteuid().as_raw();
    let users = if us == 0 { vec![0, 65_534] } else { vec![us] };
    for uid in users {
        for umask in ["027", "077", "000"] {
            let said = run_child(uid, umask, "a/b");
            assert!(said.contains("child: done"), "uid {uid}, umask {umask}: {said}");
        }
        let said = run_child(uid, "027", "o'd \"d, $x % \u{e4}");
        assert!(said.contains("child: done"), "uid {uid}: {said}");
    }
}

#[test]
fn an_ordinary_user_runs_it_too_and_a_nameless_uid_is_told_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        return; // every other test has shown it already
    }
    let ordinary = run_child_as(65_534);
    assert!(ordinary.contains("child: done"), "{ordinary}");
    let nameless = run_child_as(54_321);
    assert!(nameless.contains("54321") && nameless.contains("AMBIENT_DATABASE_URL"), "{nameless}");
}
