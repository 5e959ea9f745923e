use clap::{CommandFactory, Parser};
use serde_json::json;

use super::*;
use crate::{
    Arguments,
    output::capture::{self, Captured},
    stub::{self, Received, Reply, SESSION, Stub, ok, refused},
};

async fn ambient(url: &str, arguments: &[&str]) -> (Exit, Captured, Captured) {
    ambient_on(false, url, arguments).await
}

async fn ambient_on(terminal: bool, url: &str, arguments: &[&str]) -> (Exit, Captured, Captured) {
    let base = ["ambient", "--url", url, "--token", "t", "--project", "local"];
    let Arguments { globals, command } = Arguments::try_parse_from(base.iter().chain(arguments)).unwrap();
    let (console, out, err) = capture::console(terminal, false);
    let invocation = Invocation { globals, environment: Environment::default(), console };
    let console = invocation.console.clone();
    (end(&console, execute(command, invocation).await), out, err)
}

fn list(items: &[serde_json::Value]) -> Reply {
    ok(&json!({"kind": "List", "page": 1, "size": items.len(), "total": items.len(), "items": items}))
}

fn server(request: &Received) -> Reply {
    let line = request.line.replace(SESSION, "SESSION");
    match line.as_str() {
        "GET /sessions?name=demo&project_id=local&size=10" => list(&[stub::session(&json!({}))]),
        "GET /sessions?name=abcdefghijklmnopqrstuvwxyz1&project_id=local&size=10" => list(&[stub::session(&json!({}))]),
        "GET /sessions?name=2PzyKuGf4Pp1cYCmLvjkxyDiEBE&project_id=local&size=10" => list(&[stub::session(&json!({}))]),
        "GET /sessions/2PzyKuGf4Pp1cYCmLvjkxyDiEBE" => {
            ok(&stub::session(&json!({"id": "2PzyKuGf4Pp1cYCmLvjkxyDiEBE"})))
        }
        "GET /sessions?name=SESSION&project_id=local&size=10" => list(&[]),
        "GET /sessions?name=two&project_id=local&size=10" => {
            list(&[stub::session(&json!({"id": "a"})), stub::session(&json!({"id": "b"}))])
        }
        "GET /sessions?project_id=local&phase=New" | "GET /sessions?name=none&project_id=local&size=10" => list(&[]),
        "GET /sessions?project_id=local" => list(&[stub::session(&json!({}))]),
        "GET /sessions/SESSION" => ok(&stub::session(&json!({"last_seq": 3}))),
        "GET /sessions/SESSION?version=2" => ok(&stub::session(&json!({
            "version": 2, "phase": "Running", "run": 1, "attempt": 1, "start_time": "2026-01-02T03:04:07Z",
            "updated_at": "2026-01-02T03:04:10Z",
            "conditions": [{"type": "Ready", "status": "True", "reason": "Idle", "message": "",
                "last_transition_time": "2026-01-02T03:04:08Z", "observed_generation": 1}],
        }))),
        "GET /sessions/SESSION/events?size=1000" => {
            let event = |seq: i64| json!({"seq": seq, "type": "agent.text", "data": {"type": "agent.text", "message_id": "m", "text": format!("{seq}\n")}, "at": "2026-01-02T03:04:05Z"});
            list(&[event(1), event(2), event(3)])
        }
        "GET /sessions/SESSION/workspace/src/a%20b.bin" => Reply::Http(200, "", "raw\u{1b}[31m".to_owned()),
        "GET /sessions/SESSION/workspace/src" => refused(400, "path: is a directory"),
        "GET /sessions/SESSION/workspace/out" => refused(400, "path: leads out of the workspace"),
        "GET /sessions/SESSION/workspace?path=out" => refused(409, "path: is not a directory"),
        "GET /sessions/SESSION/workspace?path=src" | "GET /sessions/SESSION/workspace?path=" => {
            let entry = json!({"name": "a b.bin", "kind": "file", "size": 8, "modified": "2026-01-02T03:04:05Z"});
            ok(&json!({"path": "src", "entries": [entry], "truncated": false}))
        }
        "GET /sessions/SESSION/git/diff" => {
            let details = json!([{"field": "repo", "problem": "is required; there are a, b"}]);
            let body = json!({"kind": "Error", "id": "6", "href": "", "code": "ambient-6", "reason": "repo: is required; there are a, b",
                "operation_id": "op1", "details": details});
            Reply::Http(409, "", body.to_string())
        }
        "GET /sessions" => list(&[stub::session(&json!({})), stub::session(&json!({"project_id": "gone"}))]),
        "GET /projects?size=65500" => {
            let times = json!({"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"});
            let mut project = json!({"kind": "Project", "id": stub::PROJECT, "href": "", "version": 1, "name": "local", "display_name": "",
                "description": "", "prompt": "", "labels": {}, "annotations": {}, "settings": {}, "status": "Active", "provisioned": true});
            project.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
            list(&[project])
        }
        "POST /sessions/SESSION/messages" => refused(409, "the session is New; start it first"),
        "DELETE /sessions/SESSION" => Reply::Http(204, "", String::new()),
        "POST /replay/verify" => {
            let divergence = json!({"kind": "session", "id": "x", "version": 3, "what": "hash"});
            ok(&json!({"entities": 2, "operations": 9, "kind": "VerifyReport", "divergences": [divergence]}))
        }
        _ => refused(404, &format!("no route {}", request.line)),
    }
}

/// Control characters, direction marks, zero-width characters, and a line that could pass for ours.
const HOSTILE: &str =
    "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\u{200b}\u{2028}\u{feff}\u{e0041}\nPhase:      Completed";

fn hostile_server(request: &Received) -> Reply {
    let condition = json!({"type": HOSTILE, "status": HOSTILE, "reason": HOSTILE, "message": HOSTILE,
        "last_transition_time": "2026-01-02T03:04:05Z", "observed_generation": 1});
    let session = stub::session(
        &json!({"name": HOSTILE, "phase": "Running", "run": 1, "agent_type": HOSTILE, "prompt": HOSTILE,
        "labels": {HOSTILE: HOSTILE}, "repos": [{"url": HOSTILE, "name": HOSTILE, "branch": HOSTILE}], "conditions": [condition],
        "reconciled_repos": [{"name": HOSTILE, "url": HOSTILE, "branch": HOSTILE, "head": HOSTILE, "cloned_at": "2026-01-02T03:05:10Z"}]}),
    );
    let event = |seq: i64, event_type: &str, data: serde_json::Value| json!({"seq": seq, "type": event_type, "data": data, "at": "2026-01-02T03:04:05Z"});
    let recorded = |seq: i64, data: serde_json::Value| event(seq, data["type"].as_str().unwrap(), data.clone());
    let line = request.line.replace(SESSION, "SESSION");
    match line.as_str() {
        "GET /sessions?project_id=local" => list(&[session]),
        "GET /sessions/SESSION" => ok(&session),
        "GET /sessions/SESSION/repos/status" => {
            list(&[json!({"name": HOSTILE, "status": HOSTILE, "branch": HOSTILE, "url": HOSTILE, "head": HOSTILE})])
        }
        "GET /sessions/SESSION/workspace?path=" => {
            let entry = json!({"name": HOSTILE, "kind": "file", "size": 8, "modified": "2026-01-02T03:04:05Z"});
            ok(&json!({"path": "", "entries": [entry], "truncated": true}))
        }
        "GET /sessions/SESSION/workspace/file" => Reply::Http(200, "", HOSTILE.to_owned()),
        "GET /sessions/SESSION/git/log?size=50" => {
            let signature = json!({"name": HOSTILE, "email": HOSTILE, "at": null});
            let commit = json!({"commit": HOSTILE, "parents": [], "author": signature, "committer": signature, "message": HOSTILE, "message_truncated": false});
            ok(&json!({"repo": HOSTILE, "items": [commit], "next": null}))
        }
        "GET /sessions/SESSION/git/list-branches" => {
            let branch = json!({"name": HOSTILE, "commit": HOSTILE, "committed_at": null, "subject": HOSTILE});
            ok(&json!({"repo": HOSTILE, "branch": HOSTILE, "local": [branch], "origin": [branch], "truncated": true}))
        }
        "GET /sessions/SESSION/git/merge-status" => {
            ok(&json!({"repo": HOSTILE, "url": HOSTILE, "branch": HOSTILE, "origin": HOSTILE,
            "head": HOSTILE, "ahead": 1, "behind": 1, "conflicts": [HOSTILE], "truncated": false}))
        }
        "GET /sessions/SESSION/workspace_stat?path=file" => {
            ok(&json!({"path": HOSTILE, "kind": HOSTILE, "size": 8, "mode": HOSTILE,
            "modified": "2026-01-02T03:04:05Z", "sha256": HOSTILE}))
        }
        "GET /sessions/SESSION/git/diff" => Reply::Http(200, "", format!("diff --git a/{HOSTILE}\n+{HOSTILE}\r\n")),
        "GET /sessions/SESSION/events?size=1000" => list(&[
            event(1, "session.phase", json!({"phase": HOSTILE, "reason": HOSTILE, "message": HOSTILE})),
            event(2, "user.message", json!({"text": HOSTILE})),
            recorded(
                3,
                json!({"type": "tool.started", "tool_call_id": "a", "title": HOSTILE, "kind": "execute", "status": "pending",
                "input": {"command": HOSTILE}, "content": [{"type": "diff", "path": HOSTILE, "new_text": HOSTILE}]}),
            ),
            recorded(
                4,
                json!({"type": "permission.requested", "interrupt_id": HOSTILE, "turn_id": "t", "tool_call_id": "b",
                "title": HOSTILE, "kind": "edit", "paths": [HOSTILE], "fingerprint": "", "answers": ["once"]}),
            ),
            recorded(5, json!({"type": "tool.updated", "tool_call_id": "a", "status": "failed", "output": HOSTILE})),
            recorded(
                6,
                json!({"type": "agent.plan", "entries": [{"content": HOSTILE, "priority": "low", "status": HOSTILE}]}),
            ),
            recorded(7, json!({"type": "agent.ended", "incarnation": 1, "exit_code": null, "reason": HOSTILE})),
            recorded(8, json!({"type": "agent.settings", "mode": HOSTILE, "model": HOSTILE})),
            recorded(9, json!({"type": "agent.notice", "text": HOSTILE})),
            recorded(
                10,
                json!({"type": "turn.result", "turn_id": "t", "outcome": "error", "code": HOSTILE, "message": HOSTILE}),
            ),
            recorded(
                11,
                json!({"type": "usage", "turn_id": "t", "source": "agent", "currency": HOSTILE, "cost_micros": 1}),
            ),
            recorded(
                12,
                json!({"type": "turn.ended", "turn_id": "t", "message_id": "m", "last_message_seq": 1, "outcome": "error"}),
            ),
        ]),
        _ => refused(404, HOSTILE),
    }
}

#[tokio::test]
async fn nothing_from_a_server_moves_a_cursor_hides_or_passes_for_a_line_of_ours() {
    let stub = Stub::start(hostile_server).await;
    let commands = [
        &["session", "list"][..],
        &["session", "get", SESSION],
        &["session", "repo", "list", SESSION],
        &["session", "files", SESSION],
        &["session", "files", SESSION, "file"],
        &["session", "diff", SESSION],
        &["session", "log", SESSION],
        &["session", "branches", SESSION],
        &["session", "merge-status", SESSION],
        &["session", "stat", SESSION, "./file"],
        &["session", "logs", SESSION],
        &["project", "get", SESSION],
    ];
    let harmless = |text: &str| {
        !text.contains(|c: char| {
            c != '\n' && c != '\t' && (c.is_control() || "\u{202e}\u{200b}\u{2028}\u{feff}\u{e0041}".contains(c))
        })
    };
    for command in commands {
        for format in ["table", "name", "json"] {
            let (_, out, err) = ambient_on(true, &stub.url, &[command, &["-o", format]].concat()).await;
            assert!(harmless(&out.text()) && harmless(&err.text()), "{command:?}: {:?} {:?}", out.text(), err.text());
            let is_file = command.ends_with(&["file"]) || command.contains(&"diff");
            // The agent's output has its own lines.
            let has_lines = is_file || command.contains(&"logs");
            assert!(has_lines || !out.text().contains("\nPhase:      Completed"), "{command:?}: {}", out.text());
            // Programs get the exact text, as valid JSON.
            let (_, exact, _) = ambient(&stub.url, &[command, &["-o", format]].concat()).await;
            if format == "json" && !is_file {
                for (terminal, file) in
                    out.text().lines().zip(exact.text().lines()).filter(|_| command.contains(&"logs"))
                {
                    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
                    assert_eq!(parse(terminal), parse(file));
                }
            }
        }
    }
    let (_, file, _) = ambient(&stub.url, &["session", "files", SESSION, "file"]).await;
    let (_, raw, _) = ambient_on(true, &stub.url, &["session", "files", SESSION, "file", "--raw"]).await;
    assert_eq!((file.text().as_str(), raw.text().as_str()), (HOSTILE, HOSTILE));
    let (_, terminal, _) = ambient_on(true, &stub.url, &["session", "list", "-o", "json"]).await;
    let (_, file, _) = ambient(&stub.url, &["session", "list", "-o", "json"]).await;
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!((parse(&terminal.text()), file.text().contains('\u{200b}')), (parse(&file.text()), true));
}

#[tokio::test]
async fn names_are_looked_up_before_ids_and_what_is_both_is_refused() {
    let stub = Stub::start(server).await;
    let named = async |reference: &'static str| {
        let (exit, out, err) = ambient(&stub.url, &["session", "get", reference, "-o", "name"]).await;
        (exit, out.text(), err.text())
    };
    assert_eq!(named("abcdefghijklmnopqrstuvwxyz1").await.1, format!("{SESSION}\n"), "a name that looks like an id");
    assert_eq!(named(SESSION).await.1, format!("{SESSION}\n"), "an id that nobody is named by");
    let (exit, _, err) = named("2PzyKuGf4Pp1cYCmLvjkxyDiEBE").await;
    assert_eq!(exit, Exit::Conflict);
    insta::assert_snapshot!(err, @"error: '2PzyKuGf4Pp1cYCmLvjkxyDiEBE' is the id of one session and the name of another, 2PzyKuGf4Pp1cYCmLvjkxyDiEBD: write 'id:2PzyKuGf4Pp1cYCmLvjkxyDiEBE' for the first");
    assert_eq!(named("id:2PzyKuGf4Pp1cYCmLvjkxyDiEBE").await.1, "2PzyKuGf4Pp1cYCmLvjkxyDiEBE\n");
}

#[tokio::test]
async fn data_goes_to_standard_output_and_all_else_to_standard_error() {
    let stub = Stub::start(server).await;
    let (exit, out, err) = ambient(&stub.url, &["session", "list", "-o", "json"]).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Success, ""));
    assert!(out.text().starts_with("{\"items\":[") || out.text().starts_with("{\"kind\""), "{}", out.text());

    let (_, out, _) = ambient(&stub.url, &["session", "list", "-o", "name"]).await;
    assert_eq!(out.text(), format!("{SESSION}\n"));

    let (exit, out, err) = ambient(&stub.url, &["session", "list", "--phase", "New"]).await;
    assert_eq!((exit, out.text().as_str(), err.text().as_str()), (Exit::Success, "", "no sessions\n"));

    let (_, out, err) = ambient(&stub.url, &["session", "delete", "demo"]).await;
    assert_eq!((out.text().as_str(), err.text()), ("", format!("session demo ({SESSION}) is deleted\n")));
}

#[tokio::test]
async fn a_session_is_named_by_its_id_or_by_its_name_in_the_project() {
    let stub = Stub::start(server).await;
    assert_eq!(ambient(&stub.url, &["session", "get", SESSION]).await.0, Exit::Success);
    assert_eq!(stub.lines().len(), 2, "nobody is named so");
    assert_eq!(ambient(&stub.url, &["session", "get", "demo"]).await.0, Exit::Success);
    let (exit, _, err) = ambient(&stub.url, &["session", "get", "none"]).await;
    assert_eq!((exit, err.text().contains("no session 'none'")), (Exit::NotFound, true));
    let (exit, _, err) = ambient(&stub.url, &["session", "get", "two"]).await;
    assert_eq!(
        (exit, err.text().as_str()),
        (Exit::Conflict, "error: 2 sessions are named 'two'; give the id of one: a, b\n")
    );
}

#[tokio::test]
async fn a_finished_log_is_read_to_its_end() {
    let stub = Stub::start(server).await;
    let (exit, out, _) = ambient(&stub.url, &["session", "logs", SESSION, "--follow"]).await;
    assert_eq!((exit, out.text().as_str()), (Exit::Success, "1\n2\n3\n"));
}

#[tokio::test]
async fn a_file_is_printed_byte_by_byte_and_a_folder_is_listed() {
    let stub = Stub::start(server).await;
    for arguments in [&["src/a b.bin"][..], &["src/a b.bin", "--cat"], &["./src//a b.bin"]] {
        let (exit, out, _) = ambient(&stub.url, &[&["session", "files", SESSION], arguments].concat()).await;
        assert_eq!((exit, out.text().as_str()), (Exit::Success, "raw\u{1b}[31m"), "{arguments:?}");
    }
    for path in ["src", "src/", ""] {
        let (exit, out, _) = ambient(&stub.url, &["session", "files", SESSION, path]).await;
        assert_eq!(exit, Exit::Success, "{path}");
        assert!(out.text().ends_with("2026-01-02T03:04:05Z   8      a b.bin\n"), "{path}: {}", out.text());
    }
    let (exit, out, _) = ambient(&stub.url, &["session", "files", SESSION, "src", "-o", "name"]).await;
    assert_eq!((exit, out.text().as_str()), (Exit::Success, "src/a b.bin\n"));
    let (exit, _, err) = ambient(&stub.url, &["session", "files", SESSION, "src", "--cat"]).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Rejected, "error: path: is a directory\n"));
    let (exit, _, err) = ambient(&stub.url, &["session", "files", SESSION, "out"]).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Rejected, "error: path: leads out of the workspace\n"));
}

#[tokio::test]
async fn a_list_over_all_projects_names_them() {
    let stub = Stub::start(server).await;
    let (exit, out, err) = ambient(&stub.url, &["session", "list", "-A"]).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Success, ""));
    let columns: Vec<_> = out.text().lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert_eq!(columns, ["PROJECT", "local", "gone"]);
}

#[tokio::test]
async fn failures_end_with_their_codes() {
    let stub = Stub::start(server).await;
    let (exit, _, err) = ambient(&stub.url, &["session", "send", SESSION, "Hello"]).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Conflict, "error: the session is New; start it first\n"));
    assert_eq!(ambient(&stub.url, &["operations", "get", "x"]).await.0, Exit::NotFound);
    assert_eq!(ambient(&stub.url, &["operations", "get", ".."]).await.0, Exit::Usage);
    assert_eq!(ambient(&stub.url, &["session", "files", SESSION, "../x"]).await.0, Exit::Usage);
    let (exit, _, err) = ambient(&stub.url, &["session", "diff", SESSION]).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Usage, "error: --repo: is required; there are a, b\n"));
    let (exit, out, err) = ambient(&stub.url, &["replay", "verify"]).await;
    let told = "9 operations of 2 entities replayed: 1 entity differs from what was recorded\n";
    assert_eq!((exit, err.text().as_str()), (Exit::Failure, told));
    assert!(out.text().ends_with("session   x    3         hash\n"), "{}", out.text());
}

#[tokio::test]
async fn contexts_are_chosen_and_shown_without_their_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let run = async |arguments: &[&str]| {
        let Arguments { globals, command } = Arguments::try_parse_from(["ambient"].iter().chain(arguments)).unwrap();
        let (console, out, err) = capture::console(false, false);
        let environment =
            Environment { config: Some(path.clone()), token: Some("hush".to_owned()), ..Environment::default() };
        let invocation = Invocation { globals, environment, console };
        let exit = end(&invocation.console.clone(), execute(command, invocation).await);
        assert!(!out.text().contains("hush") && !err.text().contains("hush"));
        (exit, out.text())
    };
    assert_eq!(run(&["context", "list"]).await, (Exit::Success, String::new()));
    assert_eq!(run(&["context", "set", "one", "--url", "http://127.0.0.1:1", "--project", "p"]).await.0, Exit::Success);
    assert_eq!(run(&["context", "set", "two", "--url", "http://127.0.0.1:2"]).await.0, Exit::Success);
    assert_eq!(run(&["context", "use", "three"]).await.0, Exit::Config);
    assert_eq!(run(&["context", "use", "one"]).await.0, Exit::Success);
    insta::assert_snapshot!(run(&["context", "list"]).await.1, @"
    CURRENT   NAME   URL                  PROJECT
    *         one    http://127.0.0.1:1   p
              two    http://127.0.0.1:2   -
    ");
    insta::assert_snapshot!(run(&["context", "show"]).await.1, @"
    Name:     one
    URL:      http://127.0.0.1:1
    Token:    (redacted)
    Project:  p
    ");
    insta::assert_snapshot!(run(&["context", "show", "two", "-o", "json"]).await.1, @r#"{"name":"two","url":"http://127.0.0.1:2","token":"redacted","project":null,"current":false}"#);
}

#[tokio::test]
async fn an_earlier_version_is_as_old_as_it_was_then() {
    let stub = Stub::start(server).await;
    let get = ["session", "get", &format!("id:{SESSION}"), "--at-version", "2"];
    let (exit, out, _) = ambient(&stub.url, &get).await;
    let out = out.text();
    assert_eq!(exit, Exit::Success);
    assert!(out.contains("Run:        1, attempt 1, for 3.0 s\n"), "{out}");
    assert!(out.lines().last().unwrap().split_whitespace().eq(["Ready", "True", "Idle", "2s", "-"]), "{out}");
}

#[test]
fn every_command_has_an_example() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let subcommands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if subcommands.is_empty() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:\n  "), "{path}");
            assert!(command.get_about().is_some(), "{path}");
        }
        subcommands.into_iter().for_each(|sub| visit(sub, &path));
    }
    let command = Arguments::command();
    command.clone().debug_assert();
    visit(&command, "");
}

#[test]
fn wrong_arguments_are_told_apart_from_help() {
    let code = |arguments: &[&str]| {
        let error = Arguments::try_parse_from(["ambient"].iter().chain(arguments)).unwrap_err();
        if error.use_stderr() { Exit::Usage } else { Exit::Success }
    };
    assert_eq!(code(&["run", "--help"]), Exit::Success);
    for wrong in [
        &["run"][..],
        &["run", "--prompt", "x", "-f", "y"],
        &["run", "--prompt", "x", "--keep", "--delete"],
        &["run", "--prompt", "x", "--detach", "--delete"],
        &["run", "--prompt", "x", "--push", "b"],
        &["run", "--prompt", "x", "--timeout", "0"],
        &["session", "get"],
        &["session", "start", "x", "--wait-timeout", "3"],
        &["session", "create", "--label", "x"],
        &["project", "list", "-o", "yaml"],
        &["project", "list", "--size", "65501"],
        &["executions", "signal", "x", "y", "--input", "{"],
        &["nonsense"],
    ] {
        assert_eq!(code(wrong), Exit::Usage, "{wrong:?}");
    }
}

fn interrupt(id: &str, status: &str) -> serde_json::Value {
    json!({"kind": "Interrupt", "id": id, "session_id": SESSION, "status": status, "outcome": null, "title": "Run make test",
        "tool": "execute", "command": "make test", "paths": [], "tool_call_id": "c", "turn_id": "t",
        "answers": ["once", "always", "reject"], "rule": {"effect": "allow", "tool": "execute", "command": "make test"},
        "raised_at": "2026-01-02T03:04:05Z", "closed_at": null, "answer": null, "earlier_answer": null})
}

/// Of session `demo` one request waits, of session `two` several do.
fn asking(request: &Received) -> Reply {
    let line = request.line.replace(SESSION, "SESSION");
    match line.as_str() {
        "GET /inbox" | "GET /inbox?project_id=local" => {
            list(&[json!({"kind": "InboxItem", "project_id": stub::PROJECT,
            "project_name": "local", "session_id": SESSION, "session_name": "demo", "interrupt": interrupt("1-1-3", "waiting")})])
        }
        "GET /sessions?name=demo&project_id=local&size=10" => list(&[stub::session(&json!({}))]),
        "GET /sessions?name=two&project_id=local&size=10" => list(&[stub::session(&json!({"id": "two"}))]),
        "GET /sessions/SESSION/interrupts" => list(&[interrupt("1-1-2", "answered"), interrupt("1-1-3", "waiting")]),
        "GET /sessions/two/interrupts" => list(&[interrupt("1-1-2", "waiting"), interrupt("1-1-3", "waiting")]),
        "POST /sessions/SESSION/interrupts/1-1-3" | "POST /sessions/two/interrupts/1-1-2" => {
            let mut answered = interrupt("1-1-3", "answered");
            let given: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            answered["answer"] =
                json!({"answer": given["answer"], "by": "me", "at": "2026-01-02T03:04:06Z", "message_id": null});
            ok(&answered)
        }
        "POST /sessions" => ok(&stub::session(&json!({}))),
        _ => refused(404, &format!("no route {}", request.line)),
    }
}

#[tokio::test]
async fn what_waits_is_listed_and_answered_by_the_session_alone_if_it_asks_one_thing() {
    let stub = Stub::start(asking).await;
    for arguments in [&["inbox"][..], &["inbox", "--this-project"]] {
        let (_, out, _) = ambient(&stub.url, arguments).await;
        assert!(out.text().contains("$ make test") && out.text().contains("1-1-3"), "{}", out.text());
    }
    let (exit, out, _) = ambient(&stub.url, &["session", "answer", "demo", "always"]).await;
    assert_eq!(exit, Exit::Success);
    insta::assert_snapshot!(out.text(), @"1-1-3 answered: Run make test; allowed from now on: make test");
    let reject = ["session", "answer", "two", "1-1-2", "reject", "-m", "Use ninja"];
    assert_eq!(ambient(&stub.url, &reject).await.0, Exit::Success);
    let posted: Vec<_> = stub.requests().into_iter().filter(|request| request.line.starts_with("POST")).collect();
    assert_eq!(posted[1].body, r#"{"answer":"reject","message":"Use ninja"}"#);
    assert!(posted.iter().all(|request| request.headers.contains_key("idempotency-key")));

    let (exit, _, err) = ambient(&stub.url, &["session", "answer", "two", "once"]).await;
    assert_eq!(exit, Exit::Conflict);
    insta::assert_snapshot!(err.text(), @"error: 2 requests wait; give the id of one: 1-1-2, 1-1-3");
    let (exit, _, err) = ambient(&stub.url, &["session", "answer", "demo", "once", "-m", "x"]).await;
    assert_eq!((exit, err.text().as_str()), (Exit::Usage, "error: --message: goes with reject only\n"));
}

#[tokio::test]
async fn what_an_agent_may_do_comes_from_a_file_and_from_flags() {
    let stub = Stub::start(asking).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("permissions.json");
    std::fs::write(&file, r#"{"rules": [{"effect": "deny", "path": "secrets/**"}], "otherwise": "allow"}"#).unwrap();
    let file = file.to_str().unwrap();
    let create = ["session", "create", "--permissions", file, "--allow", "make *", "--allow", "ls"];
    assert_eq!(ambient(&stub.url, &create).await.0, Exit::Success);
    let sent: serde_json::Value = serde_json::from_str(&stub.requests()[0].body).unwrap();
    let allowed = |command: &str| json!({"effect": "allow", "tool": "execute", "command": command});
    let rules = json!([allowed("make *"), allowed("ls"), {"effect": "deny", "path": "secrets/**"}]);
    assert_eq!(sent["permissions"], json!({"rules": rules, "otherwise": "allow"}));
    std::fs::write(file, r#"{"rule": []}"#).unwrap();
    let (exit, _, err) = ambient(&stub.url, &["session", "create", "--permissions", file]).await;
    assert_eq!(exit, Exit::Usage);
    assert!(err.text().contains("--permissions") && err.text().contains("unknown field `rule`"), "{}", err.text());
}

#[tokio::test]
async fn what_a_session_may_use_of_models_comes_from_a_file_and_from_flags() {
    let stub = Stub::start(asking).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("models.json");
    std::fs::write(&file, r#"{"allowed": ["m"], "limits": {"tokens": 9, "cost_micros": 9}}"#).unwrap();
    let file = file.to_str().unwrap();
    let create = ["session", "create", "--models", file, "--cost-limit", "2.50"];
    assert_eq!(ambient(&stub.url, &create).await.0, Exit::Success);
    let sent: serde_json::Value = serde_json::from_str(&stub.requests()[0].body).unwrap();
    assert_eq!(sent["models"], json!({"allowed": ["m"], "limits": {"tokens": 9, "cost_micros": 2_500_000}}));
}

#[tokio::test]
async fn models_are_listed_with_who_named_them_and_a_budget_with_what_is_left() {
    let stub = Stub::start(|request| match request.line.as_str() {
        "GET /projects/local/models" => ok(&json!({
            "kind": "ModelList", "page": 1, "size": 1, "total": 1, "is_restricted": false,
            "items": [{"id": "m", "is_default": true, "price": null, "named_by": "project"}],
            "endpoints": [{"provider": "openai", "host": "llm:1", "named_by": "server", "has_key": true}],
            "session_limits": {"tokens": 1000},
        })),
        "GET /projects/local/usage" => ok(&json!({
            "kind": "ProjectUsage", "days": [], "models": [],
            "total": {"calls": 0, "input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0,
                "cost_micros": null, "currency": null, "counted_by": null},
            "budget": {"period": "day", "since": "2026-01-02T00:00:00Z", "currency": "USD", "tokens": 5000, "used_tokens": 1000,
                "left_tokens": 4000, "cost_micros": null, "used_cost_micros": 0, "left_cost_micros": null},
        })),
        _ => refused(404, "not found"),
    })
    .await;
    let (exit, out, _) = ambient(&stub.url, &["project", "models", "local"]).await;
    let text = out.text();
    assert!(
        exit == Exit::Success && text.contains("llm:1") && text.contains("any other model may be asked too"),
        "{text}"
    );
    assert!(text.contains("limit for a session: 1,000 tokens"), "{text}");
    let (_, out, _) = ambient(&stub.url, &["project", "models", "local", "-o", "name"]).await;
    assert_eq!(out.text(), "m\n");
    let (_, out, _) = ambient(&stub.url, &["project", "usage", "local"]).await;
    assert!(out.text().contains("budget today (UTC): 4,000 tokens left of 5,000 tokens"), "{}", out.text());
}
