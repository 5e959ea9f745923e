//! The built-in agent `script`: runs a message's fenced shell blocks in order in the workspace; the first that fails ends
//! the turn.

use ambient_wire::runner_event::RunnerEvent;

use super::{
    blocks::{Piece, Unclosed, pieces},
    shell,
};
use crate::{
    event,
    log::LogError,
    playbook::Expanded,
    turn::{Turn, TurnEnd},
};

const NOTHING_TO_RUN: &str = "There was nothing to run: the message has no fenced shell block (```sh, ```bash, ```shell or \
                              ``` without a language).";

pub(super) async fn work(turn: &Turn) -> Result<TurnEnd, LogError> {
    if !turn.message.attachments.is_empty() {
        let text = "what the message came with is left out: the agent type script takes only text".to_owned();
        turn.emit(vec![RunnerEvent::AgentNotice { text }]).await?;
    }
    let mut message = turn.message.text.clone();
    if let Some(Expanded { text, notice }) = turn.expanded(|_| false) {
        turn.emit(vec![RunnerEvent::AgentNotice { text: notice }]).await?;
        message = text;
    }
    let pieces = match pieces(&message) {
        Ok(pieces) => pieces,
        Err(Unclosed { line }) => {
            let message = format!("the shell block that begins in line {line} has no closing fence; nothing was run");
            return Ok(TurnEnd::failed("ScriptFailed", message, None));
        }
    };
    let directory = turn.app.repos.working_directory();
    let (mut texts, mut blocks) = (0, 0);
    for piece in &pieces {
        if turn.is_stopped() {
            return Ok(TurnEnd::Stopped);
        }
        match piece {
            Piece::Text(text) => {
                texts += 1;
                turn.emit(vec![event::text(&format!("{}/text/{texts}", turn.run_id), text)]).await?;
            }
            Piece::Script(script) => {
                blocks += 1;
                let id = format!("{}/shell/{blocks}", turn.run_id);
                let file = format!("block-{}-{blocks}.sh", turn.number);
                let call = shell::Call { turn, id, title: "shell", file };
                match call.run(script, &directory).await? {
                    shell::Ended::Success => {}
                    shell::Ended::Stopped => return Ok(TurnEnd::Stopped),
                    shell::Ended::Failure { code, reason } => {
                        let message = format!("shell block {blocks} failed: {reason}");
                        return Ok(TurnEnd::failed("ScriptFailed", message, code));
                    }
                }
            }
        }
    }
    if blocks == 0 {
        turn.emit(vec![event::text(&format!("{}/text/{}", turn.run_id, texts + 1), NOTHING_TO_RUN)]).await?;
    }
    Ok(TurnEnd::Finished)
}
