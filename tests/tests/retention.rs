//! What finished sessions have left goes by their project's policy, whatever is killed and when; what goes is told, and what matters stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

mod support;

use std::{fs::File, path::PathBuf, process::Stdio};

use ambient_tests::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use support::{Origin, Server, binary, clean_command, eventually, live::Follower, script};

/// More than two batches.
const MANY: i64 = 2_500;
const BATCH: i64 = 1_000;

/// A project that keeps events for 7 days, and workspaces for 3.
async fn project(server: &Server, name: &str) {
    server.project(name).await;
    let patch = json!({"settings": {"retention": {"event_days": 7, "workspace_days": 3}}});
    server.send(server.request(Method::PATCH, &format!("/projects/{name}")).json(&patch)).await.expect(200);
}

/// A session of which a run has ended; its log has many events.
async fn ended(server: &Server, pool: &PgPool, project: &str, origin: &Origin) -> String {
    let repo = json!({"name": "hello", "url": origin.url()});
    let prompt = script("echo one > a.txt; git add a.txt; git commit -qm one; echo rest > $HOME/own; echo ready");
    let id =
        server.session(json!({"project_id": project, "prompt": prompt, "repos": [repo], "interactive": true})).await;
    server.event(&id, "the turn's end", |event| event["type"] == "turn.ended").await;
    let more = "with n as (update ambient.session_streams set next_seq = next_seq + $2 where session_id = $1 returning next_seq - $2 as first)
                insert into ambient.session_events (session_id, seq, at, type, data, run)
                select $1, first + g, now(), 'agent.thought', '{\"type\": \"agent.thought\", \"message_id\": \"t\", \"text\": \"hm\"}', 1
                from n, generate_series(0, $2 - 1) g";
    sqlx::query(more).bind(&id).bind(MANY).execute(pool).await.unwrap();
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    id
}

/// Makes it so many days old.
async fn age(pool: &PgPool, id: &str, days: i32) {
    let snapshot = "update ambient.snapshots set created_at = now() - make_interval(days => $2) where session_id = $1";
    let activity =
        "update ambient.session_runtime set last_activity_at = now() - make_interval(days => $2) where session_id = $1";
    for sql in [snapshot, activity] {
        sqlx::query(sql).bind(id).bind(days).execute(pool).await.unwrap();
    }
}

async fn first_kept(pool: &PgPool, id: &str) -> i64 {
    let sql = "select min(seq) from ambient.session_events where session_id = $1";
    sqlx::query_scalar(sql).bind(id).fetch_one(pool).await.unwrap()
}

async fn ask(server: &Server, project: &str) {
    server.send(server.request(Method::POST, &format!("/projects/{project}/retention"))).await.expect(202);
}

async fn applied(server: &Server, project: &str) -> Value {
    let path = format!("/projects/{project}/retention");
    eventually("retention is applied", async || {
        let shown = server.get(&path).await.expect(200);
        (!shown["request"]["done_at"].is_null()).then_some(shown)
    })
    .await
}

/// From the second batch of events on nothing is committed.
const HOLD: &str = "create function ambient.hold() returns trigger language plpgsql as $$ begin
        if new.events_removed > 1000 then perform pg_sleep(60); end if; return new; end $$;
    create trigger hold before update on ambient.session_retention for each row execute function ambient.hold()";
const LET_GO: &str = "drop trigger hold on ambient.session_retention; drop function ambient.hold()";

#[tokio::test]
async fn a_server_killed_between_and_within_batches_loses_nothing_that_is_kept_and_goes_on() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let mut server = Server::start(&database, "one").await;
    let origin = Origin::new();
    project(&server, "old").await;
    let id = ended(&server, &pool, "old", &origin).await;
    let events = server.events(&id).await;
    age(&pool, &id, 10).await;
    sqlx::raw_sql(HOLD).execute(&pool).await.unwrap();
    ask(&server, "old").await;
    eventually("a batch is committed", async || (first_kept(&pool, &id).await == BATCH + 1).then_some(())).await;
    // The next one has removed its events, and is not committed.
    server.kill();
    assert_eq!(first_kept(&pool, &id).await, BATCH + 1);
    sqlx::raw_sql(LET_GO).execute(&pool).await.unwrap();
    server.restart().await;
    let late = server.get(&format!("/sessions/{id}/events?after_seq=5")).await.expect(410);
    assert_eq!(late["oldest"], BATCH + 1, "{late}");
    let left = server.get(&format!("/sessions/{id}/events?size=1&after_seq={BATCH}")).await.expect(200);
    assert_eq!(left["items"][0], events[usize::try_from(BATCH).unwrap()]);

    ask(&server, "old").await;
    let shown = applied(&server, "old").await;
    assert_eq!(shown["due"]["events"], 0, "{shown}");
    let session = server.get(&format!("/sessions/{id}")).await.expect(200);
    let retained = session["retention"]["retained_from_seq"].as_i64().unwrap();
    assert_eq!(
        (first_kept(&pool, &id).await, session["retention"]["events_removed"].as_i64()),
        (retained, Some(retained - 1))
    );
    assert!(retained > MANY);
    // What was said, what turns came to, what was done: all there.
    let mut follower = server.get(&format!("/sessions/{id}/agui/history")).await.expect(200);
    assert!(follower["messages"].take().to_string().contains("echo one"));
    let turn = server.get(&format!("/sessions/{id}/turns/1-1")).await.expect(200);
    assert!(
        turn["status"] == "finished" && turn["events_removed_at"].is_string() && turn["repos"][0]["stored"] == true,
        "{turn}"
    );
    let diff = server.request(Method::GET, &format!("/sessions/{id}/turns/1-1/diff")).send().await.unwrap();
    assert!(diff.text().await.unwrap().contains("+one"));
    server.verified().await;
    let metrics = reqwest::get(format!("http://{}/metrics", server.address())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("ambient_retention_events_removed_total"), "{metrics}");
}

#[tokio::test]
async fn a_workspace_that_was_given_up_is_never_worked_in_again_and_its_session_starts_anew() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let mut server = Server::start(&database, "one").await;
    let origin = Origin::new();
    project(&server, "old").await;
    let id = ended(&server, &pool, "old", &origin).await;
    let kept = ended(&server, &pool, "old", &origin).await;
    let label = json!({"labels": {"retention": "keep"}});
    server.send(server.request(Method::PATCH, &format!("/sessions/{kept}")).json(&label)).await.expect(200);
    for id in [&id, &kept] {
        age(&pool, id, 5).await;
    }
    let dir = server.session_dir(&id);
    // Whoever removes files waits for the fence: the server dies after it has decided, and before it has done anything.
    let fence = File::options().write(true).open(dir.join("fence.lock")).unwrap();
    fence.lock().unwrap();
    ask(&server, "old").await;
    let shown = eventually("the workspace is given up", async || {
        let session = server.get(&format!("/sessions/{id}")).await.expect(200);
        session["retention"]["workspace_removed_at"].is_string().then_some(session)
    })
    .await;
    assert_eq!(shown["retention"]["workspace_removed_after_run"], 1);
    server.kill();
    assert!(dir.join("workspace/hello/a.txt").exists());
    drop(fence);
    server.restart().await;
    let told = server.get(&format!("/sessions/{id}/workspace")).await.expect(409);
    assert!(told["reason"].as_str().unwrap().contains("removed by retention on"), "{told}");

    // It is started before any sweep has come by.
    let look = script("ls -A $HOME/own a.txt 2>&1 || true; cat log.txt; echo looked");
    server.post(&format!("/sessions/{id}/start"), json!({"prompt": look})).await.expect(202);
    server.printed(&id, "looked").await;
    let printed = server.events(&id).await;
    let said: String = printed.iter().filter_map(support::runner::output).collect();
    assert!(said.contains("start") && said.contains("cannot access"), "{said}");
    let condition = printed.iter().find(|event| event["data"]["reason"] == "RemovedByRetention").unwrap();
    assert_eq!((&condition["data"]["type"], &condition["data"]["status"]), (&json!("WorkspaceReady"), &json!("False")));
    assert!(condition["data"]["message"].as_str().unwrap().contains("removed by retention on"), "{condition}");
    assert!(!dir.join("removed").exists());
    let other = server.session_dir(&kept);
    assert!(other.join("workspace/hello/a.txt").exists(), "it is labelled");
    server.get(&format!("/sessions/{kept}")).await.expect(200)["retention"].as_null().unwrap();

    // Once more, undisturbed; and after that the sweep has nothing to do.
    server.post(&format!("/sessions/{id}/stop"), json!({})).await.expect(202);
    server.phase(&id, "Stopped").await;
    age(&pool, &id, 5).await;
    ask(&server, "old").await;
    applied(&server, "old").await;
    eventually("the files are gone", async || {
        (!dir.join("workspace").exists() && !dir.join("home").exists()).then_some(())
    })
    .await;
    assert!(dir.join("runs/2/said.ndjson").exists() && dir.join("fence.json").exists());
    let gone: bool = sqlx::query_scalar("select workspace_gone from ambient.session_retention where session_id = $1")
        .bind(&id)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(gone);
    server.verified().await;
}

#[tokio::test]
async fn two_servers_that_are_both_asked_remove_everything_once_and_who_follows_is_not_disturbed() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let a = Server::start(&database, "a").await;
    let b = a.start_beside(&database, "b").await;
    let origin = Origin::new();
    project(&a, "old").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(ended(&a, &pool, "old", &origin).await);
    }
    for id in &ids {
        age(&pool, id, 10).await;
    }
    let working = a.session(json!({"project_id": "old", "interactive": false, "timeout": 120,
        "prompt": script("for i in 1 2 3 4 5 6 7 8; do echo step $i; sleep 0.3; done")}));
    let working = working.await;
    let follower = Follower::start(&b, &working);
    tokio::join!(ask(&a, "old"), ask(&b, "old"));
    applied(&a, "old").await;
    for id in &ids {
        eventually("its events are removed", async || {
            let session = b.get(&format!("/sessions/{id}")).await.expect(200);
            let told = &session["retention"];
            let (from, removed) = (told["retained_from_seq"].as_i64()?, told["events_removed"].as_i64()?);
            (from > MANY && from == removed + 1).then_some(())
        })
        .await;
    }
    a.phase(&working, "Completed").await;
    let events = a.events(&working).await;
    assert_eq!(follower.finish().await.len(), events.len(), "nothing of it was removed");
    a.verified().await;
}

fn cli(server: &Server, arguments: &[&str]) -> (i32, String, String) {
    let mut command = clean_command(binary("ambient"));
    let home: PathBuf = server.dir.path().to_owned();
    command.args(arguments).env("HOME", &home).env("AMBIENT_CONFIG", home.join("config.toml"));
    command.env("AMBIENT_URL", format!("http://{}", server.address())).env("AMBIENT_TOKEN", server.token());
    let output = command.env("AMBIENT_PROJECT", "old").stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_command_line_shows_what_would_go_changes_the_policy_and_reads_on_from_the_snapshot() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    let server = Server::start(&database, "one").await;
    let origin = Origin::new();
    server.project("old").await;
    let id = ended(&server, &pool, "old", &origin).await;
    age(&pool, &id, 10).await;
    let (code, out, _) = cli(&server, &["project", "retention", "old"]);
    assert!(code == 0 && out.contains("for ever (the server's default)") && out.contains("0 sessions"), "{out}");
    let days = ["--event-days", "7", "--workspace-days", "3"];
    let (code, out, err) = cli(&server, &[&["project", "retention", "old", "--dry-run"], &days[..]].concat());
    assert!(code == 0 && out.contains(&id) && out.contains("on one") && out.contains("1 sessions"), "{out}{err}");
    assert!(cli(&server, &["project", "retention", "old"]).1.contains("0 sessions"), "nothing was changed");
    let (code, out, err) = cli(&server, &["project", "retention", "old", "--now"]);
    assert!(code == 0 && out.contains("90 days (the server's default)"), "snapshots are not kept for ever: {out}{err}");
    applied(&server, "old").await;
    let (code, out, err) = cli(&server, &[&["project", "retention", "old", "--now"], &days[..]].concat());
    assert!(code == 0 && out.contains("7 days"), "{out}{err}");
    applied(&server, "old").await;
    assert!(cli(&server, &["project", "get", "old"]).1.contains("kept for 7 days"));
    let (code, out, _) = cli(&server, &["session", "get", &id]);
    assert!(code == 0 && out.contains("by retention on") && out.contains("a later run clones again"), "{out}");
    for more in [&[][..], &["--after-seq", "3"], &["--after-seq", "0"]] {
        let (code, out, err) = cli(&server, &[&["session", "logs", &id], more].concat());
        assert!(code == 0 && out.contains("echo one") && err.contains("removed by retention"), "{out}\n{err}");
        assert!(out.contains("Stopped") || err.contains("Stopped"), "the events that are left follow: {out}\n{err}");
    }
}
