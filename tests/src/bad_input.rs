//! Requests that must be refused, with the field at fault: for tests of the edge by itself and of a whole server.

use serde_json::{Value, json};

/// Ids that no session has.
pub const UNKNOWN_IDS: [&str; 6] =
    ["nope", "%2e%2e", "a%20b", "000000000000000000000000000", "zzzzzzzzzzzzzzzzzzzzzzzzzzz", "\u{fc}"];

/// Sessions that cannot be created in `project`; `origin` is a repository's URL that would do.
#[must_use]
pub fn sessions(project: &str, origin: &str) -> Vec<(Value, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut body = json!({"project_id": project});
        body[field] = value;
        body
    };
    let fork = |url: &str| json!({"push_to": "fork", "target_repo": url});
    let repo = |field: &str, value: Value| {
        let mut repo = json!({"url": origin});
        repo[field] = value;
        with("repos", json!([repo]))
    };
    let many = |key: &str, count: usize| (0..count).map(|i| (format!("{key}{i}"), json!("v"))).collect::<Value>();
    let limit = |name: &str, value: Value| with("resource_overrides", json!({name: value}));
    let mut cases = vec![
        (with("bogus", json!(1)), "bogus"),
        (with("resource_overrides", json!("2Gi")), "resource_overrides"),
        (with("resource_overrides", json!(["1"])), "resource_overrides"),
        (limit("gpu", json!("1")), "resource_overrides.gpu"),
        (limit("cpu", json!("many")), "resource_overrides.cpu"),
        (limit("cpu", json!("0")), "resource_overrides.cpu"),
        (limit("cpu", json!(2)), "resource_overrides.cpu"),
        (limit("memory", json!("-1Gi")), "resource_overrides.memory"),
        (limit("memory", json!("1GB")), "resource_overrides.memory"),
        (limit("disk", json!("9999999Ti")), "resource_overrides.disk"),
        (limit("processes", json!(1)), "resource_overrides.processes"),
        (limit("processes", json!("many")), "resource_overrides.processes"),
        (limit("open_files", json!(-1)), "resource_overrides.open_files"),
        (with("timeout", json!("long")), "timeout"),
        (with("timeout", json!(0)), "timeout"),
        (with("name", json!("")), "name"),
        (with("name", json!("a\0b")), "name"),
        (with("name", json!("a\u{7}b")), "name"),
        (with("name", json!(" ")), "name"),
        (with("name", json!("..")), "name"),
        (with("name", json!("--all")), "name"),
        (with("name", json!("a\u{200b}b")), "name"),
        (with("name", json!("a\u{202e}b")), "name"),
        (with("name", json!("a\u{fe0f}")), "name"),
        (with("name", json!("a\u{2028}b")), "name"),
        (with("name", json!("https://bot:ab/cd@host/x")), "name"),
        (with("llm_model", json!("-x")), "llm_model"),
        (with("labels", json!({"--all": "x"})), "labels.--all"),
        (with("labels", json!({"a": "b\u{feff}"})), "labels.a"),
        (with("annotations", json!({"/": "x"})), "annotations./"),
        (with("annotations", json!({"a": "see https://bot:ab/cd@host/x"})), "annotations.a"),
        (with("labels", many("k", 65)), "labels"),
        (with("annotations", many("k", 65)), "annotations"),
        (with("environment_variables", many("K", 65)), "environment_variables"),
        (with("repos", vec![json!({"url": origin}); 33].into()), "repos"),
        (with("repos", json!([["x", origin]])), "repos[0]"),
        (with("prompt", json!("a\0b")), "prompt"),
        (with("labels", json!([])), "labels"),
        (with("labels", json!({"a\0": "b"})), "labels.a\\0"),
        (with("environment_variables", json!({"1A": "x"})), "environment_variables.1A"),
        (with("environment_variables", json!({"AMBIENT_NONCE": "x"})), "environment_variables.AMBIENT_NONCE"),
        (with("environment_variables", json!({"A": "a\0b"})), "environment_variables.A"),
        (with("environment_variables", json!({"A": "x".repeat(40_000)})), "environment_variables.A"),
        (with("environment_variables", json!({"A": 1})), "environment_variables.A"),
        (with("interactive", json!("yes")), "interactive"),
        (with("interactive", json!(false)), "prompt"),
        (with("agent", json!("script")), "agent"),
        (with("agent_type", json!("--all")), "agent_type"),
        (with("agent_id", json!("nope")), "agent_id"),
        (with("llm_temperature", json!(3)), "llm_temperature"),
        (with("parent_session_id", json!("nope")), "parent_session_id"),
        (with("repos", json!([{"name": "x"}])), "repos[0].url"),
        (repo("bogus", json!(1)), "repos[0].bogus"),
        (repo("name", json!("status")), "repos[0].name"),
        (repo("name", json!("../x")), "repos[0].name"),
        (repo("branch", json!("--upload-pack=x")), "repos[0].branch"),
        (repo("push_to", json!("out")), "repos[0].push_to"),
        (repo("output", json!("out")), "repos[0].output"),
        (repo("output", json!([])), "repos[0].output"),
        (repo("output", json!({"push_to": "elsewhere"})), "repos[0].output.push_to"),
        (repo("output", json!({"bogus": 1})), "repos[0].output.bogus"),
        (repo("output", json!({"target_branch": "-f"})), "repos[0].output.target_branch"),
        (repo("output", json!({"target_repo": origin})), "repos[0].output.target_repo"),
        (repo("output", json!({"push_to": "fork"})), "repos[0].output.target_repo"),
        (repo("output", fork("https://bot:secret@example.invalid/a")), "repos[0].output.target_repo"),
        (repo("output", fork("ssh://example.invalid/a")), "repos[0].output.target_repo"),
        (repo("output", json!({"push_to": "none", "target_branch": "x"})), "repos[0].output.target_branch"),
        (repo("auto_push", json!("yes")), "repos[0].auto_push"),
        (with("main_repo_index", json!(-1)), "main_repo_index"),
        (with("active_workflow", json!("triage")), "active_workflow"),
        (with("active_workflow", json!({"git_url": "ssh://example.invalid/a"})), "active_workflow.git_url"),
        (with("active_workflow", json!({"git_url": origin, "path": "a/../b"})), "active_workflow.path"),
        (with("active_workflow", json!({"git_url": origin, "branch": "-f"})), "active_workflow.branch"),
        (repo("branch", json!("HEAD")), "repos[0].branch"),
        (repo("output", json!({"target_branch": "+main"})), "repos[0].output.target_branch"),
        (repo("submodules", json!("all")), "repos[0].submodules"),
        (repo("output", json!({"target_branch": "a\u{200b}b"})), "repos[0].output.target_branch"),
        (json!({}), "project_id"),
        (json!([]), "body"),
    ];
    let urls = [
        "https://user:secret@example.invalid/a",
        "https://secret@example.invalid/a",
        "https://bot:ab/secret@example.invalid/x.git",
        "https://bot:12/secret@example.invalid/x.git",
        "https://user:p%2Fw@example.invalid/a",
        r"https:\\user@example.invalid/a",
        "ht\ttps://user:secret@example.invalid/a",
        "HTTPS://user:secret@example.invalid/a",
        "https://user:secret\u{ff20}example.invalid/a",
        "file://user@example.invalid/a",
        "git@example.invalid:a/b",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch",
        "ssh://-oProxyCommand=x/a",
        "file:///a/../b",
        "/etc",
    ];
    cases.extend(urls.map(|url| (repo("url", json!(url)), "repos[0].url")));
    cases
}

/// Bodies that are no JSON, and what they are instead. Each is a fault of `body`.
#[must_use]
pub fn unreadable_bodies() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("not JSON", b"{\"name\": ".to_vec()),
        ("empty", Vec::new()),
        ("not UTF-8", b"{\"name\": \"\xff\xfe\"}".to_vec()),
        ("too deep", [b"[".repeat(10_000), b"]".repeat(10_000)].concat()),
        ("a bare NUL", b"{\"name\": \"a\x00b\"}".to_vec()),
    ]
}

/// Paths with a query that cannot be answered; `session` is there.
#[must_use]
pub fn queries(session: &str) -> Vec<(String, &'static str)> {
    let fixed = [
        ("/sessions?bogus=1", "bogus"),
        ("/sessions?page=0", "page"),
        ("/sessions?page=x", "page"),
        ("/sessions?page=1&page=2", "page"),
        ("/sessions?page=1000000001", "page"),
        ("/repository_refs?provider=GitHub", "provider"),
        ("/projects?status=active", "status"),
        ("/sessions?size=-1", "size"),
        ("/sessions?size=65501", "size"),
        ("/sessions?size=99999999999999999999", "size"),
        ("/sessions?order_by=prompt", "order_by"),
        ("/sessions?order_by=name;drop%20table", "order_by"),
        ("/sessions?phase=Nope", "phase"),
        ("/sessions?phase=%00", "phase"),
        ("/sessions?phase=%ff", "phase"),
        ("/sessions?interactive=maybe", "interactive"),
        ("/sessions?label=x", "label"),
        ("/sessions/a%00b", "session_id"),
        ("/operations?after=%21", "after"),
        ("/operations?size=0&after=x", "after"),
        ("/operations?after=1.1000000000000000000", "after"),
        ("/operations?after=%2B1.1", "after"),
        ("/operations?since=yesterday", "since"),
        ("/operations?since=2026-01-31T12:00:00%2B0100", "since"),
        ("/operations?until=2026-01-31%2012:00:00Z", "until"),
        ("/operations?size=1001", "size"),
        ("/operations?entity_kind=sessions", "entity_kind"),
        ("/workflow_executions?status=Nope", "status"),
        ("/workflow_executions?status=PendingDispatch", "status"),
        ("/workflow_executions?workflow=sesion-start", "workflow"),
    ];
    let mut cases: Vec<_> = fixed.into_iter().map(|(path, field)| (path.to_owned(), field)).collect();
    cases.extend([
        (format!("/workflow_executions?session_id={session}&workflow=nope"), "workflow"),
        (format!("/sessions/{session}/events?after_seq=-1"), "after_seq"),
        (format!("/sessions/{session}/events?after_seq=x"), "after_seq"),
        (format!("/sessions/{session}/events?size=1001"), "size"),
        (format!("/sessions/{session}?version=x"), "version"),
        (format!("/sessions/{session}/resources?bogus=1"), "bogus"),
    ]);
    cases
}
