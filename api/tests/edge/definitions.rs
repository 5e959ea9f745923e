//! Definitions: what agents and repository references have in common, and what is specific to each.

use ambient_domain::agent::Agent;
use ambient_persistence::Vault;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ALICE, Answer, Server, VERA};

/// A definition with every field that can be written.
fn agent() -> Value {
    json!({
        "project_id": "demo", "name": "reviewer", "display_name": "The reviewer", "description": "Reads changes",
        "prompt": "Be kind.", "repo_url": "https://example.org/team/docs.git", "agent_type": "script", "llm_model": "m-1",
        "llm_temperature": 0.5, "llm_max_tokens": 100, "interactive": false, "timeout": 60, "inactivity_timeout": 0,
        "resource_overrides": {"cpu": "500m", "memory": "1Gi", "processes": 64}, "labels": {"team": "web"},
        "annotations": {"note": "any text"},
    })
}

fn contains(whole: &Value, part: &Value) -> bool {
    part.as_object().unwrap().iter().all(|(field, value)| field == "project_id" || whole[field] == *value)
}

#[tokio::test]
async fn an_agent_lives_from_its_creation_to_its_deletion() {
    let server = Server::start().await;
    let project = server.project("demo").await;
    let created = server.post("/agents", agent()).await;
    let shown = created.expect(StatusCode::CREATED);
    assert!(contains(&shown, &agent()), "{shown}");
    assert_eq!((&shown["kind"], &shown["project_id"]), (&json!("Agent"), &json!(project)));
    let path = format!("/agents/{}", shown["id"].as_str().unwrap());
    assert_eq!((created.header("location"), created.header("etag")), (shown["href"].as_str().unwrap(), "\"1\""));
    assert_eq!(server.get(&path).await.expect(StatusCode::OK), shown);

    let patch = json!({"name": "critic", "llm_model": null, "resource_overrides": {"cpu": null}, "labels": {"team": null, "a": "b"}});
    let patched = server.patch(&path, patch).await;
    assert_eq!(patched.header("etag"), "\"2\"");
    let patched = patched.expect(StatusCode::OK);
    assert_eq!((&patched["name"], &patched["llm_model"]), (&json!("critic"), &Value::Null));
    assert_eq!(patched["resource_overrides"], json!({"memory": "1Gi", "processes": 64}));
    assert_eq!(patched["labels"], json!({"a": "b"}));
    let cleared = server.patch(&path, json!({"resource_overrides": null})).await.expect(StatusCode::OK);
    assert_eq!(cleared["resource_overrides"], json!({}));
    let then = server.get(&format!("{path}?version=1")).await.expect(StatusCode::OK);
    assert!(contains(&then, &agent()), "{then}");
    server.get(&format!("{path}?version=9")).await.error(404);

    server.delete(&path).await.expect(StatusCode::NO_CONTENT);
    server.get(&path).await.error(404);
    server.post("/agents", json!({"project_id": "demo", "name": "critic"})).await.expect(StatusCode::CREATED);
    let feed = format!("entity_kind=agent&entity_id={}&order=asc", shown["id"].as_str().unwrap());
    let history = server.operations(&feed, 4).await;
    let commands: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|o| o["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["create", "patch", "patch", "delete"]);
    let report = server.post("/replay/verify", json!({"entity_kind": "agent"})).await.expect(StatusCode::OK);
    assert_eq!((&report["entities"], &report["divergences"]), (&json!(2), &json!([])));
}

#[tokio::test]
async fn values_of_an_agents_variables_are_sealed_and_only_their_names_are_shown() {
    const CANARY: &str = "canary-5d1e77aa";
    let server = Server::start().await;
    server.project("demo").await;
    let mut body = agent();
    body["environment_variables"] = json!({"API_KEY": CANARY, "STAGE": "test"});
    let created = server.post("/agents", body).await.expect(StatusCode::CREATED);
    let path = format!("/agents/{}", created["id"].as_str().unwrap());
    let patch = json!({"environment_variables": {"STAGE": null, "MORE": CANARY}});
    let patched = server.patch(&path, patch).await.expect(StatusCode::OK);
    let removed = server.patch(&path, json!({"environment_variables": {"API_KEY": null}})).await;
    let removed = removed.expect(StatusCode::OK);
    let then = server.get(&format!("{path}?version=1")).await.expect(StatusCode::OK);
    let as_viewer = server.request_as(VERA, Method::GET, &path).send().await.unwrap();
    let as_viewer = Answer::of(as_viewer).await.expect(StatusCode::OK);
    for (shown, names) in [
        (&created, json!(["API_KEY", "STAGE"])),
        (&patched, json!(["API_KEY", "MORE"])),
        (&removed, json!(["MORE"])),
        (&then, json!(["API_KEY", "STAGE"])),
        (&as_viewer, json!(["MORE"])),
    ] {
        assert_eq!(shown["environment_variable_names"], names);
        assert!(shown.get("environment_variables").is_none() && !shown.to_string().contains(CANARY), "{shown}");
    }
    let operations = server.operations("entity_kind=agent", 3).await.to_string();
    assert!(operations.contains("API_KEY") && !operations.contains(CANARY), "{operations}");
    let stored = server.database.load::<Agent>(created["id"].as_str().unwrap()).await.unwrap().unwrap();
    let sealed = &stored.spec.environment_variables["MORE"];
    let vault = Vault::open(&server.database, &[7; 32]).await.unwrap();
    assert_eq!(vault.get_all([sealed]).await.unwrap()[sealed].expose(), CANARY.as_bytes());
    let report = server.post("/replay/verify", json!({"entity_kind": "agent"})).await.expect(StatusCode::OK);
    assert_eq!(report["divergences"], json!([]));
}

#[tokio::test]
async fn writes_are_conditional_and_repeatable() {
    let server = Server::start().await;
    server.project("demo").await;
    let create = async |name: &str| {
        let request = server.request(Method::POST, "/agents").header("idempotency-key", "once");
        Answer::of(request.json(&json!({"project_id": "demo", "name": name})).send().await.unwrap()).await
    };
    let first = create("one").await.expect(StatusCode::CREATED);
    assert_eq!(create("one").await.expect(StatusCode::CREATED), first);
    create("two").await.error(422);
    let path = format!("/agents/{}", first["id"].as_str().unwrap());
    let patch = async |version: &str| {
        let request = server.request(Method::PATCH, &path).header("if-match", version);
        Answer::of(request.json(&json!({"prompt": version})).send().await.unwrap()).await
    };
    patch("\"1\"").await.expect(StatusCode::OK);
    patch("\"1\"").await.error(412);
    assert_eq!(server.get("/agents?project_id=demo").await.json()["total"], 1);
}

#[tokio::test]
async fn a_name_is_taken_once_in_a_project() {
    let server = Server::start().await;
    server.project("demo").await;
    server.project("other").await;
    let create =
        async |project: &str, name: &str| server.post("/agents", json!({"project_id": project, "name": name})).await;
    create("demo", "one").await.expect(StatusCode::CREATED);
    create("other", "one").await.expect(StatusCode::CREATED);
    assert_eq!(create("demo", "one").await.fault(409), "name");
    let two = create("demo", "two").await.expect(StatusCode::CREATED);
    let path = format!("/agents/{}", two["id"].as_str().unwrap());
    assert_eq!(server.patch(&path, json!({"name": "one"})).await.fault(409), "name");
    // Another Kind has names of its own.
    let body = json!({"project_id": "demo", "name": "one", "url": "file:///srv/one.git"});
    server.post("/repository_refs", body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn lists_are_filtered_and_ordered_by_the_columns_of_the_kind() {
    let server = Server::start().await;
    server.project("demo").await;
    for (name, url, labels) in [
        ("site", "https://github.com/acme/site.git", json!({"team": "web"})),
        ("tool", "https://gitlab.com/group/sub/tool", json!({})),
        ("local", "file:///srv/git/local.git", json!({"team": "web"})),
    ] {
        let body = json!({"project_id": "demo", "name": name, "url": url, "labels": labels});
        server.post("/repository_refs", body).await.expect(StatusCode::CREATED);
    }
    let names = async |query: &str| {
        let list = server.get(&format!("/repository_refs?project_id=demo&{query}")).await.expect(StatusCode::OK);
        assert_eq!(list["kind"], "RepositoryRefList");
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("order_by=name").await, "local site tool");
    assert_eq!(names("orderBy=provider,name%20desc").await, "local site tool");
    assert_eq!(names("provider=gitlab").await, "tool");
    assert_eq!(names("owner=acme&repo_name=site").await, "site");
    assert_eq!(names("label=team%3Dweb&order_by=name&size=1&page=2").await, "site");
    assert_eq!(names("name=nobody").await, "");
    for (query, field) in [
        ("provider=svn", "provider"),
        ("bogus=1", "bogus"),
        ("agent_type=script", "agent_type"),
        ("order_by=branch", "order_by"),
        ("page=1&page=2", "page"),
        ("name=a&name=b", "name"),
        ("label=x", "label"),
        ("size=65501", "size"),
    ] {
        assert_eq!(server.get(&format!("/repository_refs?{query}")).await.fault(400), field, "{query}");
    }
    server.get("/repository_refs?project_id=nope").await.error(404);
    let site = server.get("/repository_refs?name=site").await.json()["items"][0].clone();
    assert_eq!((&site["provider"], &site["owner"], &site["branch"]), (&json!("github"), &json!("acme"), &Value::Null));
    let path = format!("/repository_refs/{}", site["id"].as_str().unwrap());
    let moved = server.patch(&path, json!({"url": "https://git.example.org/x/y", "branch": "main"})).await;
    let moved = moved.expect(StatusCode::OK);
    assert_eq!((&moved["provider"], &moved["owner"], &moved["repo_name"]), (&json!("git"), &json!("x"), &json!("y")));
    let named = server.patch(&path, json!({"provider": "gitlab", "owner": "us"})).await.expect(StatusCode::OK);
    assert_eq!((&named["provider"], &named["owner"]), (&json!("gitlab"), &json!("us")));
    let report = server.post("/replay/verify", json!({})).await.expect(StatusCode::OK);
    assert_eq!(report["divergences"], json!([]));
}

#[tokio::test]
async fn every_wrong_field_of_a_definition_is_named() {
    let server = Server::start().await;
    server.project("demo").await;
    let agent = server.post("/agents", agent()).await.expect(StatusCode::CREATED);
    let path = format!("/agents/{}", agent["id"].as_str().unwrap());
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("--all")),
        ("name", json!("a\u{200b}b")),
        ("display_name", json!("..")),
        ("description", json!("see https://bot:ab/cd@host/x")),
        ("prompt", json!("a\0b")),
        ("repo_url", json!("git@example.org:a/b")),
        ("agent_type", json!("--all")),
        ("llm_model", json!("-x")),
        ("llm_temperature", json!(3)),
        ("llm_max_tokens", json!(0)),
        ("interactive", json!("yes")),
        ("timeout", json!(0)),
        ("inactivity_timeout", json!(-1)),
        ("resource_overrides", json!("2Gi")),
        ("resource_overrides.cpu", json!({"cpu": "many"})),
        ("resource_overrides.processes", json!({"processes": 1})),
        ("environment_variables.1A", json!({"1A": "x"})),
        ("environment_variables.AMBIENT_NONCE", json!({"AMBIENT_NONCE": "x"})),
        ("environment_variables.A", json!({"A": "a\0b"})),
        ("environment_variables.A", json!({"A": "x".repeat(20_000)})),
        ("environment_variables.A", json!({"A": 1})),
        ("labels.-x", json!({"-x": "y"})),
        ("annotations.a", json!({"a": "see https://bot:ab/cd@host/x"})),
        ("bogus", json!(1)),
    ] {
        let name = field.split('.').next().unwrap();
        let mut created = json!({"project_id": "demo", "name": "other"});
        created[name] = value.clone();
        assert_eq!(server.post("/agents", created).await.fault(400), field, "{value}");
        assert_eq!(server.patch(&path, json!({name: value})).await.fault(400), field, "{value}");
    }
    for (field, value) in [
        ("url", json!("https://user:secret@example.org/a")),
        ("branch", json!("HEAD")),
        ("provider", json!("svn")),
        ("owner", json!("..")),
        ("repo_name", json!("../x")),
    ] {
        let mut created = json!({"project_id": "demo", "name": "other", "url": "https://example.org/a/b"});
        created[field] = value.clone();
        assert_eq!(server.post("/repository_refs", created).await.fault(400), field, "{value}");
    }
    assert_eq!(server.post("/repository_refs", json!({"project_id": "demo", "name": "x"})).await.fault(400), "url");
    assert_eq!(server.get("/agents?project_id=demo").await.json()["total"], 1);
}

#[tokio::test]
async fn two_spellings_of_a_name_are_one_name() {
    let server = Server::start().await;
    server.project("demo").await;
    let (one, two) = ("caf\u{e9}", "cafe\u{301}");
    for (path, more) in [("/agents", json!({})), ("/repository_refs", json!({"url": "https://example.org/a/b"}))] {
        let named = |name: &str| {
            let mut body = json!({"project_id": "demo", "name": name});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let made = server.post(path, named(two)).await.expect(StatusCode::CREATED);
        assert_eq!(made["name"], one);
        assert_eq!(server.post(path, named(one)).await.fault(409), "name");
        let other = server.post(path, named("other")).await.expect(StatusCode::CREATED);
        let renamed = server.patch(&format!("{path}/{}", other["id"].as_str().unwrap()), json!({"name": two})).await;
        assert_eq!(renamed.fault(409), "name");
        assert_eq!(server.post(path, named("caf\u{e9}\u{fe0f}")).await.fault(400), "name");
        for spelling in ["caf%C3%A9", "cafe%CC%81"] {
            assert_eq!(server.get(&format!("{path}?name={spelling}")).await.json()["total"], 1, "{spelling}");
        }
    }
    let session = json!({"project_id": "demo", "name": two});
    assert_eq!(server.post("/sessions", session).await.expect(StatusCode::CREATED)["name"], one);
    assert_eq!(server.get("/sessions?name=cafe%CC%81").await.json()["total"], 1);
}

#[tokio::test]
async fn of_deletions_at_the_same_moment_one_deletes_and_the_others_find_nothing() {
    let server = Server::start().await;
    server.project("demo").await;
    for (path, more) in [
        ("/agents", json!({"name": "x"})),
        ("/repository_refs", json!({"name": "x", "url": "https://example.org/a/b"})),
        ("/sessions", json!({})),
    ] {
        let mut body = json!({"project_id": "demo"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = server.post(path, body).await.expect(StatusCode::CREATED);
        let one = format!("{path}/{}", made["id"].as_str().unwrap());
        let answers = futures::future::join_all((0..8).map(|_| server.delete(&one))).await;
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 404, 404, 404, 404, 404, 404, 404], "{path}");
        server.delete(&one).await.error(404);
    }
}

#[tokio::test]
async fn what_is_created_has_no_version_to_match() {
    let server = Server::start().await;
    server.project("demo").await;
    for (path, body) in
        [("/agents", json!({"project_id": "demo", "name": "x"})), ("/projects", json!({"name": "other"}))]
    {
        let request = server.request(Method::POST, path).header("if-match", "\"1\"").json(&body);
        let refused = Answer::of(request.send().await.unwrap()).await.error(400);
        let reason = "If-Match: must be left out when something is created: it has no version yet";
        assert_eq!(refused["reason"], reason);
    }
}

#[tokio::test]
async fn a_terminating_project_takes_no_new_definitions() {
    let server = Server::start().await;
    server.project("demo").await;
    server.delete("/projects/demo").await.expect(StatusCode::ACCEPTED);
    server.post("/agents", json!({"project_id": "demo", "name": "late"})).await.error(409);
}

#[tokio::test]
async fn a_session_may_name_an_agent_of_its_project() {
    let server = Server::start().await;
    server.project("demo").await;
    server.project("other").await;
    let create = async |project: &str| {
        server.post("/agents", json!({"project_id": project, "name": "one"})).await.expect(StatusCode::CREATED)["id"]
            .clone()
    };
    let (agent, foreign) = (create("demo").await, create("other").await);
    let session = |agent: &Value| json!({"project_id": "demo", "agent_id": agent});
    let made = server.post("/sessions", session(&agent)).await.expect(StatusCode::CREATED);
    assert_eq!((&made["agent_id"], &made["agent_type"]), (&agent, &json!("script")));
    let found = server.get(&format!("/sessions?agent_id={}", agent.as_str().unwrap())).await.json();
    assert_eq!((&found["total"], &found["items"][0]["id"]), (&json!(1), &made["id"]));
    assert_eq!(server.post("/sessions", session(&foreign)).await.fault(404), "agent_id");
    server.delete(&format!("/agents/{}", agent.as_str().unwrap())).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(server.post("/sessions", session(&agent)).await.fault(404), "agent_id");
    let former = server.post("/sessions", json!({"project_id": "demo", "agent": "script"})).await;
    assert_eq!(former.json()["reason"], "agent: unknown field; it is now named agent_type");
}

#[tokio::test]
async fn a_kind_that_is_kept_in_anothers_stream_has_its_history_there() {
    let server = Server::start().await;
    let project = server.project("demo").await;
    server.patch("/projects/demo", json!({"settings": {"inactivity_timeout": 60}})).await.expect(StatusCode::OK);
    let commands = async |kind: &str, count: usize| {
        let list = server.operations(&format!("entity_kind={kind}&project_id={project}&order=asc"), count).await;
        list["items"].as_array().unwrap().iter().map(|o| o["command"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(commands("project", 4).await, ["create", "grant", "grant", "patch"]);
    assert_eq!(commands("permission", 3).await, ["create", "grant", "grant"]);
    assert_eq!(commands("project_settings", 2).await, ["create", "patch"]);
    assert_eq!(server.get("/operations?entity_kind=permissions").await.fault(400), "entity_kind");
    assert_eq!(server.post("/replay/verify", json!({"entity_kind": "permission"})).await.fault(400), "entity_kind");
}

#[tokio::test]
async fn who_may_edit_a_project_writes_its_definitions() {
    let server = Server::start().await;
    server.project("demo").await;
    let request = server.request_as(ALICE, Method::POST, "/agents");
    let created = Answer::of(request.json(&json!({"project_id": "demo", "name": "mine"})).send().await.unwrap()).await;
    assert_eq!(created.expect(StatusCode::CREATED)["created_by_user_id"], "alice");
}
