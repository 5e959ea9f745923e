//! What the agent asks, for someone who follows it at a terminal: answered by a line, beside the messages.

use ambient_wire::{interrupt::Interrupt, live::Event, permission::InterruptAnswer, runner_event::PermissionAnswer};
use serde_json::{Value, json};

use super::answer;
use crate::{client::Client, error::CliError, output::Console};

/// Requests that wait, the oldest first.
#[derive(Debug)]
pub(crate) struct Questions {
    session: String,
    how: How,
    open: Vec<Open>,
}

/// A request that waits.
#[derive(Debug)]
struct Open {
    id: String,
    /// A rule can say what is asked, so that it need not be asked again.
    can_be_always: bool,
}

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// By a line.
    Line,
    /// By a key, or a line.
    Key,
    /// By another command.
    Command,
}

impl Questions {
    pub(crate) fn new(session: &str, how: How) -> Self {
        Self { session: session.to_owned(), how, open: Vec::new() }
    }

    /// Those that waited already, in the form of the events that told of them.
    pub(crate) async fn so_far(&mut self, client: &Client) -> Result<Vec<Value>, CliError> {
        let waiting = answer::waiting(client, &self.session).await?;
        self.open.extend(waiting.iter().map(|interrupt| Open {
            id: interrupt.id.clone(),
            can_be_always: interrupt.answers.contains(&PermissionAnswer::Always),
        }));
        Ok(waiting.iter().map(as_event).collect())
    }

    /// Whether an event tells of a request that is known already.
    pub(crate) fn knows(&self, event: &Event) -> bool {
        let id = event.data["interrupt_id"].as_str().unwrap_or_default();
        event.event_type == "session.interrupt"
            && event.data["change"] == "raised"
            && self.open.iter().any(|open| open.id == id)
    }

    /// Takes note of an event, after it was shown, and says how to answer.
    pub(crate) fn take(&mut self, event: &Event, console: &Console) {
        if let Some(id) = self.note(event) {
            self.say_how(console, id);
        }
    }

    /// Takes note of an event; the request that it raises.
    pub(crate) fn note<'a>(&mut self, event: &'a Event) -> Option<&'a str> {
        let id = event.data["interrupt_id"].as_str().filter(|_| event.event_type == "session.interrupt")?;
        self.open.retain(|open| open.id != id);
        let is_raised = event.data["change"] == "raised";
        if is_raised {
            // Earlier servers did not say.
            let can_be_always =
                event.data["answers"].as_array().is_none_or(|all| all.iter().any(|one| one == "always"));
            self.open.push(Open { id: id.to_owned(), can_be_always });
        }
        is_raised.then_some(id)
    }

    /// How a request can be answered.
    pub(crate) fn say_how(&self, console: &Console, id: &str) {
        let open = self.open.iter().find(|open| open.id == id);
        let always = open.is_none_or(|open| open.can_be_always);
        let keys = if always { "a: once, A: always" } else { "a: once" };
        console.note(&match self.how {
            How::Line => format!("  {keys}, r: reject, r TEXT: reject and say what to do instead"),
            How::Key => format!("  {keys}, r: reject, m: reject and say what to do instead"),
            How::Command => {
                let always = if always { "|always" } else { "" };
                format!("  answer with 'ambient session answer {} {id} once{always}|reject'", self.session)
            }
        });
    }

    /// The answer that a line is, to the oldest request. Without a request every line is a message.
    pub(crate) fn answer(&self, line: &str) -> Option<(&str, InterruptAnswer)> {
        let oldest = self.open.first()?;
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()));
        let (answer, message) = match (word, rest) {
            ("a" | "o" | "once", "") => (PermissionAnswer::Once, None),
            ("A" | "always", "") => (PermissionAnswer::Always, None),
            ("r" | "reject", "") => (PermissionAnswer::Reject, None),
            ("r" | "reject", message) => (PermissionAnswer::Reject, Some(message.to_owned())),
            _ => return None,
        };
        Some((&oldest.id, InterruptAnswer { answer, message }))
    }

    /// The oldest request.
    pub(crate) fn oldest(&self) -> Option<&str> {
        self.open.first().map(|open| open.id.as_str())
    }

    /// Whether the oldest request may be allowed from now on.
    pub(crate) fn can_be_always(&self) -> bool {
        self.open.first().is_some_and(|open| open.can_be_always)
    }

    /// Sends an answer.
    pub(crate) async fn send(&self, client: &Client, request: &str, given: &InterruptAnswer) -> Result<(), CliError> {
        answer::post(client, &self.session, request, given).await.map(drop)
    }
}

fn as_event(interrupt: &Interrupt) -> Value {
    json!({
        "change": "raised", "interrupt_id": interrupt.id, "title": interrupt.title, "command": interrupt.command,
        "paths": interrupt.paths, "earlier_answer": interrupt.earlier_answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture;

    fn event(change: &str, id: &str) -> Event {
        let data = json!({ "change": change, "interrupt_id": id });
        Event { seq: 1, event_type: "session.interrupt".to_owned(), data, at: chrono::DateTime::UNIX_EPOCH }
    }

    #[test]
    fn a_line_answers_the_oldest_request_and_is_a_message_if_there_is_none_or_it_is_no_answer() {
        let (console, _, err) = capture::console(false, false);
        let mut questions = Questions::new("s", How::Line);
        let answer = |questions: &Questions, line: &str| {
            questions.answer(line).map(|(id, given)| (id.to_owned(), given.answer, given.message))
        };
        assert_eq!(answer(&questions, "o"), None);
        questions.take(&event("raised", "1-1-1"), &console);
        questions.take(&event("raised", "1-1-2"), &console);
        assert!(questions.knows(&event("raised", "1-1-1")) && !questions.knows(&event("raised", "1-1-3")));
        let first = || "1-1-1".to_owned();
        assert_eq!(answer(&questions, " o "), Some((first(), PermissionAnswer::Once, None)));
        assert_eq!(answer(&questions, "a"), Some((first(), PermissionAnswer::Once, None)));
        assert_eq!(answer(&questions, "A"), Some((first(), PermissionAnswer::Always, None)));
        assert_eq!(answer(&questions, "always"), Some((first(), PermissionAnswer::Always, None)));
        let told = Some("use make".to_owned());
        assert_eq!(answer(&questions, "r  use make"), Some((first(), PermissionAnswer::Reject, told)));
        for message in ["once upon a time", "a b", "run it", ""] {
            assert_eq!(answer(&questions, message), None, "{message}");
        }
        questions.take(&event("answered", "1-1-1"), &console);
        assert_eq!(answer(&questions, "r"), Some(("1-1-2".to_owned(), PermissionAnswer::Reject, None)));
        questions.take(&event("closed", "1-1-2"), &console);
        assert_eq!(answer(&questions, "r"), None);
        assert_eq!(err.text().lines().count(), 2, "{}", err.text());
        let mut several = event("raised", "1-1-3");
        several.data["answers"] = json!(["once", "reject"]);
        questions.take(&several, &console);
        assert!(!questions.can_be_always());
        assert!(
            err.text().ends_with("  a: once, r: reject, r TEXT: reject and say what to do instead\n"),
            "{}",
            err.text()
        );
    }

    #[test]
    fn where_no_lines_are_read_it_is_said_how_to_answer() {
        let (console, _, err) = capture::console(false, false);
        Questions::new("s", How::Command).take(&event("raised", "1-1-1"), &console);
        assert_eq!(err.text(), "  answer with 'ambient session answer s 1-1-1 once|always|reject'\n");
    }
}
