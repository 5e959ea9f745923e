//! What a typed line is: a message, or a command of ours.

/// A command of the conversation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// For the agent.
    Message(&'a str),
    /// Nothing.
    Blank,
    Help,
    /// Ends the turn.
    Stop,
    /// Shows the changes in a repository.
    Diff(Option<&'a str>),
    /// Shows or folds what calls print.
    Details,
    /// Says which session this is.
    Session,
    Quit,
    /// None of ours.
    Unknown(&'a str),
}

/// What can be typed, in lines that fit a narrow terminal.
pub(super) const HELP: &str = "\
/diff [REPO]  the changes in the workspace
/details      what calls print, in full or folded (Ctrl-O during a turn)
/stop         ends the turn, as Ctrl-C does
/session      which session this is
/quit         leaves, as Ctrl-D does; the session stays
//NAME        the message /NAME, for the agent
A block of code goes on to its end, a line that ends with \\ to the next one.
Whatever is typed during a turn waits for its own.";

/// Understands a line. `is_the_agents` tells whether the agent has a command of a name.
pub(super) fn line<'a>(text: &'a str, is_the_agents: impl Fn(&str) -> bool) -> Line<'a> {
    let trimmed = text.trim();
    let Some(command) = trimmed.strip_prefix('/') else {
        return if trimmed.is_empty() { Line::Blank } else { Line::Message(text) };
    };
    if command.starts_with('/') {
        return Line::Message(command);
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = Some(rest.trim()).filter(|rest| !rest.is_empty());
    match (name, rest) {
        ("help" | "?", None) => Line::Help,
        ("stop", None) => Line::Stop,
        ("diff", repo) => Line::Diff(repo),
        ("details", None) => Line::Details,
        ("session", None) => Line::Session,
        ("quit" | "exit" | "q", None) => Line::Quit,
        (name, _) if is_the_agents(name) || name.contains('/') || name.is_empty() => Line::Message(text),
        (name, _) => Line::Unknown(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_unless_it_is_a_command_of_ours() {
        let is_web = |name: &str| name == "web";
        for (text, expected) in [
            (" ", Line::Blank),
            ("hello /quit", Line::Message("hello /quit")),
            ("/quit", Line::Quit),
            (" /diff hello ", Line::Diff(Some("hello"))),
            ("/diff", Line::Diff(None)),
            ("/web rust", Line::Message("/web rust")),
            ("/etc/hosts is wrong", Line::Message("/etc/hosts is wrong")),
            ("//quit", Line::Message("/quit")),
            ("/ahem", Line::Unknown("ahem")),
            ("/stop it", Line::Unknown("stop")),
        ] {
            assert_eq!(line(text, is_web), expected, "{text}");
        }
    }
}
