//! Every Kind has the same commands, and flags of its own.

use serde_json::{Value, json};

use crate::{
    Arguments, Exit,
    commands::{Invocation, end, execute},
    config::Environment,
    output::capture,
    stub::{PROJECT, Received, Reply, Stub, ok, refused, session},
};
use clap::Parser;

const ID: &str = "2PzyKuGf4Pp1cYCmLvjkxyDiEBD";

fn agent() -> Value {
    json!({"kind": "Agent", "id": ID, "href": "", "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z",
        "version": 2, "project_id": PROJECT, "name": "reviewer", "created_by_user_id": "admin", "display_name": "",
        "description": "Reads\nchanges", "prompt": "Be kind.", "agent_type": "script", "llm_model": null,
        "resource_overrides": {"cpu": "2"}, "environment_variable_names": ["API_KEY", "STAGE"], "labels": {"team": "web"},
        "annotations": {}})
}

fn server(request: &Received) -> Reply {
    let found = json!({"kind": "AgentList", "page": 1, "size": 1, "total": 1, "items": [agent()]});
    let none = json!({"kind": "AgentList", "page": 1, "size": 0, "total": 0, "items": []});
    match request.line.replace(ID, "ID").as_str() {
        "POST /agents" | "POST /repository_refs" => Reply::Http(201, "", agent().to_string()),
        "GET /agents?project_id=local" | "GET /agents?name=reviewer&project_id=local&size=10" => ok(&found),
        "GET /agents?project_id=local&name=reviewer&label=team%3Dweb&llm_model=m" => ok(&found),
        "GET /agents?name=none&project_id=local&size=10" => ok(&none),
        "GET /agents/ID" | "GET /agents/ID?version=1" | "PATCH /agents/ID" => ok(&agent()),
        "DELETE /agents/ID" => Reply::Http(204, "", String::new()),
        "GET /operations?entity_kind=agent&entity_id=ID" => {
            ok(&json!({"kind": "OperationList", "page": 1, "size": 0, "total": 0, "items": []}))
        }
        _ => refused(404, &format!("no route {}", request.line)),
    }
}

async fn ambient(stub: &Stub, arguments: &[&str]) -> (Exit, String, String) {
    let base = ["ambient", "--url", &stub.url, "--token", "t", "--project", "local"];
    let Arguments { globals, command } = Arguments::try_parse_from(base.iter().chain(arguments)).unwrap();
    let (console, out, err) = capture::console(false, false);
    let invocation = Invocation { globals, environment: Environment::default(), console };
    let exit = end(&invocation.console.clone(), execute(command, invocation).await);
    (exit, out.text(), err.text())
}

fn body(stub: &Stub, line: &str) -> Value {
    let found = stub.requests().into_iter().rev().find(|request| request.line.starts_with(line)).unwrap();
    serde_json::from_str(&found.body).unwrap()
}

#[tokio::test]
async fn what_flags_say_is_what_is_asked_for() {
    let stub = Stub::start(server).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"prompt": "from the file", "resource_overrides": {"cpu": "2"}}"#).unwrap();
    let from = file.path().to_str().unwrap();
    let create = ["agent", "create", "reviewer", "--from", from, "--prompt", "Be kind.", "--llm-model", "m"];
    let more = ["--llm-temperature", "0.5", "--timeout", "60", "--interactive", "false", "--label", "team=web"];
    assert_eq!(ambient(&stub, &[&create[..], &more].concat()).await.0, Exit::Success);
    let sent = json!({"project_id": "local", "name": "reviewer", "prompt": "Be kind.", "llm_model": "m", "llm_temperature": 0.5,
        "timeout": 60, "interactive": false, "labels": {"team": "web"}, "resource_overrides": {"cpu": "2"}});
    assert_eq!(body(&stub, "POST /agents"), sent);

    let patch = ["agent", "patch", "reviewer", "--name", "critic", "--clear", "llm_model", "--remove-label", "team"];
    assert_eq!(ambient(&stub, &patch).await.0, Exit::Success);
    let sent = json!({"name": "critic", "llm_model": null, "labels": {"team": null}});
    assert_eq!(body(&stub, "PATCH /agents"), sent);
    assert_eq!(ambient(&stub, &["agent", "patch", "reviewer"]).await.0, Exit::Usage);

    // Flags override the file's null; into anything else but an object they would be lost.
    std::fs::write(file.path(), r#"{"labels": null, "annotations": null, "environment_variables": null}"#).unwrap();
    let flags = ["--label", "c=3", "--annotation", "a=b", "--env", "A=b"];
    for (verb, line) in [("patch", "PATCH /agents"), ("create", "POST /agents")] {
        assert_eq!(
            ambient(&stub, &[&["agent", verb, "reviewer", "--from", from][..], &flags].concat()).await.0,
            Exit::Success
        );
        let sent = body(&stub, line);
        let maps = ["labels", "annotations", "environment_variables"].map(|field| sent[field].clone());
        assert_eq!(maps, [json!({"c": "3"}), json!({"a": "b"}), json!({"A": "b"})]);
    }
    for field in ["labels", "annotations", "environment_variables"] {
        std::fs::write(file.path(), json!({field: ["x"]}).to_string()).unwrap();
        for verb in ["patch", "create"] {
            let given = [&["agent", verb, "reviewer", "--from", from][..], &flags].concat();
            let (exit, _, err) = ambient(&stub, &given).await;
            assert_eq!((exit, err), (Exit::Usage, format!("error: --from: {field} is not an object\n")));
        }
    }

    std::fs::write(file.path(), "Be thorough.\n").unwrap();
    assert_eq!(ambient(&stub, &["agent", "patch", "reviewer", "-f", from]).await.0, Exit::Success);
    assert_eq!(body(&stub, "PATCH /agents"), json!({"prompt": "Be thorough.\n"}));

    let create = ["agent", "create", "keeper", "--env", "API_KEY=secret", "--env", "STAGE="];
    assert_eq!(ambient(&stub, &create).await.0, Exit::Success);
    let sent =
        json!({"project_id": "local", "name": "keeper", "environment_variables": {"API_KEY": "secret", "STAGE": ""}});
    assert_eq!(body(&stub, "POST /agents"), sent);
    let patch = ["agent", "patch", "reviewer", "--env", "API_KEY=other", "--remove-env", "STAGE"];
    assert_eq!(ambient(&stub, &patch).await.0, Exit::Success);
    assert_eq!(body(&stub, "PATCH /agents"), json!({"environment_variables": {"API_KEY": "other", "STAGE": null}}));

    let models = r#"{"allowed": ["m"], "endpoints": {"openai": {"key_variable": "API_KEY"}}}"#;
    std::fs::write(file.path(), models).unwrap();
    assert_eq!(ambient(&stub, &["agent", "patch", "reviewer", "--models", from]).await.0, Exit::Success);
    let sent: Value = serde_json::from_str(models).unwrap();
    assert_eq!(body(&stub, "PATCH /agents"), json!({ "models": sent }));
    std::fs::write(file.path(), r#"{"allow": ["m"]}"#).unwrap();
    let (exit, _, err) = ambient(&stub, &["agent", "patch", "reviewer", "--models", from]).await;
    assert!(exit == Exit::Usage && err.contains("--models: is not right"), "{err}");

    // `--url` is the server's.
    let create = ["repository-ref", "create", "docs", "--repo-url", "https://example.org/docs"];
    assert_eq!(ambient(&stub, &create).await.0, Exit::Success);
    let sent = json!({"project_id": "local", "name": "docs", "url": "https://example.org/docs"});
    assert_eq!(body(&stub, "POST /repository_refs"), sent);
}

#[tokio::test]
async fn sessions_and_projects_are_changed_in_the_same_way() {
    let stub = Stub::start(|request| match request.line.replace(ID, "ID").as_str() {
        "PATCH /sessions/ID" => ok(&session(&json!({}))),
        "PATCH /projects/local" => ok(&json!({"kind": "Project", "id": PROJECT, "href": "", "version": 2, "name": "local",
            "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z", "display_name": "", "prompt": "",
            "description": "to try things", "labels": {}, "annotations": {}, "settings": {}, "status": "Active",
            "provisioned": true})),
        _ => refused(404, "not found"),
    })
    .await;
    let id = format!("id:{ID}");
    let patch =
        ["session", "patch", &id, "--name", "other", "--timeout", "60", "--llm-model", "m", "--clear", "prompt"];
    assert_eq!(
        ambient(&stub, &[&patch[..], &["--env", "A=b", "--remove-label", "team"]].concat()).await.0,
        Exit::Success
    );
    let sent = json!({"name": "other", "timeout": 60, "llm_model": "m", "prompt": null, "environment_variables": {"A": "b"},
        "labels": {"team": null}});
    assert_eq!(body(&stub, "PATCH /sessions"), sent);
    assert_eq!(ambient(&stub, &["session", "patch", &id]).await.0, Exit::Usage);
    let patch = ["project", "patch", "local", "--description", "to try things", "--annotation", "a=b"];
    assert_eq!(ambient(&stub, &patch).await.0, Exit::Success);
    assert_eq!(body(&stub, "PATCH /projects"), json!({"description": "to try things", "annotations": {"a": "b"}}));
}

#[tokio::test]
async fn a_definition_is_shown_by_its_fields() {
    let stub = Stub::start(server).await;
    let (_, list, _) = ambient(&stub, &["agents", "ls"]).await;
    let mut lines = list.lines();
    assert_eq!(
        lines.next().unwrap().split("   ").map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>(),
        ["ID", "NAME", "AGENT TYPE", "LLM MODEL", "DESCRIPTION", "AGE"]
    );
    assert!(lines.next().unwrap().starts_with(&format!("{ID}   reviewer   script       -           Reads\\nchanges")));
    let filtered =
        ["agent", "list", "--name", "reviewer", "--label", "team=web", "--filter", "llm_model=m", "-o", "name"];
    assert_eq!(ambient(&stub, &filtered).await.1, format!("{ID}\n"));
    insta::assert_snapshot!(ambient(&stub, &["agent", "get", "reviewer"]).await.1, @r"
    Agent:                      reviewer (2PzyKuGf4Pp1cYCmLvjkxyDiEBD)
    Project:                    2PzyKuGf4Pp1cYCmLvjkxyDiEBC
    Created:                    2026-01-02T03:04:05Z by admin
    Version:                    2
    Description:                Reads
                                changes
    Prompt:                     Be kind.
    Agent type:                 script
    Environment variable names: API_KEY, STAGE
    Resource override:          cpu=2
    Label:                      team=web
    ");
    let (_, json, _) = ambient(&stub, &["agent", "get", "reviewer", "--at-version", "1", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), agent());
    let (exit, _, err) = ambient(&stub, &["agent", "history", "reviewer"]).await;
    assert_eq!((exit, err.as_str()), (Exit::Success, "no operations\n"));
    let (_, _, err) = ambient(&stub, &["agent", "delete", "reviewer"]).await;
    assert_eq!(err, format!("agent reviewer ({ID}) is deleted\n"));
    let (exit, _, err) = ambient(&stub, &["agent", "get", "none"]).await;
    assert_eq!((exit, err.contains("no agent 'none'")), (Exit::NotFound, true));
    let (exit, _, err) = ambient(&stub, &["session", "create", "--agent", "none"]).await;
    assert_eq!((exit, err.contains("--agent-type")), (Exit::NotFound, true), "{err}");
}

#[test]
fn acronyms_are_in_capitals() {
    for (field, title) in
        [("repo_url", "Repo URL"), ("url", "URL"), ("llm_model", "LLM model"), ("agent_id", "Agent ID")]
    {
        assert_eq!(super::show::title(field), title);
    }
}

#[test]
fn help_says_what_a_command_does() {
    let told = |arguments: &[&str]| Arguments::try_parse_from(arguments).unwrap_err().render().to_string();
    assert!(told(&["ambient", "agent", "create", "--help"]).starts_with("Create an agent; its name"));
    assert!(
        told(&["ambient", "repository-ref", "patch", "--help"])
            .starts_with("Change the given fields of a repository ref")
    );
    let all = told(&["ambient", "repository-ref", "--help"]);
    assert!(all.starts_with("Repository references") && !all.contains("rguments of"), "{all}");
}

#[test]
fn wrong_flags_are_refused() {
    for wrong in [
        &["agent"][..],
        &["agent", "create"],
        &["agent", "create", "x", "--timeout", "soon"],
        &["agent", "create", "x", "--interactive", "maybe"],
        &["agent", "create", "x", "--llm-temperature", "nan"],
        &["agent", "patch", "x", "--llm-temperature", "inf"],
        &["session", "patch", "x", "--llm-temperature", "infinity"],
        &["session", "patch", "x", "--llm-temperature", "1e400"],
        &["agent", "patch", "x", "--clear", "prompt"],
        &["agent", "create", "x", "--prompt", "y", "-f", "z"],
        &["session", "patch", "x", "--clear", "inactivity_timeout"],
        &["project", "patch", "x", "--clear", "prompt"],
        &["repository-ref", "create", "x", "--repo-url", "https://h/x", "-f", "z"],
        &["repository-ref", "create", "x"],
        &["repository-ref", "create", "x", "--repo-url", "https://h/x", "--env", "A=b"],
        &["repository-ref", "list", "--filter", "provider"],
    ] {
        let error = Arguments::try_parse_from(["ambient"].iter().chain(wrong)).unwrap_err();
        assert!(error.use_stderr(), "{wrong:?}");
        if let Some(flag) = wrong.iter().find(|flag| **flag == "--llm-temperature") {
            assert!(error.to_string().contains(flag) && error.to_string().contains("finite"), "{error}");
        }
    }
}
