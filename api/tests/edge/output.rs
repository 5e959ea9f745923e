//! Where a session's commits go, and what has become of them.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::Server;

const URL: &str = "https://example.invalid/team/r.git";

fn create(repos: &Value) -> Value {
    json!({"project_id": "demo", "repos": repos})
}

#[tokio::test]
async fn an_output_is_kept_as_it_was_given_and_can_be_changed() {
    let server = Server::start().await;
    server.project("demo").await;
    let fork = json!({"push_to": "fork", "target_repo": "https://example.invalid/me/r.git"});
    let body = create(&json!([{"url": URL, "output": fork, "auto_push": true}, {"url": URL, "name": "b"}]));
    let session = server.post("/sessions", body).await.expect(StatusCode::CREATED);
    assert_eq!((&session["repos"][0]["output"], &session["repos"][0]["auto_push"]), (&fork, &json!(true)));
    assert_eq!(
        (&session["repos"][1]["output"], &session["repos"][1]["auto_push"]),
        (&json!({"push_to": "same"}), &json!(false))
    );
    assert_eq!(session["main_repo_index"], Value::Null);

    let path = format!("/sessions/{}", session["id"].as_str().unwrap());
    let never = json!({"repos": [{"url": URL, "output": {"push_to": "none"}}], "main_repo_index": 0});
    let changed = server.patch(&path, never).await.expect(StatusCode::OK);
    assert_eq!((&changed["repos"][0]["output"], &changed["main_repo_index"]), (&json!({"push_to": "none"}), &json!(0)));
    assert_eq!(changed["generation"], 2);
    server.post(&format!("{path}/repos"), json!({"url": URL, "name": "z"})).await.expect(StatusCode::ACCEPTED);
    let without = server.delete(&format!("{path}/repos/r")).await.expect(StatusCode::ACCEPTED);
    assert_eq!(without["main_repo_index"], Value::Null, "the repository that it named is gone");
}

#[tokio::test]
async fn the_former_field_is_answered_with_what_to_write() {
    let server = Server::start().await;
    server.project("demo").await;
    let refused = server.post("/sessions", create(&json!([{"url": URL, "push_to": "out"}]))).await;
    assert_eq!(refused.fault(400), "repos[0].push_to");
    let problem = refused.json()["details"][0]["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("target_branch") && problem.contains("auto_push"), "{problem}");
}

#[tokio::test]
async fn what_cannot_be_together_is_refused_by_the_field() {
    let server = Server::start().await;
    server.project("demo").await;
    let pushed = |url: &str| json!({"url": url, "output": {"target_branch": "out"}, "auto_push": true});
    let twice = create(&json!([pushed(URL), {"url": URL}, pushed("https://EXAMPLE.invalid:443/team/r/")]));
    assert_eq!(server.post("/sessions", twice).await.fault(409), "repos[2].output.target_branch");
    let mut beyond = create(&json!([pushed(URL)]));
    beyond["main_repo_index"] = json!(1);
    assert_eq!(server.post("/sessions", beyond).await.fault(409), "main_repo_index");
    let never = create(&json!([{"url": URL, "output": {"push_to": "none"}, "auto_push": true}]));
    assert_eq!(server.post("/sessions", never).await.fault(400), "repos[0].auto_push");

    let session = server.post("/sessions", create(&json!([pushed(URL)]))).await.expect(StatusCode::CREATED);
    let path = format!("/sessions/{}", session["id"].as_str().unwrap());
    let repos = format!("{path}/repos");
    let add = |body: Value| server.post(&repos, body);
    let mut same = pushed(URL);
    same["name"] = json!("again");
    assert_eq!(add(same).await.fault(409), "output.target_branch");
    let fork = json!({"url": URL, "name": "x", "output": {"push_to": "fork"}});
    assert_eq!(add(fork).await.fault(400), "output.target_repo");
    let all = json!({"repos": [pushed(URL), pushed(URL)]});
    assert_eq!(server.patch(&path, all).await.fault(409), "repos[1].output.target_branch");
    assert_eq!(server.patch(&path, json!({"main_repo_index": 7})).await.fault(409), "main_repo_index");
    assert_eq!(server.get(&path).await.expect(StatusCode::OK)["version"], 1);
}

#[tokio::test]
async fn a_session_shows_what_became_of_its_last_run() {
    let server = Server::start().await;
    server.project("demo").await;
    let id = server.running_session("demo").await;
    let path = format!("/sessions/{id}");
    let none = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!((&none["repo_statuses"], none.get("results"), none.get("error")), (&json!([]), None, None));
    let statuses = json!({
        "b": {"repo": "b", "status": "failed", "url": URL, "branch": "out", "commit": null, "message": "refused", "at": "2026-01-02T03:04:05Z"},
        "a": {"repo": "a", "status": "pushed", "url": URL, "branch": "out", "commit": "12", "message": null, "at": "2026-01-02T03:04:05Z"},
        "c": {"repo": "c", "status": "of tomorrow"},
    });
    for (run, results) in [(1, "done"), (2, "of another run")] {
        let sql = "insert into ambient.session_runs (session_id, run, repo_statuses, results, error) values ($1, $2, $3, $4, $5)";
        let query = sqlx::query(sql).bind(&id).bind(i64::from(run)).bind(&statuses).bind(results);
        query.bind("PushFailed: refused").execute(server.database.pool()).await.unwrap();
    }
    let shown = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!((&shown["results"], &shown["error"]), (&json!("done"), &json!("PushFailed: refused")));
    assert_eq!(shown["repo_statuses"], json!([statuses["a"], statuses["b"]]));
    let listed = server.get("/sessions").await.expect(StatusCode::OK);
    assert_eq!(listed["items"][0].get("repo_statuses"), None);
}
