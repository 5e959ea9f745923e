//! What is given in confidence is in the agent's environment, and nowhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{fs, path::Path};

use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::json;
use sqlx::AssertSqlSafe;
use support::{Server, binary, clean_command, eventually, processes, script};

/// In no word of anything else.
const CANARY: &str = "canary-5d1e77aa";

#[tokio::test]
async fn a_sealed_value_reaches_the_agent_and_nothing_else() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    let project = server.project("secrets").await;
    let prompt = script("test \"$API_KEY\" = canary-5d1e\"77aa\" && echo the agent has it");
    let id = server
        .session(json!({
            "project_id": project["id"], "name": "keeper", "prompt": prompt,
            "environment_variables": {"API_KEY": CANARY, "GREETING": "hello"},
        }))
        .await;
    server.phase(&id, "Running").await;
    server.printed(&id, "the agent has it").await;
    let shown = server.get(&format!("/sessions/{id}")).await.expect(200);
    assert_eq!(shown["environment_variable_names"], json!(["API_KEY", "GREETING"]));
    assert!(shown.get("environment_variables").is_none());
    let changed = server.request(Method::PATCH, &format!("/sessions/{id}"));
    let refused = server.send(changed.json(&json!({"environment_variables": {"API_KEY": null}}))).await.expect(409);
    assert!(refused["reason"].as_str().unwrap().contains("environment_variables"), "{refused}");
    // While it runs, one file of the run has it, for the session's user alone.
    let secret = server.session_dir(&id).join("runs/1/secrets/environment.json");
    assert_eq!(files_with_canary(&server.dir.path().join("d")), [secret.display().to_string()]);
    assert_nowhere_else(&database, &server, &id).await;

    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    eventually("the run's secrets are gone", async || (!secret.exists()).then_some(())).await;
    assert_eq!(files_with_canary(server.dir.path()), Vec::<String>::new());
    let changed = server.request(Method::PATCH, &format!("/sessions/{id}"));
    let changed = changed.json(&json!({"environment_variables": {"API_KEY": null, "MORE": CANARY}}));
    let changed = server.send(changed).await.expect(200);
    assert_eq!(changed["environment_variable_names"], json!(["GREETING", "MORE"]));
    assert_nowhere_else(&database, &server, &id).await;

    server.delete(&format!("/sessions/{id}")).await.expect(204);
    let pool = database.pool().await;
    eventually("the sealed values are gone", async || {
        let left: i64 =
            sqlx::query_scalar("select count(*) from ambient.sealed_values").fetch_one(&pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    server.verified().await;
}

#[tokio::test]
async fn a_url_with_credentials_is_refused_everywhere_and_repeated_nowhere() {
    let database = TestDatabase::new().await;
    let server = Server::start(&database, "one").await;
    let project = server.project("urls").await;
    let created = json!({"project_id": "urls", "name": "plain", "repos": [{"url": "https://host.invalid/a"}]});
    let id = server.post("/sessions", created).await.expect(201)["id"].as_str().unwrap().to_owned();
    for url in urls_with_credentials() {
        let encoded: String = url.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let session = |field: &str, value: serde_json::Value| json!({"project_id": "urls", field: value});
        let bodies = [
            ("/sessions".to_owned(), session("repos", json!([{"url": url}]))),
            ("/sessions".to_owned(), session("repos", json!([url]))),
            ("/sessions".to_owned(), session("repos", json!(url))),
            ("/sessions".to_owned(), session("agent_type", json!(url))),
            ("/sessions".to_owned(), json!({"project_id": url})),
            ("/sessions".to_owned(), json!({"project_id": "urls", url.as_str(): 1})),
            (format!("/sessions/{id}/repos"), json!({"url": url})),
            (format!("/sessions/{id}/git/push"), json!({"repo": "a", "branch": url})),
            (
                "/projects/urls/permissions".to_owned(),
                json!({"subject_type": url, "subject_name": "x", "role": "view"}),
            ),
            ("/projects".to_owned(), json!({"name": url})),
        ];
        for (path, body) in bodies {
            let answer = server.post(&path, body.clone()).await;
            assert!((400..500).contains(&answer.status), "{path} {body}: {}", answer.json);
            assert!(!answer.json.to_string().contains(CANARY), "{path} {body}: {}", answer.json);
        }
        let patch = server.request(Method::PATCH, &format!("/sessions/{id}")).json(&json!({"repos": [{"url": url}]}));
        assert!(!server.send(patch).await.expect(400).to_string().contains(CANARY));
        for path in
            [format!("/projects/{encoded}"), format!("/sessions?order_by={encoded}"), format!("/sessions?{encoded}=1")]
        {
            let answer = server.get(&path).await;
            assert!(
                (400..500).contains(&answer.status) && !answer.json.to_string().contains(CANARY),
                "{path}: {}",
                answer.json
            );
        }
        for arguments in [
            vec!["run", "--repo", &url, "echo"],
            vec!["session", "create", "--repo", &url],
            vec!["session", "repo", "add", &id, &url],
            vec!["session", "list", "--url", &url],
            vec!["session", "get", "x", &url],
            vec!["replay", "check", "--from", &url],
            vec!["context", "set", "far", "--url", &url],
        ] {
            let mut command = clean_command(binary("ambient"));
            command
                .args(&arguments)
                .env("HOME", server.dir.path())
                .env("AMBIENT_URL", format!("http://{}", server.address()));
            command.env("AMBIENT_TOKEN", server.token()).env("AMBIENT_PROJECT", "urls");
            let ended = command.output().unwrap();
            let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            assert!(!ended.status.success() && !said.contains(CANARY), "{arguments:?}: {said}");
        }
    }
    // A prompt is the agent's to read, and kept; the name made of it is shown everywhere.
    let prompted = json!({"project_id": "urls", "prompt": "clone https://bot:ab/cd@host.invalid/x.git"});
    assert_eq!(server.post("/sessions", prompted).await.expect(201)["name"], "clone https://…@host.invalid/x.git");
    assert_eq!(files_with_canary(&server.dir.path().join("d")), Vec::<String>::new());
    assert_nowhere_else(&database, &server, &id).await;
    assert_eq!(
        server.get(&format!("/projects/{}", project["id"].as_str().unwrap())).await.expect(200)["version"],
        project["version"]
    );
}

/// Ways to write one.
fn urls_with_credentials() -> Vec<String> {
    [
        "https://bot:ab/CANARY@host.invalid/x.git",
        "https://bot:12/CANARY@host.invalid/x.git",
        "https://CANARY@host.invalid/x",
        "https://user:p%2FCANARY@host.invalid/x",
        r"https:\\user:CANARY@host.invalid/x",
        "HTTPS://user:CANARY@host.invalid/x",
        "file://user:CANARY@host.invalid/x",
        "https://user:CANARY\u{ff20}host.invalid/x",
        "postgresql://me:ab/CANARY@host.invalid/x",
    ]
    .map(|url| url.replace("CANARY", CANARY))
    .to_vec()
}

/// Not in a table, a history, an answer, the server's log or a process's arguments.
async fn assert_nowhere_else(database: &TestDatabase, server: &Server, id: &str) {
    assert_eq!(tables_with_canary(database).await, Vec::<String>::new());
    assert!(!server.whole_log().contains(CANARY));
    for path in ["/operations", "/workflow_executions", &format!("/sessions/{id}/events?size=1000&after_seq=0")] {
        assert!(!server.get(path).await.expect(200).to_string().contains(CANARY), "{path}");
    }
    assert!(processes::command_lines().iter().all(|line| !line.contains(CANARY)));
}

async fn tables_with_canary(database: &TestDatabase) -> Vec<String> {
    let pool = database.pool().await;
    let tables =
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('ambient', 'engine')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&pool).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let sql = format!(
            "select exists (select from {table} as r where r::text like $1
             or r::text like '%' || encode(convert_to($2, 'UTF8'), 'hex') || '%')"
        );
        let has = sqlx::query_scalar(AssertSqlSafe(sql)).bind(format!("%{CANARY}%")).bind(CANARY);
        if has.fetch_one(&pool).await.unwrap() {
            found.push(table);
        }
    }
    found
}

fn files_with_canary(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with_canary(&path));
        } else if kind.is_file() && String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(CANARY) {
            found.push(path.display().to_string());
        }
    }
    found
}
