//! Turns: one message at a time, each ends with its result, snapshots and `turn.ended`.

use std::{convert::Infallible, time::Duration};

use ambient_runner_protocol::DeliverMessage;
use ambient_wire::runner_event::{PermissionOutcome, RunnerEvent, TurnOutcome, TurnResult};
use tokio::sync::watch;

use crate::{
    agent::{Agent, Setup},
    app::{App, SharedApp},
    ending::{End, Stop},
    git::{
        packs,
        snapshot::{self, Snapshots},
    },
    hand_in,
    history::{Fate, History},
    log::LogError,
    messages::Outbox,
    model::ModelProxy,
    process::Mark,
    turn::{INTERRUPT_PATIENCE, Turn, TurnEnd},
};

/// Timeout for a reader to store everything when the runner ends by itself.
pub(crate) const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// Timeout for all snapshots of a turn, and of one cut short by the runner's end.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(120);
const HASTY_SNAPSHOT_PATIENCE: Duration = Duration::from_secs(4);

/// Works on message after message until the runner ends, or is halted: what still waits then is not run.
pub(crate) async fn run(app: SharedApp, mut outbox: Outbox, mut turns: u64) {
    let (mut agent, mut setup) = (Agent::new(&app), Setup::default());
    loop {
        let message = tokio::select! {
            biased;
            _ = app.ending.begun() => return,
            () = app.current.halted() => return,
            next = outbox.next() => match next {
                Some(message) => message,
                None => return,
            },
        };
        let Some(stop) = app.current.begin() else { return };
        turns += 1;
        let ended = one(&app, (&mut setup, &mut agent), turns, message, stop).await;
        app.current.end();
        match ended {
            Ok(TurnEnd::Failed { message, exit_code, .. }) if !app.attempt.spec.interactive => {
                app.ending.begin(failure(exit_code, message));
                return;
            }
            // It takes no other message: a runner that is halted is ended by whoever halted it.
            Ok(TurnEnd::Stopped)
                if !app.attempt.spec.interactive && !app.current.is_halted() && app.ending.now().is_none() =>
            {
                app.ending.begin(failure(None, "its turn was interrupted".to_owned()));
                return;
            }
            Ok(_) => {}
            // The watch on the log ends the runner.
            Err(error) => return tracing::error!(%error, "the turn cannot be recorded"),
        }
    }
}

async fn one(
    app: &SharedApp,
    (setup, agent): (&mut Setup, &mut Agent),
    number: u64,
    message: DeliverMessage,
    stop: watch::Receiver<Option<Stop>>,
) -> Result<TurnEnd, LogError> {
    let run_id = app.attempt.run_id(number);
    if let Some(end) = app.ending.now() {
        app.current.stop(end.stop);
    }
    let started = RunnerEvent::TurnStarted { turn_id: run_id.clone(), message_id: message.id.clone() };
    app.log.append(vec![started]).await?;
    tokio::spawn({
        let app = app.clone();
        async move { packs::prepare(&app.repos).await }
    });
    let turn = Turn::new(app.clone(), run_id, number, message, stop);
    let outcome = match work(&turn, setup, agent).await {
        Err(LogError::Full) => {
            app.attempt.processes.end(Mark::Turn(turn.run_id.clone()), INTERRUPT_PATIENCE).await;
            TurnEnd::failed("LogFull", LogError::Full.to_string(), None)
        }
        Ok(TurnEnd::Finished) => {
            if !app.attempt.spec.interactive {
                // It ends with this turn anyway, and what is pushed and what is kept should be the same.
                app.attempt.processes.end(Mark::Left(turn.run_id.clone()), INTERRUPT_PATIENCE).await;
            }
            Box::pin(hand_in::all(&turn)).await?
        }
        other => other?,
    };
    close(&turn, &outcome).await?;
    Ok(outcome)
}

/// The agent's work, in a workspace that is set up. Once the turn is stopped no model answers and no connection is left, and once its budget is used up it is stopped.
async fn work(turn: &Turn, setup: &mut Setup, agent: &mut Agent) -> Result<TurnEnd, LogError> {
    let attempt = &turn.app.attempt;
    attempt.open_ways(&turn.run_id);
    let exceeded = async {
        match &attempt.model {
            Some(model) => model.exceeded().await,
            None => std::future::pending().await,
        }
    };
    let stops = async {
        tokio::select! {
            () = turn.stopped() => {}
            () = exceeded => turn.app.current.stop(Stop::BudgetExceeded),
        }
        attempt.close_ways().await;
        std::future::pending::<Infallible>().await
    };
    let work = async {
        match setup.prepare(turn).await? {
            Some(end) => Ok(end),
            None => agent.work(turn).await,
        }
    };
    let worked = tokio::select! {
        worked = work => worked?,
        never = stops => match never {},
    };
    if turn.is_stopped() {
        attempt.close_ways().await;
    }
    let stop = *turn.stop.borrow();
    match attempt.model.as_ref().and_then(ModelProxy::why_exceeded) {
        Some(reason) if stop.is_none_or(|stop| stop == Stop::BudgetExceeded) => {
            Ok(TurnEnd::failed(Stop::BudgetExceeded.code(), reason, None))
        }
        _ => Ok(worked),
    }
}

/// Records what the work came to, the snapshots, and the end of the turn.
async fn close(turn: &Turn, outcome: &TurnEnd) -> Result<(), LogError> {
    let app = &turn.app;
    let stop = (*turn.stop.borrow()).unwrap_or(Stop::Interrupted);
    let (outcome, code, exit_code, message) = match outcome {
        TurnEnd::Finished => (TurnOutcome::Finished, None, None, String::new()),
        TurnEnd::Stopped if stop == Stop::Interrupted => {
            (TurnOutcome::Interrupted, Some(stop.code()), None, "the turn was interrupted".to_owned())
        }
        TurnEnd::Stopped => (TurnOutcome::Interrupted, Some(stop.code()), None, "the runner was ended".to_owned()),
        TurnEnd::Failed { code, message, words, exit_code } => {
            let told = if words.is_empty() { message.clone() } else { format!("{message}: {words}") };
            (TurnOutcome::Error, Some(*code), *exit_code, told)
        }
    };
    let stop_reason = turn.stop_reason();
    let result = TurnResult { outcome, code: code.map(str::to_owned), exit_code, stop_reason };
    let turn_id = turn.run_id.clone();
    let mut events = vec![RunnerEvent::TurnResult { turn_id, result: result.clone(), message }];
    if !app.repos.names().is_empty() {
        // Snapshots take their time; without any, result and end are synced, and stored by the server, in one piece.
        app.log.append(std::mem::take(&mut events)).await?;
    }
    let patience = if app.ending.has_begun() { HASTY_SNAPSHOT_PATIENCE } else { SNAPSHOT_PATIENCE };
    let snapshots = snapshot::of_all(&app.repos, turn.number, patience).await;
    let Snapshots { events: taken, problems, positions } = snapshots;
    events.extend(taken);
    events.push(RunnerEvent::TurnEnded {
        turn_id: turn.run_id.clone(),
        message_id: turn.message.id.clone(),
        last_message_seq: turn.message.seq,
        result,
        problems: Some(problems),
        repos: positions,
    });
    app.log.append(events).await?;
    Ok(())
}

/// Ends the turn that an earlier attempt left open, as appropriate.
///
/// # Errors
/// When the log fails.
pub(crate) async fn close_open_turn(app: &SharedApp, history: &mut History) -> Result<(), LogError> {
    let lost = |id: &String| RunnerEvent::PermissionClosed {
        interrupt_id: id.clone(),
        outcome: PermissionOutcome::Lost,
        answer: None,
    };
    let mut events: Vec<RunnerEvent> = history.open_requests().map(lost).collect();
    let Some((turn_id, message_id)) = history.open_turn.take() else {
        return if events.is_empty() { Ok(()) } else { app.log.append(events).await.map(drop) };
    };
    let seq = history.accepted.iter().find(|(id, _)| *id == message_id).map_or(0, |(_, seq)| *seq);
    let lost = || TurnResult {
        outcome: TurnOutcome::Interrupted,
        code: Some("RunnerLost".to_owned()),
        exit_code: None,
        stop_reason: None,
    };
    let result = history.open_turn_result.take().unwrap_or_else(|| {
        let message = "the runner was lost while the agent was working".to_owned();
        events.push(RunnerEvent::TurnResult { turn_id: turn_id.clone(), result: lost(), message });
        lost()
    });
    let snapshots = snapshot::of_all(&app.repos, history.turns, SNAPSHOT_PATIENCE).await;
    events.extend(snapshots.events);
    events.push(RunnerEvent::TurnEnded {
        turn_id,
        message_id: message_id.clone(),
        last_message_seq: seq,
        result: result.clone(),
        problems: Some(snapshots.problems),
        repos: snapshots.positions,
    });
    app.log.append(events).await?;
    history.fates.insert(message_id, Fate::of(&result));
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
    // An agent that ends with success in the middle of its work has failed.
    let code = exit_code.filter(|code| *code != 0).unwrap_or(1);
    End { code, reason, stop: Stop::Terminated, ack: ACK_PATIENCE, recorded: true }
}
