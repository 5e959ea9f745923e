//! What a request asks, whatever its dialect.

use crate::{figures::Figures, tools::Tools};

const SCENARIO: &str = "SCENARIO=";

/// What a request asks.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// Newest text of the user that names a scenario; empty if none does.
    pub(crate) text: String,
    /// Tool results after it.
    pub(crate) step: usize,
    pub(crate) tools: Tools,
    pub(crate) model: String,
    /// The answer is wanted as events.
    pub(crate) stream: bool,
    /// It is wanted as a list of one object, where a dialect has that.
    pub(crate) list: bool,
    /// Usage is wanted among the events, where a dialect leaves it out otherwise.
    pub(crate) stream_usage: bool,
}

impl Conversation {
    /// The user has said something.
    pub(crate) fn said(&mut self, text: &str) {
        if text.contains(SCENARIO) {
            text.clone_into(&mut self.text);
            self.step = 0;
            self.tools.escalates = self.parameter("ESCALATE").is_some();
        }
    }

    /// A tool has answered.
    pub(crate) fn answered(&mut self) {
        self.step += 1;
    }

    /// The scenario's name; the last if the text names several, none if it names none.
    pub(crate) fn scenario(&self) -> &str {
        let name = self.text.rsplit_once(SCENARIO).map_or("", |(_, rest)| rest);
        name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
    }

    /// A parameter, as in `COUNT=3`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let words = self.text.split_whitespace();
        words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next_back()
    }

    /// A number among the parameters.
    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.parameter(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// A parameter that reaches to the end of its line.
    pub(crate) fn line(&self, name: &str) -> Option<&str> {
        let start = format!("{name}=");
        self.text.lines().filter_map(|line| line.split_once(start.as_str())).next_back().map(|(_, rest)| rest.trim())
    }

    pub(crate) fn figures(&self) -> Figures {
        self.parameter("USAGE").and_then(Figures::read).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Conversation;

    #[test]
    fn the_newest_text_that_names_a_scenario_counts_and_results_after_it_are_steps() {
        let mut conversation = Conversation::default();
        conversation.said("SCENARIO=hello");
        conversation.answered();
        conversation.said("<q>SCENARIO=shell COUNT=3 COUNT=4 CWD=/w\nCOMMAND=echo a b</q>");
        conversation.said("and please hurry");
        conversation.answered();
        assert_eq!((conversation.scenario(), conversation.step), ("shell", 1));
        assert_eq!((conversation.number("COUNT", 1), conversation.number("EVERY_MS", 9)), (4, 9));
        assert_eq!(conversation.line("COMMAND"), Some("echo a b</q>"));
    }
}
