//! AG-UI events, which runners of earlier releases recorded.
//!
//! Our own were `CUSTOM` events `ambient.*`. AG-UI's frames of a message (`TEXT_MESSAGE_START`, `TEXT_MESSAGE_END`, `TOOL_CALL_END`) have no
//! counterpart.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{OutputStream, RepoSnapshot, RunnerEvent, ToolChange, ToolKind, ToolStatus, TurnOutcome, TurnResult};

pub(super) fn read(data: &Value) -> Option<RunnerEvent> {
    let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
    let tool = |change: ToolChange| RunnerEvent::ToolUpdated { tool_call_id: text("toolCallId"), change };
    Some(match data["type"].as_str()? {
        "RUN_STARTED" => RunnerEvent::TurnStarted { turn_id: text("runId"), message_id: text("messageId") },
        "RUN_FINISHED" => RunnerEvent::TurnResult {
            turn_id: text("runId"),
            result: TurnResult { outcome: TurnOutcome::Finished, code: None, exit_code: None, stop_reason: None },
            message: String::new(),
        },
        "RUN_ERROR" => RunnerEvent::TurnResult {
            turn_id: text("runId"),
            result: failed(text("code"), integer(&data["exitCode"])),
            message: text("message"),
        },
        "TEXT_MESSAGE_CONTENT" | "TEXT_MESSAGE_CHUNK" => {
            RunnerEvent::AgentText { message_id: text("messageId"), text: text("delta") }
        }
        "TOOL_CALL_START" => RunnerEvent::ToolStarted {
            tool_call_id: text("toolCallId"),
            title: text("toolCallName"),
            kind: ToolKind::Execute,
            status: ToolStatus::InProgress,
            input: Value::Null,
            locations: Vec::new(),
            content: Vec::new(),
        },
        // In one piece: no runner has split them.
        "TOOL_CALL_ARGS" => {
            tool(ToolChange { input: Some(json!({ "script": text("delta") })), ..ToolChange::default() })
        }
        "TOOL_CALL_RESULT" => {
            let exit_code = integer(&data["exitCode"]);
            let status = if exit_code.unwrap_or(0) == 0 { ToolStatus::Completed } else { ToolStatus::Failed };
            tool(ToolChange {
                status: Some(status),
                output: Some(text("content").into()),
                exit_code,
                ..ToolChange::default()
            })
        }
        "CUSTOM" => return custom(data["name"].as_str()?, &data["value"]),
        _ => return None,
    })
}

fn custom(name: &str, value: &Value) -> Option<RunnerEvent> {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    Some(match name {
        "ambient.attempt_started" => RunnerEvent::AttemptStarted {
            log_id: text("log_id"),
            attempt: integer(&value["attempt"])?,
            resumed: value["resumed"] == true,
        },
        "ambient.message_accepted" => {
            RunnerEvent::MessageAccepted { message_id: text("message_id"), seq: value["seq"].as_i64().unwrap_or(0) }
        }
        "ambient.turn_ended" => RunnerEvent::TurnEnded {
            turn_id: text("run_id"),
            message_id: text("message_id"),
            last_message_seq: value["last_message_seq"].as_i64().unwrap_or(0),
            result: TurnResult {
                outcome: part(&value["outcome"]).unwrap_or(TurnOutcome::Error),
                code: part(&value["code"]),
                exit_code: integer(&value["exit_code"]),
                stop_reason: None,
            },
            problems: value.get("problems").and_then(part),
            repos: part(&value["repos"]).unwrap_or_default(),
        },
        "ambient.tool_output" => RunnerEvent::ToolOutput {
            tool_call_id: text("toolCallId"),
            stream: part(&value["stream"]).unwrap_or(OutputStream::Stdout),
            text: text("text"),
        },
        "ambient.snapshot" => RunnerEvent::RepoSnapshot {
            snapshot: RepoSnapshot {
                repo: text("repo"),
                commit: text("commit"),
                head: part(&value["head"]),
                reference: text("ref"),
                base: part(&value["base"]),
                patch: text("patch"),
                patch_truncated: value["patch_truncated"] == true,
                patch_exact: value["patch_exact"] != false,
                patch_base64: part(&value["patch_base64"]),
                left_out: part(&value["left_out"]).unwrap_or_default(),
                running: value["running"].as_u64().unwrap_or(0),
                changes: None,
                tree: None,
                packs: Vec::new(),
                not_stored: None,
            },
        },
        "ambient.snapshot_failed" => RunnerEvent::RepoSnapshotFailed { repo: text("repo"), reason: text("reason") },
        "ambient.pushed" => RunnerEvent::RepoPushed { repo: text("repo"), pushed: part(value)? },
        "ambient.repo_notices" => {
            RunnerEvent::RepoNotices { repo: text("repo"), notices: part(&value["notices"]).unwrap_or_default() }
        }
        "ambient.exit" => RunnerEvent::RunnerExited { code: integer(&value["code"])?, reason: text("reason") },
        _ => return None,
    })
}

fn failed(code: String, exit_code: Option<i32>) -> TurnResult {
    let stopped = matches!(code.as_str(), "Interrupted" | "Terminated" | "RunnerLost");
    let outcome = if stopped { TurnOutcome::Interrupted } else { TurnOutcome::Error };
    TurnResult { outcome, code: Some(code), exit_code, stop_reason: None }
}

fn integer(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|n| i32::try_from(n).ok())
}

fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_runners_recorded_reads_in_todays_words() {
        let read = |event: Value| RunnerEvent::read(&event);
        let custom = |name: &str, value: Value| read(json!({ "type": "CUSTOM", "name": name, "value": value }));
        assert_eq!(
            read(json!({ "type": "RUN_STARTED", "threadId": "s", "runId": "s/1/1", "messageId": "m" })),
            Some(RunnerEvent::TurnStarted { turn_id: "s/1/1".to_owned(), message_id: "m".to_owned() })
        );
        let lost = json!({ "type": "RUN_ERROR", "runId": "s/1/1", "message": "gone", "code": "RunnerLost" });
        let Some(RunnerEvent::TurnResult { result, message, .. }) = read(lost) else { panic!("a result") };
        assert_eq!((result.outcome, message.as_str()), (TurnOutcome::Interrupted, "gone"));
        let result = json!({ "type": "TOOL_CALL_RESULT", "messageId": "c/result", "toolCallId": "c", "content": "x",
            "role": "tool", "exitCode": 3 });
        let Some(RunnerEvent::ToolUpdated { change, .. }) = read(result) else { panic!("a change") };
        assert_eq!((change.status, change.exit_code), (Some(ToolStatus::Failed), Some(3)));
        let ended = json!({ "run_id": "s/1/1", "message_id": "m", "outcome": "finished", "last_message_seq": 4,
            "repos": [{ "repo": "r", "branch": "b", "head": null }] });
        let Some(RunnerEvent::TurnEnded { result, repos, problems, .. }) = custom("ambient.turn_ended", ended) else {
            panic!("an end")
        };
        assert_eq!((result.outcome, repos.len(), problems), (TurnOutcome::Finished, 1, None));
        assert_eq!(read(json!({ "type": "TEXT_MESSAGE_START", "messageId": "a" })), None);
        assert_eq!(read(json!({ "type": "of.tomorrow" })), None);
    }

    #[test]
    fn an_event_reads_as_it_was_written() {
        let event = RunnerEvent::ToolUpdated {
            tool_call_id: "c".to_owned(),
            change: ToolChange { exit_code: Some(0), output: Some("x".into()), ..ToolChange::default() },
        };
        let written = serde_json::to_value(&event).unwrap();
        assert_eq!(written, json!({ "type": "tool.updated", "tool_call_id": "c", "exit_code": 0, "output": "x" }));
        assert_eq!(RunnerEvent::read(&written), Some(event));
    }
}
