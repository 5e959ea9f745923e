//! Whose model, whose key and how much: what projects, agents and sessions say about models, on a whole server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{fs, path::Path};

use ambient_scripted_model::ScriptedModel;
use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use support::{Server, eventually, processes, script};

/// In no word of anything else.
const KEY: &str = "canary-3e07d1bb";
/// The server's own.
const SERVER_KEY: &str = "canary-77aa10ce";
/// What one call uses.
const CALL: u64 = 1050;

/// Asks a model of OpenAI's dialect and prints the first line of the answer after `mark`.
fn ask(mark: &str) -> String {
    let request = r#"
address=${AMBIENT_MODEL_URL#http://}
exec 3<> "/dev/tcp/${address%:*}/${address#*:}"
body='{"model":"scripted","stream":true,"messages":[{"role":"user","content":"SCENARIO=hello"}]}'
printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Length: %s\r\n\r\n%s' \
    "$AMBIENT_MODEL_TOKEN" "${#body}" "$body" >&3
cat <&3 > answer
echo "MARK $(head -n 1 answer)""#;
    request.replace("MARK", mark)
}

async fn server(database: &TestDatabase, settings: Vec<(&'static str, String)>) -> Server {
    let mut server = Server::new(database, "one");
    server.settings = settings;
    server.restart().await;
    server
}

async fn settings(server: &Server, project: &str, settings: Value) {
    let patch = server.request(Method::PATCH, &format!("/projects/{project}")).json(&json!({ "settings": settings }));
    server.send(patch).await.expect(200);
}

async fn say(server: &Server, id: &str, commands: &str) {
    server.post(&format!("/sessions/{id}/messages"), json!({ "text": script(commands) })).await.expect(201);
}

async fn budget(server: &Server, project: &str) -> Value {
    server.get(&format!("/projects/{project}/usage")).await.expect(200)["budget"].clone()
}

/// Waits until so many calls are stored.
async fn used(server: &Server, project: &str, calls: u64) {
    eventually("the usage is stored", async || {
        (budget(server, project).await["used_tokens"] == calls * CALL).then_some(())
    })
    .await;
}

/// The turn that ended for want of a budget: its id and why.
async fn exceeded(server: &Server, id: &str, turns: usize) -> (String, String) {
    eventually("the turn ends with BudgetExceeded", async || {
        let list = server.get(&format!("/sessions/{id}/turns")).await.expect(200);
        let over = list["items"].as_array().unwrap().iter().filter(|turn| turn["code"] == "BudgetExceeded");
        let over: Vec<_> =
            over.map(|turn| [&turn["id"], &turn["message"]].map(|t| t.as_str().unwrap().to_owned())).collect();
        let [id, why] = over.first().filter(|_| over.len() == turns)?.clone();
        Some((id, why))
    })
    .await
}

#[tokio::test]
async fn two_sessions_share_a_projects_budget_over_the_death_of_the_server_until_it_is_raised() {
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(None).await.unwrap());
    let mut server = server(&database, vec![("AMBIENT_OPENAI_URL", format!("{}/v1", model.url()))]).await;
    server.project("models").await;
    settings(&server, "models", json!({ "model_budget": { "tokens": 3 * CALL, "period": "month" } })).await;
    let session = async |name: &str| {
        let id = server.session(json!({ "project_id": "models", "name": name })).await;
        server.phase(&id, "Running").await;
        id
    };
    let (a, b) = (session("a").await, session("b").await);
    say(&server, &a, &ask("a1")).await;
    server.printed(&a, "a1 HTTP/1.1 200").await;
    say(&server, &b, &ask("b1")).await;
    server.printed(&b, "b1 HTTP/1.1 200").await;
    used(&server, "models", 2).await;
    // Its turn has begun when the other session uses up the rest: it hears of that while it runs.
    say(
        &server,
        &b,
        &format!("echo waiting; for i in $(seq 300); do test -e go && break; sleep 0.2; done\n{}", ask("b2")),
    )
    .await;
    server.printed(&b, "waiting").await;
    say(&server, &a, &ask("a2")).await;
    server.printed(&a, "a2 HTTP/1.1 200").await;
    used(&server, "models", 3).await;
    server.kill();
    server.restart().await;
    // The lease of the reader that was killed expires first.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let put = server.request(Method::PUT, &format!("/sessions/{b}/workspace/go")).body("go");
    server.send(put.header("content-type", "application/octet-stream")).await.expect(201);
    let (turn, why) = exceeded(&server, &b, 1).await;
    assert_eq!(turn, "1-2");
    assert!(why.starts_with("the project's budget from ") && why.ends_with("3150 of 3150 tokens"), "{why}");
    say(&server, &a, &ask("a3")).await;
    exceeded(&server, &a, 1).await;
    assert_eq!(model.seen().len(), 3);
    let left = budget(&server, "models").await;
    assert_eq!((&left["tokens"], &left["left_tokens"], &left["period"]), (&json!(3150), &json!(0), &json!("month")));
    // A session that starts now is told at its launch.
    let c = server.session(json!({ "project_id": "models", "name": "c", "prompt": script(&ask("c1")) })).await;
    exceeded(&server, &c, 1).await;

    settings(&server, "models", json!({ "model_budget": { "tokens": 5 * CALL, "period": "month" } })).await;
    say(&server, &b, &ask("b3")).await;
    server.printed(&b, "b3 HTTP/1.1 200").await;
    used(&server, "models", 4).await;
    // Each turn once, and none of the others.
    for (id, turns) in [(&a, 1), (&b, 1), (&c, 1)] {
        exceeded(&server, id, turns).await;
    }
    server.verified().await;
}

#[tokio::test]
async fn of_the_limits_for_a_session_the_smallest_holds_and_is_raised_while_it_runs() {
    let (database, model) = (TestDatabase::new().await, ScriptedModel::start(None).await.unwrap());
    let settings_of_server = vec![
        ("AMBIENT_OPENAI_URL", format!("{}/v1", model.url())),
        ("AMBIENT_SESSION_TOKEN_LIMIT", (3 * CALL).to_string()),
    ];
    let server = server(&database, settings_of_server).await;
    server.project("models").await;
    settings(&server, "models", json!({ "models": { "limits": { "tokens": 10 * CALL } } })).await;
    let agent = json!({ "project_id": "models", "name": "a", "models": { "limits": { "tokens": 9 * CALL } } });
    let agent = server.post("/agents", agent).await.expect(201);
    let body = json!({ "project_id": "models", "name": "s", "agent_id": agent["id"], "models": { "limits": { "tokens": CALL } } });
    let id = server.session(body).await;
    server.phase(&id, "Running").await;
    say(&server, &id, &ask("one")).await;
    server.printed(&id, "one HTTP/1.1 200").await;
    say(&server, &id, &ask("two")).await;
    assert_eq!(exceeded(&server, &id, 1).await.1, "the session's budget is used up: 1050 of 1050 tokens");
    let raise = |tokens: u64| {
        let patch = server.request(Method::PATCH, &format!("/sessions/{id}"));
        server.send(patch.json(&json!({ "models": { "limits": { "tokens": tokens } } })))
    };
    raise(100 * CALL).await.expect(200);
    for n in ["three", "four"] {
        say(&server, &id, &ask(n)).await;
        server.printed(&id, &format!("{n} HTTP/1.1 200")).await;
    }
    say(&server, &id, &ask("five")).await;
    assert_eq!(exceeded(&server, &id, 2).await.1, "the session's budget is used up: 3150 of 3150 tokens");
    assert_eq!(model.seen().len(), 3);
}

#[tokio::test]
async fn a_projects_own_endpoint_is_asked_with_its_own_key_which_no_session_sees() {
    let database = TestDatabase::new().await;
    let (own, servers) = (ScriptedModel::start(Some(KEY)).await.unwrap(), ScriptedModel::start(None).await.unwrap());
    let host = |model: &ScriptedModel| model.url().strip_prefix("http://").unwrap().to_owned();
    let settings_of_server = vec![
        ("AMBIENT_OPENAI_URL", format!("{}/v1", servers.url())),
        ("AMBIENT_OPENAI_KEY", SERVER_KEY.to_owned()),
        ("AMBIENT_PRIVATE_MODEL_HOSTS", host(&own)),
    ];
    let server = server(&database, settings_of_server).await;
    server.project("models").await;
    let source = json!({ "base_url": format!("{}/v1", own.url()), "key_variable": "MODEL_KEY" });
    let body = json!({
        "environment_variables": { "MODEL_KEY": KEY, "PLAIN": "of-the-project", "BOTH": "of-the-project" },
        "settings": { "models": { "endpoints": { "openai": source } } },
    });
    server.send(server.request(Method::PATCH, "/projects/models").json(&body)).await.expect(200);
    let commands = format!("echo \"it has ${{MODEL_KEY:-no key}} $PLAIN $BOTH\"\n{}", ask("own"));
    let body = json!({ "project_id": "models", "name": "s", "prompt": script(&commands), "environment_variables": { "BOTH": "its-own" } });
    let id = server.session(body).await;
    server.phase(&id, "Running").await;
    server.printed(&id, "it has no key of-the-project its-own").await;
    server.printed(&id, "own HTTP/1.1 200").await;
    assert_eq!((own.seen().len(), servers.seen().len()), (1, 0));
    let keys = server.session_dir(&id).join("runs/1/secrets/model-keys.json");
    assert_eq!(files_with(&server.data_dir(), KEY), [keys.display().to_string()]);
    assert_eq!(files_with(&server.data_dir(), SERVER_KEY), Vec::<String>::new(), "nobody asks the server's");
    let listed = server.get("/projects/models/models").await.expect(200);
    assert_eq!(
        listed["endpoints"],
        json!([{ "provider": "openai", "host": host(&own), "named_by": "project", "has_key": true }])
    );

    // Without the variable there is no key, and with it the endpoint cannot do without.
    let removed = server
        .request(Method::PATCH, "/projects/models")
        .json(&json!({ "environment_variables": { "MODEL_KEY": null } }));
    let refused = server.send(removed).await.expect(409);
    assert_eq!(refused["details"][0]["field"], "settings.models.endpoints.openai.key_variable", "{refused}");

    // The server's key does not go where a session says, nor is anything else of this machine reached in this way.
    for (n, address) in [host(&servers), server.address(), "169.254.169.254".to_owned()].into_iter().enumerate() {
        let source = json!({ "base_url": format!("http://{address}/v1") });
        let body = json!({
            "project_id": "models", "name": format!("x{n}"), "prompt": script(&ask("elsewhere")),
            "models": { "endpoints": { "openai": source } },
        });
        let id = server.session(body).await;
        server.printed(&id, "elsewhere HTTP/1.1 403").await;
    }
    // What session and project both allow is nothing.
    settings(&server, "models", json!({ "models": { "allowed": ["scripted"] } })).await;
    let narrowed = json!({ "project_id": "models", "name": "n", "prompt": script(&ask("narrowed")), "models": { "allowed": ["other"] } });
    let narrowed = server.session(narrowed).await;
    server.printed(&narrowed, "narrowed HTTP/1.1 403").await;
    assert_eq!((own.seen().len(), servers.seen().len()), (1, 0));
    // The project's own endpoint is gone with its settings, so the server's is asked, with the server's key.
    let usual = server.session(json!({ "project_id": "models", "name": "u", "prompt": script(&ask("usual")) })).await;
    server.printed(&usual, "usual HTTP/1.1 200").await;
    assert_eq!(servers.seen().len(), 1);
    // The variable is one like any other now.
    say(&server, &usual, "test -n \"$MODEL_KEY\" && echo it has one").await;
    server.printed(&usual, "it has one").await;
    // A runner that is lost is followed by one that has what is said now: the same address, and nobody's key.
    let keyless = json!({ "openai": { "base_url": format!("{}/v1", own.url()) } });
    settings(&server, "models", json!({ "models": { "endpoints": keyless } })).await;
    processes::signal(processes::runner_pid(&server.session_dir(&id), 1, 1), "9");
    eventually("the next attempt runs", async || {
        let session = server.get(&format!("/sessions/{id}")).await.expect(200);
        (session["attempt"] == 2 && session["phase"] == "Running").then_some(())
    })
    .await;
    assert_eq!(fs::read_to_string(&keys).unwrap(), "{}");
    say(&server, &id, &ask("keyless")).await;
    server.printed(&id, "keyless HTTP/1.1 401").await;
    for secret in [KEY, SERVER_KEY] {
        nowhere(&database, &server, &id, secret).await;
    }
    server.verified().await;
}

async fn nowhere(database: &TestDatabase, server: &Server, id: &str, secret: &str) {
    assert!(!server.whole_log().contains(secret));
    for path in [
        format!("/sessions/{id}"),
        format!("/sessions/{id}/events?size=1000&after_seq=0"),
        "/operations?size=1000".to_owned(),
    ] {
        assert!(!server.get(&path).await.expect(200).to_string().contains(secret), "{path}");
    }
    let pool = database.pool().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname like 'ambient%'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(tables.len() > 10);
    for table in tables {
        // Bytes as text: what is stored as JSON in bytes is seen, what is sealed is not.
        let sql = format!(
            "select count(*) from {table} as row where encode(convert_to(row::text, 'utf8'), 'escape') like $1 or row::text like $2"
        );
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let query =
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).bind(format!("%{secret}%")).bind(format!("%{hex}%"));
        assert_eq!(query.fetch_one(&pool).await.unwrap(), 0, "{table}");
    }
}

fn files_with(directory: &Path, secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with(&path, secret));
        } else if kind.is_file() && fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(secret))
        {
            found.push(path.display().to_string());
        }
    }
    found
}
