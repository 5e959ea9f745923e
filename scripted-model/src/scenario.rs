//! The scenarios, as the parts of one answer per step.
//!
//! | Scenario | What it says | Parameters |
//! |---|---|---|
//! | `hello` | a thought and a sentence | |
//! | `edit` | writes a file, reads it, changes it, runs a command, ends | `CWD`, `FILE`, `COMMAND` |
//! | `read` | reads a file | `CWD`, `FILE` |
//! | `shell` | runs a command | `COMMAND` |
//! | `plan` | two versions of a plan | |
//! | `slow` | drips words | `COUNT` (600), `EVERY_MS` (100) |
//! | `long` | very many pieces at once | `COUNT` (20000), `SIZE` (8 bytes each) |
//! | `hang` | nothing, not even a head | |
//! | `stall` | a few words, then nothing | |
//! | `break` | a few words, then the connection breaks | |
//! | `err401`, `err429`, `err500` | that status | |
//!
//! `CWD` is the folder before file names, for tools that want absolute paths; `COMMAND` reaches to the end of its line. With
//! `ESCALATE=1` commands ask to run outside of the agent's own sandbox, where its tool has an argument for that. With
//! `USAGE=input,cached,output,reasoning` the answer reports these figures. Any other name is answered with a sentence that says so.

use std::time::Duration;

use crate::{conversation::Conversation, tools::Action};

/// A part of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Text(String),
    Thought(String),
    Call(Action),
    /// Pieces of text of so many bytes, with a pause before each.
    Drip {
        count: u64,
        size: usize,
        every: Duration,
    },
    /// Nothing more, for as long as the client waits.
    Silence,
    /// The connection ends.
    Break,
}

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Script {
    Parts(Vec<Part>),
    /// A status, and the dialect's words for it.
    Refusal(u16),
    /// No answer at all.
    Nothing,
}

/// Most pieces, and largest piece, that a text may ask for.
const MAX_COUNT: u64 = 10_000_000;
const MAX_SIZE: u64 = 64 * 1024;

/// What the conversation's scenario says at its step; the last step is repeated.
pub(crate) fn script(conversation: &Conversation) -> Script {
    let name = conversation.scenario();
    let steps = match name {
        "" => vec![words("Scripted title")],
        "hello" => vec![vec![thought(), text("Hello "), text("from "), text("the "), text("script.")]],
        "edit" => edit(conversation),
        "read" => vec![vec![Part::Call(Action::Read { path: file(conversation) })], words("Read done.")],
        "shell" => vec![vec![shell(conversation)], words("Shell done.")],
        "plan" => plan(),
        "slow" => vec![vec![drip(conversation, 600, 100)]],
        "long" => vec![vec![drip(conversation, 20_000, 0)]],
        "stall" => vec![vec![text("part "), Part::Silence]],
        "break" => vec![vec![text("part "), Part::Break]],
        "hang" => return Script::Nothing,
        "err401" => return Script::Refusal(401),
        "err429" => return Script::Refusal(429),
        "err500" => return Script::Refusal(500),
        _ => vec![words(&format!("There is no scenario {name}."))],
    };
    let last = steps.len().saturating_sub(1);
    Script::Parts(steps.into_iter().nth(conversation.step.min(last)).unwrap_or_default())
}

fn edit(conversation: &Conversation) -> Vec<Vec<Part>> {
    let path = file(conversation);
    let write = Action::Write { path: path.clone(), content: "one\ntwo\n".to_owned() };
    let change = Action::Edit { path: path.clone(), old: "two".to_owned(), new: "TWO".to_owned() };
    vec![
        vec![thought(), text("I will write a file. "), Part::Call(write)],
        vec![Part::Call(Action::Read { path })],
        vec![Part::Call(change)],
        vec![text("Now a command. "), shell(conversation)],
        words("All done."),
    ]
}

fn plan() -> Vec<Vec<Part>> {
    let plan = |first: &str, second: &str| {
        let steps = vec![("first".to_owned(), first.to_owned()), ("second".to_owned(), second.to_owned())];
        vec![Part::Call(Action::Plan { steps })]
    };
    vec![plan("in_progress", "pending"), plan("completed", "in_progress"), words("Plan done.")]
}

fn drip(conversation: &Conversation, count: u64, every: u64) -> Part {
    let size = conversation.number("SIZE", 8).clamp(1, MAX_SIZE);
    Part::Drip {
        count: conversation.number("COUNT", count).min(MAX_COUNT),
        size: usize::try_from(size).unwrap_or(1),
        every: Duration::from_millis(conversation.number("EVERY_MS", every)),
    }
}

fn shell(conversation: &Conversation) -> Part {
    let command = conversation.line("COMMAND").unwrap_or("echo from-shell | tee shell.txt");
    Part::Call(Action::Shell { command: command.to_owned() })
}

fn file(conversation: &Conversation) -> String {
    let name = conversation.parameter("FILE").unwrap_or("notes.txt");
    conversation.parameter("CWD").map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"))
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn thought() -> Part {
    Part::Thought("Let me think about this.".to_owned())
}

fn words(sentence: &str) -> Vec<Part> {
    sentence.split_inclusive(' ').map(text).collect()
}
