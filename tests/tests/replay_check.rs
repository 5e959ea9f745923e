//! `ambient replay check` and `ambient replay export` on what a server has left: no difference, nothing written, no secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use ambient_tests::TestDatabase;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use support::{Server, binary, clean_command, eventually, script};

/// In no word of anything else.
const CANARY: &str = "canary-90c2fe17";

fn ambient(database_url: Option<&str>, arguments: &[&str]) -> Output {
    let mut command: Command = clean_command(binary("ambient"));
    command.args(arguments).env("AMBIENT_DATA_DIR", "/nonexistent/ambient");
    database_url.map(|url| command.env("AMBIENT_DATABASE_URL", url));
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn what_a_server_has_left_goes_on_with_this_program_here_and_in_a_file_without_secrets() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    let project = server.project("replayed").await;
    let keeper = json!({
        "project_id": project["id"], "name": "keeper", "prompt": script("echo done"),
        "environment_variables": {"API_KEY": CANARY},
    });
    let (stopped, open) = (server.session(keeper.clone()).await, server.session(keeper).await);
    for id in [&stopped, &open] {
        server.printed(id, "done").await;
        server.phase(id, "Running").await;
    }
    server.post(&format!("/sessions/{stopped}/stop"), json!({})).await.expect(202);
    server.phase(&stopped, "Stopped").await;
    // Beside a server at work, then without one.
    assert_check(&ambient(Some(&database.url()), &["replay", "check", "-o", "json"]));
    server.kill();
    let before = everything(&database).await;
    assert_check(&ambient(Some(&database.url()), &["replay", "check", "--last", "500", "-o", "json"]));
    let file = server.dir.path().join("export.gz");
    let path = file.to_str().unwrap();
    let exported = ambient(Some(&database.url()), &["replay", "export", path]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    assert_eq!(everything(&database).await, before, "something was written");

    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let whole = unpacked(&file);
    assert!(whole.contains("session-supervise") && whole.contains(&open) && whole.contains("API_KEY"));
    assert_eq!(decoded(&whole).iter().filter(|bytes| contains(bytes, CANARY)).count(), 0, "a secret in a history");
    assert!(!whole.contains(CANARY), "a secret in the file");
    let in_file = assert_check(&ambient(None, &["replay", "check", "--from", path, "-o", "json"]));
    let here = assert_check(&ambient(Some(&database.url()), &["replay", "check", "-o", "json"]));
    assert_eq!(in_file, here);
    let table = ambient(None, &["replay", "check", "--from", path]);
    assert!(text(&table.stdout).starts_with("KIND "), "{}", text(&table.stdout));
}

/// Nothing goes otherwise, and there are histories of a session's life and its operations.
fn assert_check(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kinds: Vec<&str> = report["rows"].as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap()).collect();
    for kind in ["workflow session-start", "workflow session-supervise", "workflow sweep", "operation session/create"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    report
}

#[tokio::test]
async fn a_divergence_ends_with_3_and_what_cannot_be_checked_with_1() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(&database, "one").await;
    server.project("replayed").await;
    let pool = database.pool().await;
    eventually("the project's space", async || {
        let sql = "select count(*) from ambient.operations where command = 'fact_provisioned'";
        let done: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
        (done == 1).then_some(())
    })
    .await;
    server.kill();
    let file = server.dir.path().join("export.ndjson");
    let path = file.to_str().unwrap();
    assert_eq!(ambient(Some(&database.url()), &["replay", "export", path]).status.code(), Some(0));
    // A release that provisioned a project a second time.
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replace(r#""events":[{"event":"provisioned"}]"#, r#""events":[{"event":"terminating"}]"#))
        .unwrap();
    let found = ambient(None, &["replay", "check", "--from", path]);
    let table = text(&found.stdout);
    assert_eq!(found.status.code(), Some(3), "{table}{}", text(&found.stderr));
    assert!(
        table.contains("operation project/fact_provisioned")
            && table.contains("event 1 was terminating, is now provisioned"),
        "{table}"
    );

    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(ambient(None, &["replay", "check", "--from", path]).status.code(), Some(1));
    assert_eq!(ambient(Some("postgresql://nobody@127.0.0.1:1/x"), &["replay", "check"]).status.code(), Some(1));
    let told = ambient(None, &["replay", "check", "--from", "postgresql://a:secret@127.0.0.1:1/x"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told.stderr).contains("AMBIENT_DATABASE_URL") && !text(&told.stderr).contains("secret"));
    assert_eq!(ambient(None, &["replay", "check", "--las", "1"]).status.code(), Some(64));
    assert_eq!(ambient(None, &["replay", "--help"]).status.code(), Some(0));
}

/// Every row of every table, with the transaction that wrote it.
async fn everything(database: &TestDatabase) -> Vec<(String, String)> {
    let pool = database.pool().await;
    let tables = "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('ambient', 'engine') order by 1";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&pool).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let sql = format!(
            "select coalesce(string_agg(md5(r::text || r.xmin::text), '' order by r::text), '') from {table} as r"
        );
        found.push((table, sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap()));
    }
    found
}

fn unpacked(file: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// The histories' messages as they are in the file, decoded.
fn decoded(whole: &str) -> Vec<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<_> =
        lines.filter_map(|line| Some(STANDARD.decode(line["history"]["proto"].as_str()?).unwrap())).collect();
    assert!(found.len() > 4, "{} histories", found.len());
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
