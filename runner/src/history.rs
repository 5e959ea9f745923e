//! What earlier attempts of this run have left in the log.

use std::collections::HashMap;

use ambient_runner_protocol::Record;
use ambient_wire::custom;
use serde_json::Value;

/// How a message's last turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None of its turns has ended.
    Open,
    /// Its runner was lost.
    Lost,
    /// Done, one way or another.
    Ended { failed: bool, exit_code: Option<i32> },
}

/// State of the run, built from one pass over the records.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) log_id: Option<String>,
    /// Accepted messages with their place in the live log, in order.
    pub(crate) accepted: Vec<(String, i64)>,
    pub(crate) fates: HashMap<String, Fate>,
    /// Turns started so far.
    pub(crate) turns: u64,
    /// `(run id, message id)` of a turn that has started but not ended.
    pub(crate) open_turn: Option<(String, String)>,
    /// True if the open turn has its RUN_FINISHED or RUN_ERROR.
    pub(crate) open_turn_closed: Option<Closed>,
    /// Recorded end of the runner.
    pub(crate) exit: Option<(i32, String)>,
}

/// How an open turn's AG-UI run ended before TURN_ENDED could be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closed {
    Finished,
    Error { code: String, exit_code: Option<i32> },
}

impl History {
    pub(crate) fn see(&mut self, record: &Record) {
        let event = &record.event;
        match text(event, "type") {
            "RUN_STARTED" => {
                self.turns += 1;
                self.open_turn = Some((text(event, "runId").to_owned(), text(event, "messageId").to_owned()));
                self.open_turn_closed = None;
            }
            "RUN_FINISHED" => self.open_turn_closed = Some(Closed::Finished),
            "RUN_ERROR" => {
                let (code, exit_code) = (text(event, "code").to_owned(), integer(event, "exitCode"));
                self.open_turn_closed = Some(Closed::Error { code, exit_code });
            }
            "CUSTOM" => self.see_custom(text(event, "name"), &event["value"]),
            _ => {}
        }
    }

    fn see_custom(&mut self, name: &str, value: &Value) {
        match name {
            custom::ATTEMPT_STARTED if self.log_id.is_none() => self.log_id = Some(text(value, "log_id").to_owned()),
            custom::MESSAGE_ACCEPTED => {
                let id = text(value, "message_id").to_owned();
                self.fates.insert(id.clone(), Fate::Open);
                self.accepted.push((id, value["seq"].as_i64().unwrap_or(0)));
            }
            custom::TURN_ENDED => {
                let lost = text(value, "code") == "RunnerLost";
                let fate = if lost {
                    Fate::Lost
                } else {
                    Fate::Ended { failed: text(value, "outcome") == "error", exit_code: integer(value, "exit_code") }
                };
                self.fates.insert(text(value, "message_id").to_owned(), fate);
                self.open_turn = None;
            }
            custom::EXIT => {
                self.exit = integer(value, "code").map(|code| (code, text(value, "reason").to_owned()));
            }
            _ => {}
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn integer(value: &Value, key: &str) -> Option<i32> {
    value[key].as_i64().and_then(|n| i32::try_from(n).ok())
}
