use chrono::TimeDelta;
use serde_json::{Value, json};

use super::*;
use crate::stub;

fn session(changes: &Value) -> Session {
    serde_json::from_value(stub::session(changes)).unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").unwrap().to_utc() + TimeDelta::minutes(10)
}

#[test]
fn a_session_says_in_a_line_how_it_is_and_why() {
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Idle", "message": "", "last_transition_time": "2026-01-02T03:10:00Z",
        "observed_generation": 1,
    });
    let sessions = [
        session(&json!({"name": "never started"})),
        session(&json!({"name": "a\u{1b}[2J name", "phase": "Running", "run": 2, "conditions": [condition]})),
        session(&json!({
            "phase": "Failed", "run": 1, "outcome": {"phase": "Failed", "reason": "RunnerExit", "message": "", "exit_code": 3},
        })),
        session(&json!({
            "phase": "Creating", "run": 1, "outcome": {"phase": "Failed", "reason": "Earlier", "message": "", "exit_code": 3},
            "status_detail": {"reason": "RepoCloneFailed", "since": "2026-01-02T03:10:00Z", "blocked_on": null,
                "next_retry_at": null, "workflow_execution": null},
        })),
    ];
    insta::assert_snapshot!(table_at(&sessions, now()).render(""), @r"
    ID                            NAME              PHASE      RUN   TYPE     AGE   REASON
    2PzyKuGf4Pp1cYCmLvjkxyDiEBD   never started     New        -     script   10m   -
    2PzyKuGf4Pp1cYCmLvjkxyDiEBD   a\u{1b}[2J name   Running    2     script   10m   Idle
    2PzyKuGf4Pp1cYCmLvjkxyDiEBD   demo              Failed     1     script   10m   RunnerExit
    2PzyKuGf4Pp1cYCmLvjkxyDiEBD   demo              Creating   1     script   10m   RepoCloneFailed
    ");
}

#[test]
fn a_session_in_full() {
    let full = session(&json!({
        "phase": "Stopping", "run": 1, "attempt": 2, "prompt": "```\n# Task\nmore", "labels": {"team": "a"},
        "interactive": true, "inactivity_timeout": 3600, "llm_model": "m-1", "environment_variable_names": ["BAR", "FOO"],
        "annotations": {"note": "x"},
        "resource_overrides": {"cpu": "500m", "memory": "2Gi", "processes": 256},
        "start_time": "2026-01-02T03:05:00Z",
        "repos": [{"url": "file:///r"}, {"url": "https://example.org/x.git", "name": "x", "branch": "dev"}],
        "reconciled_repos": [{"name": "r", "url": "file:///r", "branch": "main", "head": "0123456789abcdef", "cloned_at": "2026-01-02T03:05:10Z"}],
        "outcome": {"phase": "Failed", "reason": "RunnerExit", "message": "block 1 ended with 3", "exit_code": 3},
        "status_detail": {"reason": "StopIncomplete", "since": "2026-01-02T03:10:00Z", "blocked_on": "process 12",
            "next_retry_at": "2026-01-02T03:15:00Z", "workflow_execution": "session-stop/x/1"},
        "conditions": [{"type": "StopIncomplete", "status": "True", "reason": "ProcessLeft", "message": "process 12\n",
            "last_transition_time": "2026-01-02T03:10:00Z", "observed_generation": 1}],
    }));
    insta::assert_snapshot!(details(&full, now()), @r"
    Session:    demo (2PzyKuGf4Pp1cYCmLvjkxyDiEBD)
    Project:    2PzyKuGf4Pp1cYCmLvjkxyDiEBC
    Phase:      Stopping
    Kind:       interactive, agent type script, timeout 300 s, stopped after 3600 s without activity
    Created:    2026-01-02T03:04:05Z by admin
    Run:        1, attempt 2, for 9 min 5 s
    Prompt:     # Task …
    Model:      m-1
    Variables:  BAR, FOO
    Limits:     cpu 500m, memory 2Gi, processes 256
    Label:      team=a
    Annotation: note=x
    Version:    1
    Outcome:    Failed (RunnerExit, exit code 3): block 1 ended with 3
    Waits:      StopIncomplete since 2026-01-02T03:10:00Z, for process 12, next try 2026-01-02T03:15:00Z, execution session-stop/x/1

    REPO   BRANCH   HEAD            URL
    r      main     0123456789ab    file:///r
    x      dev      not there yet   https://example.org/x.git

    CONDITION        STATUS   REASON        AGE   MESSAGE
    StopIncomplete   True     ProcessLeft   4m    process 12\n
    ");
    let over = json!({
        "phase": "Stopped", "timeout": null, "outcome": {"phase": "Stopped", "reason": "UserStopped", "message": "", "exit_code": null},
        "status_detail": {"reason": "UserStopped", "since": "2026-01-02T03:10:00Z", "blocked_on": null, "next_retry_at": null,
            "workflow_execution": null},
    });
    insta::assert_snapshot!(details(&session(&over), now()), @"
    Session:    demo (2PzyKuGf4Pp1cYCmLvjkxyDiEBD)
    Project:    2PzyKuGf4Pp1cYCmLvjkxyDiEBC
    Phase:      Stopped
    Kind:       batch, agent type script, no timeout
    Created:    2026-01-02T03:04:05Z by admin
    Version:    1
    Outcome:    Stopped (UserStopped)
    ");
    insta::assert_snapshot!(details(&session(&json!({})), now()), @"
    Session:    demo (2PzyKuGf4Pp1cYCmLvjkxyDiEBD)
    Project:    2PzyKuGf4Pp1cYCmLvjkxyDiEBC
    Phase:      New
    Kind:       batch, agent type script, timeout 300 s
    Created:    2026-01-02T03:04:05Z by admin
    Version:    1
    ");
}

#[test]
fn a_session_says_what_became_of_its_repositories() {
    let status = |repo: &str, status: &str, commit: Value, message: Value| {
        json!({"repo": repo, "status": status, "url": "file:///r", "branch": "out", "commit": commit, "message": message,
               "at": "2026-01-02T03:05:00Z"})
    };
    let shown = details(
        &session(&json!({
            "repo_statuses": [
                status("a", "pushed", json!("0123456789abcdef"), Value::Null),
                status("b\u{1b}[2J", "failed", Value::Null, json!("the origin refused the push")),
            ],
            "results": "All done.\nMore of it.", "error": "PushFailed: repository 'b' cannot be pushed",
        })),
        now(),
    );
    let has = |line: &str| assert!(shown.lines().any(|shown| shown == line), "{shown}");
    has("a: pushed 0123456789ab to out of file:///r");
    has("b\\u{1b}[2J: not pushed to out of file:///r: the origin refused the push");
    assert!(shown.contains("PushFailed: repository 'b' cannot be pushed") && shown.contains("All done."), "{shown}");
}
