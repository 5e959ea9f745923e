//! The commands of a server, as processes.

#![allow(clippy::unwrap_used, reason = "a test ends where its machine fails it")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use ambient::postgres::EmbeddedPostgres;
use rustix::process::{Pid, Signal, kill_process};

/// A data directory; what runs on it is ended with it, also after a failure.
struct DataDir(tempfile::TempDir);

impl DataDir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ambient"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AMBIENT_")) {
            command.env_remove(name);
        }
        command.args(arguments).env("AMBIENT_DATA_DIR", self.0.path()).env("AMBIENT_SERVER_CONFIG", "/dev/null");
        // `up` makes a context of whoever runs it.
        command.env("AMBIENT_CONFIG", self.0.path().join("config.toml"));
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts `up` and waits for its URL.
    fn up(&self, listen: &str) -> (Child, String) {
        let log = fs::File::create(self.0.path().join("up.log")).unwrap();
        let mut child = self.command(&["up", "--listen", listen]).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "{}", self.log());
        (child, url.trim().to_owned())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.path().join("up.log")).unwrap()
    }

    fn postgres_pid(&self) -> Option<i32> {
        EmbeddedPostgres::new(self.0.path()).unwrap().postmaster().map(ambient::postgres::Postmaster::pid)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kill_9(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn help_shows_the_settings_that_a_command_uses_and_takes_the_others() {
    let data = DataDir::new();
    for (command, shown) in [("down", 2), ("status", 2), ("migrate", 4), ("doctor", 7)] {
        let help = String::from_utf8(data.run(&[command, "--help"]).stdout).unwrap();
        let (own, _) = help.split_once("Global options").unwrap();
        let flags = own.lines().filter(|line| line.trim_start().starts_with("--")).count();
        assert_eq!(flags, shown, "{help}");
        assert!(own.contains("--data-dir"), "{help}");
    }
    let help = |flag| String::from_utf8(data.run(&["config", flag]).stdout).unwrap();
    assert!(!help("-h").contains("--permits") && help("--help").contains("--permits"));
    let status = data.run(&["status", "--permits", "7"]);
    assert_eq!(status.status.code(), Some(3), "{status:?}");
}

#[test]
fn up_is_one_per_data_directory_and_down_ends_it() {
    let dir = DataDir::new();
    assert_eq!(dir.run(&["status"]).status.code(), Some(3));
    let (mut up, url) = dir.up("127.0.0.1:0");

    let again = dir.run(&["up"]);
    assert!(again.status.success());
    assert_eq!(text(&again.stdout).trim(), url);

    let status = dir.run(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["instances"][0]["url"], url.as_str());
    assert_eq!(status["instances"][0]["pid"], up.id());
    assert_eq!(status["postgres_pid"], dir.postgres_pid().unwrap());

    // Off a terminal every line of the log is JSON, and none holds the database's password.
    let password = fs::read_to_string(dir.0.path().join("postgres/password")).unwrap();
    for line in dir.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert!(!line.contains(&password), "{line}");
    }

    let down = dir.run(&["down"]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert!(up.wait().unwrap().success());
    assert_eq!(dir.postgres_pid(), None);
    assert_eq!(dir.run(&["status"]).status.code(), Some(3));
    assert!(dir.run(&["down"]).status.success());
}

#[test]
fn commands_that_look_into_the_engine_find_the_database_that_up_runs() {
    let dir = DataDir::new();
    let (mut up, _) = dir.up("127.0.0.1:0");
    let by_variable = dir.run(&["engine", "check"]);
    assert!(by_variable.status.success(), "{}", text(&by_variable.stderr));
    assert!(text(&by_variable.stderr).contains("0 problems"), "{}", text(&by_variable.stderr));
    let mut by_flag = dir.command(&["engine", "check", "--data-dir", dir.0.path().to_str().unwrap()]);
    assert!(by_flag.env_remove("AMBIENT_DATA_DIR").output().unwrap().status.success());
    let migrated = dir.run(&["migrate"]);
    assert!(migrated.status.success(), "{}", text(&migrated.stderr));
    assert!(dir.run(&["down"]).status.success());
    up.wait().unwrap();
    // What does not run is not started for a look.
    let down = dir.run(&["engine", "check"]);
    assert_eq!(down.status.code(), Some(64), "{}", text(&down.stderr));
    assert_eq!(dir.postgres_pid(), None);
}

#[test]
fn a_postgres_that_dies_under_up_is_started_again_and_work_goes_on() {
    let dir = DataDir::new();
    let (mut up, url) = dir.up("127.0.0.1:0");
    let before = dir.postgres_pid().unwrap();
    kill_process(Pid::from_raw(before).unwrap(), Signal::KILL).unwrap();
    let token = fs::read_to_string(dir.0.path().join("admin-token")).unwrap();
    let prompt = "```sh\necho it goes on\n```";
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let mut run = dir.command(&["run", "--project", "local", "--prompt", prompt]);
        let run = run.env("AMBIENT_URL", &url).env("AMBIENT_TOKEN", token.trim()).output().unwrap();
        if run.status.success() {
            assert!(text(&run.stdout).contains("it goes on"), "{}", text(&run.stdout));
            break;
        }
        assert!(Instant::now() < deadline, "{}\n{}", text(&run.stderr), dir.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_ne!(dir.postgres_pid().unwrap(), before);
    assert!(up.try_wait().unwrap().is_none());
    assert!(dir.run(&["down"]).status.success());
    assert!(up.wait().unwrap().success());
}

#[test]
fn postgres_outlives_kill_9_of_up_and_is_adopted() {
    let dir = DataDir::new();
    let (mut up, _) = dir.up("127.0.0.1:0");
    let postgres = dir.postgres_pid();
    kill_9(&mut up);
    assert_eq!(dir.postgres_pid(), postgres);
    assert_eq!(dir.run(&["status"]).status.code(), Some(3));

    let (mut up, _) = dir.up("127.0.0.1:0");
    assert_eq!(dir.postgres_pid(), postgres);
    assert!(dir.log().contains("\"adopted\":true"), "{}", dir.log());
    kill_9(&mut up);
    // `down` also ends a PostgreSQL that has no server any more.
    assert!(dir.run(&["down"]).status.success());
    assert_eq!(dir.postgres_pid(), None);
}

#[test]
fn up_recovers_when_it_and_postgres_are_killed_at_once() {
    let dir = DataDir::new();
    let (mut up, _) = dir.up("127.0.0.1:0");
    let postgres = dir.postgres_pid().unwrap();
    kill_process(Pid::from_raw(postgres).unwrap(), Signal::KILL).unwrap();
    // The dead server may still be there as a zombie: its parent goes before it can collect it.
    kill_9(&mut up);
    let (mut up, _) = dir.up("127.0.0.1:0");
    assert_ne!(dir.postgres_pid(), Some(postgres));
    assert!(dir.run(&["down"]).status.success());
    assert!(up.wait().unwrap().success());
}

#[test]
fn up_detached_returns_when_it_is_ready_and_says_why_when_it_is_not() {
    let dir = DataDir::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = dir.run(&["up", "--detach", "--listen", &address]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("is taken by"), "{}", text(&failed.stderr));

    drop(taken);
    let up = dir.run(&["up", "--detach", "--listen", &address]);
    assert_eq!(text(&up.stdout).trim(), format!("http://{address}"), "{}", text(&up.stderr));
    let again = dir.run(&["up", "--detach"]);
    assert_eq!(again.stdout, up.stdout);
    assert!(dir.run(&["status"]).status.success());
    assert!(dir.run(&["down"]).status.success());
    assert_eq!(dir.run(&["status"]).status.code(), Some(3));
}

#[test]
fn ctrl_c_ends_the_server_and_leaves_postgres() {
    let dir = DataDir::new();
    let (mut up, _) = dir.up("127.0.0.1:0");
    kill_process(Pid::from_raw(i32::try_from(up.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert!(up.wait().unwrap().success());
    assert!(dir.postgres_pid().is_some());
}

#[test]
fn a_taken_port_names_its_holder_and_starts_nothing() {
    let dir = DataDir::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let up = dir.run(&["up", "--listen", &address]);
    let message = text(&up.stderr);
    assert_eq!(up.status.code(), Some(1));
    assert!(message.contains(&address) && message.contains(&format!("pid {}", std::process::id())), "{message}");
    assert_eq!(dir.postgres_pid(), None);

    let doctor = dir.run(&["doctor", "--listen", &address]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(text(&doctor.stdout).lines().any(|line| line.starts_with("FAILED") && line.contains(&address)));
}

#[test]
fn wrong_flags_and_settings_are_usage_errors() {
    let dir = DataDir::new();
    let cases: [(&[&str], &str); 4] = [
        (&["server"], "AMBIENT_DATABASE_URL"),
        (&["up", "--listen", "0.0.0.0:7080"], "behind_proxy"),
        (&["up", "--config", "/nonexistent/server.toml"], "/nonexistent/server.toml"),
        (&["up", "--no-such-flag"], "--no-such-flag"),
    ];
    for (arguments, named) in cases {
        let output = dir.run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(text(&output.stderr).contains(named), "{}", text(&output.stderr));
    }
}

#[test]
fn config_prints_origins_and_no_password() {
    let dir = DataDir::new();
    let mut command = dir.command(&["config", "--permits", "5"]);
    let output = command.env("AMBIENT_DATABASE_URL", "postgresql://u:hunter2@h/d").output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success());
    assert!(shown.contains("permits = 5  # --permits") && shown.contains("# AMBIENT_DATABASE_URL"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn doctor_tells_an_unreachable_database_from_a_reachable_one() {
    let dir = DataDir::new();
    let runner = Path::new(env!("CARGO_BIN_EXE_ambient"));
    let mut command = dir.command(&["doctor", "-o", "json", "--listen", "127.0.0.1:0"]);
    command.env("AMBIENT_RUNNER_BINARY", runner);
    let verdict = |output: Output| {
        let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = checks["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "database").unwrap()["verdict"].clone()
    };
    assert_eq!(verdict(command.output().unwrap()), "ok");
    command.env("AMBIENT_DATABASE_URL", "postgresql://u:p@localhost/d?host=%2Fnonexistent");
    assert_eq!(verdict(command.output().unwrap()), "failed");
}

#[test]
fn output_that_cannot_be_written_ends_a_command_as_it_ends_a_clients() {
    let data = DataDir::new();
    for command in [&["openapi"][..], &["openapi", "--sdk"], &["config"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let out = data.command(command).stdout(full).output().unwrap();
        assert_eq!(out.status.code(), Some(74), "{command:?}");
        assert!(text(&out.stderr).contains("cannot write to standard output"), "{}", text(&out.stderr));

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = data.command(command).stdout(writer).output().unwrap();
        assert_eq!(out.status.code(), Some(141), "{command:?}");
        assert!(!text(&out.stderr).contains("cannot write"), "{}", text(&out.stderr));
    }
}
