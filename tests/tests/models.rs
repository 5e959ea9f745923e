//! From the server's settings to an agent's model: which it may ask, with whose key, and how much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{fs, path::Path};

use ambient_scripted_model::ScriptedModel;
use ambient_tests::TestDatabase;
use serde_json::{Value, json};
use support::{Server, eventually, processes, script};

/// In no word of anything else.
const KEY: &str = "canary-9b20f3cc";

/// Asks a model and prints the first line of the answer.
fn ask(model: &str) -> String {
    let request = r#"
address=${AMBIENT_MODEL_URL#http://}
exec 3<> "/dev/tcp/${address%:*}/${address#*:}"
body='{"model":"NAME","stream":true,"messages":[{"role":"user","content":"SCENARIO=hello"}]}'
printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: %s\r\n\r\n%s' \
    "$AMBIENT_MODEL_TOKEN" "${#body}" "$body" >&3
cat <&3 > answer
head -n 1 answer"#;
    request.replace("NAME", model)
}

async fn server(database: &TestDatabase, model: &ScriptedModel) -> Server {
    let mut server = Server::new(database, "one");
    server.settings = vec![
        ("AMBIENT_OPENAI_URL", format!("{}/v1", model.url())),
        ("AMBIENT_OPENAI_KEY", KEY.to_owned()),
        ("AMBIENT_ALLOWED_MODELS", "scripted:other".to_owned()),
        ("AMBIENT_DEFAULT_MODEL", "other".to_owned()),
        ("AMBIENT_MODEL_PRICES", r#"{"scripted": {"input": 2, "output": 10}}"#.to_owned()),
        ("AMBIENT_SESSION_TOKEN_LIMIT", "2000".to_owned()),
    ];
    server.restart().await;
    server
}

async fn usage(server: &Server, id: &str) -> Vec<Value> {
    let events = server.events(id).await.into_iter().map(|event| event["data"].clone());
    events.filter(|data| data["type"] == "usage").collect()
}

#[tokio::test]
async fn what_a_session_may_use_counts_over_its_runs_and_the_key_is_only_its_runners() {
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(Some(KEY)).await.unwrap());
    let server = server(&database, &model).await;
    server.project("models").await;
    let id =
        server.session(json!({ "project_id": "models", "name": "asker", "prompt": script(&ask("scripted")) })).await;
    server.phase(&id, "Running").await;
    server.printed(&id, "HTTP/1.1 200 OK").await;
    let keys = server.session_dir(&id).join("runs/1/secrets/model-keys.json");
    assert_eq!(files_with_key(&server.data_dir()), [keys.display().to_string()]);
    assert!(processes::command_lines().iter().all(|line| !line.contains(KEY)));
    let all =
        eventually("the usage is in the log", async || Some(usage(&server, &id).await).filter(|all| all.len() == 1));
    let used = all.await.remove(0);
    let figures = ["input_tokens", "output_tokens", "cost_micros"].map(|figure| used[figure].as_u64().unwrap());
    assert_eq!((figures, &used["source"]), ([1000, 50, 2500], &json!("proxy")));

    for run in 2..=3 {
        server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
        server.phase(&id, "Stopped").await;
        assert_eq!(files_with_key(&server.data_dir()), Vec::<String>::new());
        server.post(&format!("/sessions/{id}/start"), json!({})).await.expect(202);
        server.phase(&id, "Running").await;
        eventually("the prompt is worked on", async || {
            let all = server.events(&id).await;
            let done = if run == 2 {
                all.iter().filter(|event| event["data"]["type"] == "usage").count() == 2
            } else {
                all.iter().any(|event| event["data"].to_string().contains("BudgetExceeded"))
            };
            done.then_some(())
        })
        .await;
    }
    assert_eq!(usage(&server, &id).await.len(), 2);
    assert_eq!(model.seen().len(), 2, "the third call was refused before it got there");
    let used = server.get(&format!("/sessions/{id}/usage")).await.expect(200);
    let of =
        |usage: &Value| ["calls", "input_tokens", "output_tokens", "cost_micros"].map(|figure| usage[figure].as_u64());
    assert_eq!(of(&used["total"]), [2, 2000, 100, 5000].map(Some));
    assert_eq!((&used["total"]["counted_by"], &used["total"]["currency"]), (&json!("proxy"), &json!("USD")));
    let runs: Vec<_> =
        used["runs"].as_array().unwrap().iter().map(|run| (run["run"].as_i64(), of(&run["usage"])[0])).collect();
    assert_eq!(runs, [(Some(1), Some(1)), (Some(2), Some(1))]);
    let of_project = server.get("/projects/models/usage?until=2000-01-01T00:00:00Z").await.expect(200);
    assert_eq!(of(&of_project["total"]), [Some(0), Some(0), Some(0), None]);
    let of_project = server.get("/projects/models/usage?since=2000-01-01T00:00:00Z").await.expect(200);
    assert_eq!(
        (of(&of_project["total"]), of(&of_project["models"][0]["usage"])),
        (of(&used["total"]), of(&used["total"]))
    );
    let turns = server.get(&format!("/sessions/{id}/turns")).await.expect(200);
    let told: Vec<_> = turns["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| (turn["id"].as_str().unwrap(), turn["code"].as_str(), of(&turn["usage"])[0]))
        .collect();
    assert_eq!(told, [("3-1", Some("BudgetExceeded"), Some(0)), ("2-1", None, Some(1)), ("1-1", None, Some(1))]);
    assert!(!server.whole_log().contains(KEY));
    let all = server.get(&format!("/sessions/{id}/events?size=1000&after_seq=0")).await.expect(200).to_string();
    assert!(!all.contains(KEY));
}

#[tokio::test]
async fn only_models_that_are_listed_are_asked() {
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(None).await.unwrap());
    let server = server(&database, &model).await;
    server.project("models").await;
    let listed = server.get("/projects/models/models").await.expect(200);
    let price = json!({
        "currency": "USD", "input_micros": 2_000_000, "cached_input_micros": 2_000_000,
        "cache_write_micros": 2_000_000, "output_micros": 10_000_000,
    });
    let expected = json!([
        { "id": "other", "is_default": true, "price": null, "named_by": "server" },
        { "id": "scripted", "is_default": false, "price": price, "named_by": "server" },
    ]);
    assert_eq!(listed["items"], expected);
    let id = server.session(json!({ "project_id": "models", "prompt": script(&ask("secret-model")) })).await;
    server.printed(&id, "HTTP/1.1 403 Forbidden").await;
    assert!(model.seen().is_empty());
}

fn files_with_key(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with_key(&path));
        } else if kind.is_file() && String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(KEY) {
            found.push(path.display().to_string());
        }
    }
    found
}
