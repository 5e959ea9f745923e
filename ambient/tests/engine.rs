//! `ambient engine`: serving and checking, as processes.

#![allow(clippy::unwrap_used, reason = "a test ends where its machine fails it")]

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Command, Output, Stdio},
};

use ambient_tests::TestDatabase;
use rustix::process::{Pid, Signal, kill_process};

fn command(database: &TestDatabase, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambient"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AMBIENT_")) {
        command.env_remove(name);
    }
    command.args(arguments).env("AMBIENT_DATABASE_URL", database.url()).env("AMBIENT_SERVER_CONFIG", "/dev/null");
    command.stdin(Stdio::null());
    command
}

fn run(database: &TestDatabase, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(database, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn serve_prints_its_address_and_ends_on_sigterm() {
    let database = TestDatabase::new().await;
    let mut child =
        command(&database, &["engine", "serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();
    assert!(address.port() != 0 && TcpStream::connect(address).is_ok());
    let (code, _, said) = run(&database, &["engine", "serve", "--listen", &address.to_string()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is taken by"), "{said}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn serve_needs_tls_where_others_can_reach_it() {
    let database = TestDatabase::new().await;
    let (code, _, said) = run(&database, &["engine", "serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("0.0.0.0:0 is not a loopback address") && said.contains("TLS"), "{said}");
    let (code, _, said) = run(&database, &["engine", "serve", "--tls-cert", "/dev/null", "--tls-key", "/nowhere"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/nowhere"), "{said}");
    let arguments = ["engine", "serve", "--listen", "127.0.0.1:0", "--tls-cert", "/dev/null", "--tls-key", "/dev/null"];
    let (code, _, said) = run(&database, &arguments);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no PEM certificate"), "{said}");
}

#[tokio::test]
async fn check_names_what_is_damaged_and_fails() {
    let database = TestDatabase::empty().await;
    let (code, _, said) = run(&database, &["engine", "check"]);
    assert_eq!(code, Some(1), "there is no engine yet: {said}");
    ambient_engine::Engine::migrate(&database.pool().await).await.unwrap();
    let (code, out, said) = run(&database, &["engine", "check"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("0 problems"), "{said}");
    sqlx::query("insert into engine.workflows (workflow_id, run_id, status, request_id) values ('lost', gen_random_uuid(), 1, '')")
        .execute(&database.pool().await)
        .await
        .unwrap();
    let (code, out, said) = run(&database, &["engine", "check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(out.contains("WORKFLOW") && out.contains("lost"), "{out}");
    let (_, out, _) = run(&database, &["-o", "json", "engine", "check"]);
    let problem: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(problem["workflow_id"], "lost");
}
