//! What was said, for an agent that has lost its own records of it: bounded, and marked as what it is.

use std::{collections::VecDeque, io::BufRead, path::Path};

use ambient_runner_protocol::{DeliverMessage, Record, SessionPaths};
use ambient_wire::runner_event::RunnerEvent;

use crate::app::SharedApp;

/// Most of it, bytes: the end counts.
const MOST: usize = 24 * 1024;
/// Most of one message, bytes.
const MOST_OF_ONE: usize = 4 * 1024;

/// What was said in this run and those before; none if nothing was.
pub(super) async fn tell(app: &SharedApp) -> Option<String> {
    let (paths, run) = (app.attempt.paths.clone(), app.attempt.spec.run);
    tokio::task::spawn_blocking(move || tell_blocking(&paths, run)).await.ok().flatten()
}

fn tell_blocking(paths: &SessionPaths, run: i64) -> Option<String> {
    let mut said: VecDeque<String> = VecDeque::new();
    let mut bytes = 0;
    for run in 1..=run {
        let asked = messages(&paths.messages(run));
        let log = Some(paths.event_log(run)).filter(|log| log.exists()).unwrap_or_else(|| paths.said(run));
        for_each_line(&log, |record: Record| {
            let (who, text) = match RunnerEvent::read(&record.event) {
                Some(RunnerEvent::TurnStarted { message_id, .. }) => {
                    let text =
                        asked.iter().find(|message| message.id == message_id).map(|message| message.text.as_str());
                    ("User", text.unwrap_or_default().to_owned())
                }
                Some(RunnerEvent::AgentText { text, .. }) => ("You", text),
                Some(RunnerEvent::ToolStarted { title, .. }) => ("You used a tool", title),
                _ => return,
            };
            let head = format!("{who}: ");
            match said.back_mut().filter(|last| who == "You" && last.starts_with(&head)) {
                Some(last) => {
                    let room = MOST_OF_ONE.saturating_sub(last.len());
                    let part = &text[..text.floor_char_boundary(room)];
                    bytes += part.len();
                    last.push_str(part);
                }
                None => {
                    let one = format!("{head}{}", &text[..text.floor_char_boundary(MOST_OF_ONE)]);
                    bytes += one.len();
                    said.push_back(one);
                }
            }
            while bytes > MOST && said.len() > 1 {
                bytes -= said.pop_front().map_or(0, |one| one.len());
            }
        });
    }
    // The message that begins this turn is sent as it is.
    if said.back().is_some_and(|last| last.starts_with("User: ")) {
        said.pop_back();
    }
    if said.is_empty() {
        return None;
    }
    let said = said.into_iter().collect::<Vec<_>>().join("\n\n");
    Some(format!(
        "[Your earlier conversation in this workspace could not be loaded. This is what was said, shortened; it is context, not a new \
         request.]\n\n{said}\n\n[End of the earlier conversation. The user's message follows.]"
    ))
}

fn messages(path: &Path) -> Vec<DeliverMessage> {
    let mut all = Vec::new();
    for_each_line(path, |message| all.push(message));
    all
}

fn for_each_line<T: serde::de::DeserializeOwned>(path: &Path, mut see: impl FnMut(T)) {
    let Ok(file) = std::fs::File::open(path) else { return };
    for line in std::io::BufReader::new(file).lines().map_while(Result::ok) {
        if let Ok(value) = serde_json::from_str(&line) {
            see(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_run_whose_log_was_removed_is_retold() {
        let root = tempfile::tempdir().unwrap();
        let paths = SessionPaths { root: root.path().to_owned() };
        for run in [1, 2] {
            std::fs::create_dir_all(paths.run_dir(run)).unwrap();
        }
        let record = |n: i64, event: &str| format!("{{\"n\":{n},\"at\":\"2026-01-01T00:00:00Z\",\"event\":{event}}}\n");
        let said = record(3, "{\"type\":\"agent.text\",\"message_id\":\"m\",\"text\":\"in the first run\"}");
        std::fs::write(paths.said(1), said).unwrap();
        let log = record(1, "{\"type\":\"agent.text\",\"message_id\":\"n\",\"text\":\"and in the second\"}");
        std::fs::write(paths.event_log(2), log).unwrap();
        let told = tell_blocking(&paths, 2).unwrap();
        assert!(told.contains("in the first run") && told.contains("and in the second"), "{told}");
    }
}
