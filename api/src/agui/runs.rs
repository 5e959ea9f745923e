//! The runs of a session, as AG-UI counts them.

use ambient_domain::session::Session;
use ambient_wire::{agui::AguiRun, live::Event};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::projector::{Projector, frames::OURS};
use crate::{
    authority::{Authorized, View},
    error::ApiResult,
    representation,
};

/// Most events per read, and most reads per request: a page may be shorter than requested.
const READ: i64 = 500;
const MAX_READS: usize = 40;

/// Runs that began after `after_seq`, at most about `size`, and where to continue.
pub(crate) async fn read(
    session: &Authorized<Session, View>,
    after_seq: i64,
    size: usize,
) -> ApiResult<(Vec<AguiRun>, Option<i64>)> {
    let mut runs = Runs { projector: Projector::new(&session.get().id), after_seq, runs: Vec::new() };
    let mut cursor = session.last_turn_end(after_seq).await?;
    for _ in 0..MAX_READS {
        let events = session.turn_events(cursor, READ).await?;
        let Some(last) = events.last() else { return Ok((runs.runs, None)) };
        cursor = last.seq;
        for event in events {
            runs.take(&representation::event(event));
            if runs.runs.len() > size {
                // The one too many begins the next page, with those that began with it.
                let beyond = runs.runs[size].seq;
                runs.runs.retain(|run| run.seq < beyond);
                let next = runs.runs.last().map(|run| run.seq);
                return Ok((runs.runs, next));
            }
        }
    }
    let next = runs.runs.pop().map_or(cursor, |unfinished| unfinished.seq - 1);
    Ok((runs.runs, Some(next)))
}

struct Runs {
    projector: Projector,
    after_seq: i64,
    runs: Vec<AguiRun>,
}

impl Runs {
    fn take(&mut self, event: &Event) {
        for told in self.projector.take(event) {
            match told["type"].as_str() {
                Some("RUN_STARTED") if event.seq > self.after_seq => self.runs.push(started(&told, event)),
                Some("RUN_FINISHED" | "RUN_ERROR") => {
                    let open = self.runs.last_mut().filter(|run| run.ended_at.is_none());
                    if let Some(run) = open {
                        end(run, &told, event.at);
                    }
                }
                _ => {}
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn started(told: &Value, event: &Event) -> AguiRun {
    let ours = &told["metadata"][OURS];
    AguiRun {
        kind: "AguiRun".to_owned(),
        id: text(&told["runId"]),
        turn_id: text(&ours["turnId"]),
        message_id: text(&ours["messageId"]),
        status: "running".to_owned(),
        code: None,
        message: None,
        interrupts: Vec::new(),
        seq: event.seq,
        started_at: event.at,
        ended_at: None,
    }
}

fn end(run: &mut AguiRun, told: &Value, at: DateTime<Utc>) {
    run.ended_at = Some(at);
    if told["type"] == "RUN_ERROR" {
        run.status = "error".to_owned();
        run.code = told["code"].as_str().map(str::to_owned);
        run.message = told["message"].as_str().map(str::to_owned);
        return;
    }
    run.status = text(&told["outcome"]["type"]);
    let interrupts = told["outcome"]["interrupts"].as_array().into_iter().flatten();
    run.interrupts = interrupts.map(|interrupt| text(&interrupt["id"])).collect();
}
