//! Turns: one message at a time, each an AG-UI run that ends with snapshots and `ambient.turn_ended`.

use std::time::Duration;

use ambient_runner_protocol::DeliverMessage;
use ambient_wire::custom;
use serde_json::{Value, json};

use crate::{
    agent,
    app::{App, SharedApp},
    ending::{End, Stop},
    event,
    git::{
        operations,
        snapshot::{self, Snapshots},
    },
    history::{Closed, Fate, History},
    log::LogError,
    messages::Outbox,
    process::Mark,
    turn::{INTERRUPT_PATIENCE, Turn, TurnEnd},
};

/// Timeout for a reader to store everything when the runner ends by itself.
pub(crate) const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// Timeout for all snapshots of a turn, and of one cut short by the runner's end.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(120);
const HASTY_SNAPSHOT_PATIENCE: Duration = Duration::from_secs(4);

/// Works on message after message until the runner ends.
pub(crate) async fn run(app: SharedApp, mut outbox: Outbox, mut turns: u64) {
    loop {
        let message = match outbox.resumed.pop_front() {
            Some(message) if !app.ending.has_begun() => message,
            _ => tokio::select! {
                biased;
                _ = app.ending.begun() => return,
                next = outbox.queue.recv() => match next {
                    Some(message) => message,
                    None => return,
                },
            },
        };
        turns += 1;
        let ended = one(&app, turns, message).await;
        app.current.end();
        match ended {
            Ok(TurnEnd::Failed { message, exit_code, .. }) if !app.attempt.spec.interactive => {
                app.ending.begin(failure(exit_code, message));
                return;
            }
            Ok(_) => {}
            // The watch on the log ends the runner.
            Err(error) => return tracing::error!(%error, "the turn cannot be recorded"),
        }
    }
}

async fn one(app: &SharedApp, number: u64, message: DeliverMessage) -> Result<TurnEnd, LogError> {
    let run_id = app.attempt.run_id(number);
    let stop = app.current.begin();
    if let Some(end) = app.ending.now() {
        app.current.stop(end.stop);
    }
    let thread_id = &app.attempt.spec.session_id;
    let started = json!({ "type": "RUN_STARTED", "threadId": thread_id, "runId": run_id, "messageId": message.id });
    app.log.append(vec![started]).await?;
    let turn = Turn { app: app.clone(), run_id, number, message, stop };
    let outcome = match agent::work(&turn).await {
        Err(LogError::Full) => {
            app.attempt.processes.end(Mark::Turn(turn.run_id.clone()), INTERRUPT_PATIENCE).await;
            TurnEnd::failed("LogFull", LogError::Full.to_string(), None)
        }
        Ok(TurnEnd::Finished) => {
            if !app.attempt.spec.interactive {
                // It ends with this turn anyway, and what is pushed and what is kept should be the same.
                app.attempt.processes.end(Mark::Left(turn.run_id.clone()), INTERRUPT_PATIENCE).await;
            }
            push(&turn).await?
        }
        other => other?,
    };
    close(&turn, &outcome).await?;
    Ok(outcome)
}

/// What a successful turn hands in; one that cannot do so has failed.
async fn push(turn: &Turn) -> Result<TurnEnd, LogError> {
    let pushed = tokio::select! {
        biased;
        () = turn.stopped() => return Ok(TurnEnd::Stopped),
        pushed = operations::push_all(&turn.app.repos) => pushed,
    };
    match pushed {
        Ok(events) if events.is_empty() => Ok(TurnEnd::Finished),
        Ok(events) => turn.app.log.append(events).await.map(|_| TurnEnd::Finished),
        Err(reason) => Ok(TurnEnd::failed("PushFailed", reason, None)),
    }
}

/// Records the end of the AG-UI run, the snapshots, and the end of the turn.
async fn close(turn: &Turn, outcome: &TurnEnd) -> Result<(), LogError> {
    let app = &turn.app;
    let stop = (*turn.stop.borrow()).unwrap_or(Stop::Interrupted);
    let (word, code, exit_code) = match outcome {
        TurnEnd::Finished => ("finished", None, None),
        TurnEnd::Stopped => ("interrupted", Some(stop.code()), None),
        TurnEnd::Failed { code, exit_code, .. } => ("error", Some(*code), *exit_code),
    };
    let reason = match outcome {
        TurnEnd::Finished => String::new(),
        TurnEnd::Stopped if stop == Stop::Interrupted => "the turn was interrupted".to_owned(),
        TurnEnd::Stopped => "the runner was ended".to_owned(),
        TurnEnd::Failed { message, .. } => message.clone(),
    };
    app.log.append(vec![run_end(app, &turn.run_id, code, &reason, exit_code)]).await?;
    let patience = if app.ending.has_begun() { HASTY_SNAPSHOT_PATIENCE } else { SNAPSHOT_PATIENCE };
    let Snapshots { mut events, problems, positions } = snapshot::of_all(&app.repos, turn.number, patience).await;
    let mut ended = turn_ended(&turn.run_id, &turn.message.id, turn.message.seq, word, code, exit_code);
    ended["value"]["problems"] = json!(problems);
    ended["value"]["repos"] = json!(positions);
    events.push(ended);
    app.log.append(events).await?;
    Ok(())
}

fn run_end(app: &App, run_id: &str, code: Option<&str>, reason: &str, exit_code: Option<i32>) -> Value {
    let thread_id = &app.attempt.spec.session_id;
    match code {
        None => json!({ "type": "RUN_FINISHED", "threadId": thread_id, "runId": run_id }),
        Some(code) => {
            let mut event = json!({
                "type": "RUN_ERROR", "message": reason, "code": code, "threadId": thread_id, "runId": run_id,
            });
            if let Some(exit_code) = exit_code {
                event["exitCode"] = exit_code.into();
            }
            event
        }
    }
}

fn turn_ended(
    run_id: &str,
    message_id: &str,
    seq: i64,
    outcome: &str,
    code: Option<&str>,
    exit_code: Option<i32>,
) -> Value {
    let mut value = json!({ "run_id": run_id, "message_id": message_id, "outcome": outcome, "last_message_seq": seq });
    if let Some(code) = code {
        value["code"] = code.into();
    }
    if let Some(exit_code) = exit_code {
        value["exit_code"] = exit_code.into();
    }
    event::custom(custom::TURN_ENDED, value)
}

/// Ends the turn that an earlier attempt left open, as appropriate.
///
/// # Errors
/// When the log fails.
pub(crate) async fn close_open_turn(app: &SharedApp, history: &mut History) -> Result<(), LogError> {
    let Some((run_id, message_id)) = history.open_turn.take() else { return Ok(()) };
    let seq = history.accepted.iter().find(|(id, _)| *id == message_id).map_or(0, |(_, seq)| *seq);
    let (mut events, word, code, exit_code) = match history.open_turn_closed.take() {
        Some(Closed::Finished) => (Vec::new(), "finished", None, None),
        Some(Closed::Error { code, exit_code }) => {
            let stopped = matches!(code.as_str(), "Interrupted" | "Terminated" | "RunnerLost");
            (Vec::new(), if stopped { "interrupted" } else { "error" }, Some(code), exit_code)
        }
        None => {
            let reason = "the runner was lost while the agent was working";
            let error = run_end(app, &run_id, Some("RunnerLost"), reason, None);
            (vec![error], "interrupted", Some("RunnerLost".to_owned()), None)
        }
    };
    let snapshots = snapshot::of_all(&app.repos, history.turns, SNAPSHOT_PATIENCE).await;
    events.extend(snapshots.events);
    let mut ended = turn_ended(&run_id, &message_id, seq, word, code.as_deref(), exit_code);
    ended["value"]["problems"] = json!(snapshots.problems);
    ended["value"]["repos"] = json!(snapshots.positions);
    events.push(ended);
    app.log.append(events).await?;
    let fate = if code.as_deref() == Some("RunnerLost") {
        Fate::Lost
    } else {
        Fate::Ended { failed: word == "error", exit_code }
    };
    history.fates.insert(message_id, fate);
    Ok(())
}

/// The end that an earlier attempt had reached but could not finish.
pub(crate) fn unfinished_end(app: &App, history: &History) -> Option<End> {
    if let Some((code, reason)) = &history.exit {
        return Some(End { code: *code, ..failure(None, reason.clone()) });
    }
    let failed = history.fates.values().find_map(|fate| match fate {
        Fate::Ended { failed: true, exit_code } => Some(*exit_code),
        _ => None,
    });
    failed.filter(|_| !app.attempt.spec.interactive).map(|code| failure(code, "the agent's turn failed".to_owned()))
}

fn failure(exit_code: Option<i32>, reason: String) -> End {
    End { code: exit_code.unwrap_or(1), reason, stop: Stop::Terminated, ack: ACK_PATIENCE, recorded: true }
}
