//! `ambient session attach`.

use std::{io::BufRead, time::Duration};

use ambient_wire::session::{MessageCreate, Session};
use clap::Args;
use tokio::sync::mpsc;

use super::{
    is_terminal,
    questions::{How, Questions},
    send, show,
};
use crate::{
    commands::Connection,
    error::CliError,
    exit::Exit,
    follow::{self, Follower, Step, render::Renderer},
};

/// How long to keep trying to resume a lost connection.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Reconnect {
    /// Seconds to keep trying to resume a lost connection
    #[arg(long = "reconnect", value_name = "SECONDS", default_value_t = follow::PATIENCE.as_secs())]
    seconds: u64,
}

impl Reconnect {
    pub(crate) fn patience(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Flags of `session attach`.
#[derive(Debug, Clone, Args)]
pub struct Attach {
    /// Id or name
    session: String,
    /// Also show what happened after this seq
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(0..))]
    after_seq: Option<i64>,
    #[command(flatten)]
    reconnect: Reconnect,
}

pub(super) async fn attach(arguments: Attach, connection: &Connection) -> Result<Exit, CliError> {
    let id = connection.session_id(&arguments.session).await?;
    let session = connection.session(&id).await?;
    say_where(connection, &session);
    let patience = arguments.reconnect.patience();
    let client = connection.client.with_patience(patience);
    let after = arguments.after_seq.or(session.last_seq).unwrap_or_default();
    let mut follower = Follower::new(&client, &id, Some(after), patience);
    let mut renderer = Renderer::new(connection.console.clone(), connection.format);
    let mut questions = Questions::new(&id, How::Line);
    for waiting in questions.so_far(&client).await? {
        renderer.interrupt(&waiting)?;
        questions.say_how(&connection.console, waiting["interrupt_id"].as_str().unwrap_or_default());
    }
    let mut messages = messages();
    let mut exit = Exit::Success;
    let mut goes_on = !session.phase.as_deref().is_none_or(is_terminal);
    loop {
        tokio::select! {
            step = follower.next() => match step? {
                Step::Snapshot(snapshot) => renderer.snapshot(&snapshot)?,
                // Told above.
                Step::Event(event) if questions.knows(&event) => {}
                Step::Event(event) => {
                    renderer.event(&event)?;
                    questions.take(&event, &connection.console);
                    goes_on |= event.event_type == "session.phase";
                    if event.event_type == "session.phase" && event.data["phase"].as_str().is_some_and(is_terminal) {
                        break;
                    }
                }
                Step::Ended(reason) => {
                    connection.console.note(&format!("the session's channel has ended: {reason}"));
                    break;
                }
            },
            message = messages.recv() => match message {
                Some(text) if text.trim().is_empty() => {}
                Some(text) => {
                    let sent = match questions.answer(&text) {
                        Some((request, given)) => questions.send(&client, request, &given).await,
                        None => send::post(&client, &id, &MessageCreate { text, ..MessageCreate::default() }).await.map(drop),
                    };
                    // A refused message is no reason to stop following.
                    if let Err(error) = sent {
                        connection.console.error(&error.report());
                        exit = error.exit();
                    }
                }
                None => {
                    connection.console.note(if goes_on { "detached; the session keeps running" } else { "detached" });
                    break;
                }
            },
        }
    }
    renderer.finish()?;
    Ok(exit)
}

fn say_where(connection: &Connection, session: &Session) {
    let phase = show::phase(session);
    let name = &session.name;
    let advice = match phase {
        "Pending" | "Creating" | "Running" | "Stopping" if !session.interactive => {
            "it is a batch session and takes no messages; Ctrl-D detaches".to_owned()
        }
        "Pending" | "Creating" | "Running" | "Stopping" => {
            "each line, or block of code, is a message; Ctrl-D detaches".to_owned()
        }
        _ => format!("start it with 'ambient session start {}'", session.id),
    };
    connection.console.note(&format!("session {name} is {phase}; {advice}"));
}

/// Messages from standard input: each line, and each code block as a whole. Read by a separate thread, because a read from a
/// terminal cannot be cancelled: the thread must not keep the process from exiting.
pub(crate) fn messages() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut block = Block::default();
        for line in std::io::stdin().lock().lines() {
            // What is not text cannot be a message, and once the receiver is gone there is nobody to report to.
            let Ok(line) = line else { return };
            let Some(message) = block.take(&line) else { continue };
            if sender.blocking_send(message).is_err() {
                return;
            }
        }
        // The server reports that it is not closed.
        if !block.lines.is_empty() {
            let _ = sender.blocking_send(block.lines.join("\n"));
        }
    });
    receiver
}

/// Whether a text ends within a code block.
pub(crate) fn is_within_block(text: &str) -> bool {
    let mut block = Block::default();
    text.lines().for_each(|line| drop(block.take(line)));
    !block.lines.is_empty()
}

/// Lines of a fenced code block that is not closed yet.
#[derive(Default)]
struct Block {
    /// Markers of the quotes it is in.
    quotes: usize,
    fence: String,
    lines: Vec<String>,
}

impl Block {
    /// The message that this line completes; none within a block.
    fn take(&mut self, line: &str) -> Option<String> {
        if self.lines.is_empty() {
            let (quotes, text) = content(line);
            let Some(marker) = fence(text) else { return Some(line.to_owned()) };
            (self.quotes, self.fence) = (quotes, marker.to_owned());
            self.lines.push(line.to_owned());
            return None;
        }
        self.lines.push(line.to_owned());
        let (quotes, text) = unquoted(line, self.quotes);
        let closes = fence(text).is_some_and(|marker| marker.starts_with(&self.fence) && text == marker);
        // A block ends with the quote it is in. The server reports that it is not closed.
        (closes || quotes < self.quotes).then(|| std::mem::take(&mut self.lines).join("\n"))
    }
}

/// A line without the markers of at most this many quotes, and how many there were.
fn unquoted(line: &str, most: usize) -> (usize, &str) {
    let (mut quotes, mut text) = (0, line.trim());
    while quotes < most
        && let Some(rest) = text.strip_prefix('>')
    {
        (quotes, text) = (quotes + 1, rest.trim_start());
    }
    (quotes, text)
}

/// A line without the markers of its quotes and list item, and the number of quotes.
fn content(line: &str) -> (usize, &str) {
    let (quotes, text) = unquoted(line, usize::MAX);
    let mark = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = if mark.len() < text.len() { mark.strip_prefix(['.', ')']) } else { None };
    let item = numbered.or_else(|| text.strip_prefix(['-', '*', '+'])).filter(|rest| rest.starts_with([' ', '\t']));
    (quotes, item.map_or(text, str::trim_start))
}

/// The three or more backticks or tildes at the start of a line.
fn fence(line: &str) -> Option<&str> {
    let mark = line.chars().next().filter(|mark| ['`', '~'].contains(mark))?;
    let (marks, rest) = line.split_at(line.find(|c| c != mark).unwrap_or(line.len()));
    // Backticks within one line are inline code.
    (marks.len() >= 3 && (mark == '~' || !rest.contains('`'))).then_some(marks)
}

#[cfg(test)]
mod tests {
    use super::Block;

    #[test]
    fn a_block_within_a_quote_or_a_list_is_one_message_and_ends_with_its_quote() {
        let mut block = Block::default();
        let typed = [
            "> a", "> ```sh", "> echo a", "> > ```", "> ```", ">> ~~~", "> > x", ">> ~~~", "- ```", "  echo b",
            "  ```", "1. ```", "   c", "   ```", "> ```", "echo d", "- e", "2 ```x",
        ];
        let sent: Vec<String> = typed.iter().filter_map(|line| block.take(line)).collect();
        let expected = [
            "> a",
            "> ```sh\n> echo a\n> > ```\n> ```",
            ">> ~~~\n> > x\n>> ~~~",
            "- ```\n  echo b\n  ```",
            "1. ```\n   c\n   ```",
            "> ```\necho d",
            "- e",
            "2 ```x",
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_block_of_several_lines_is_one_message() {
        let mut block = Block::default();
        let typed =
            ["hello", "```echo```", "````sh", "echo a", "```", "", "echo b", "````", "bye", "~~~", "x", "~~~ y", "~~~"];
        let sent: Vec<String> = typed.iter().filter_map(|line| block.take(line)).collect();
        assert_eq!(sent, ["hello", "```echo```", "````sh\necho a\n```\n\necho b\n````", "bye", "~~~\nx\n~~~ y\n~~~"]);
    }
}
