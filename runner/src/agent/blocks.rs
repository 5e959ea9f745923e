//! Markdown text into prose and fenced shell blocks.

/// A piece of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Prose (blocks in other languages included).
    Text(String),
    /// A shell script.
    Script(String),
}

struct Fence {
    mark: char,
    length: usize,
    indent: usize,
    shell: bool,
}

/// Splits a message. A fence that is not closed reaches to the end, as Markdown has it.
pub(super) fn pieces(message: &str) -> Vec<Piece> {
    let (mut pieces, mut text, mut script) = (Vec::new(), String::new(), String::new());
    let mut open: Option<Fence> = None;
    for line in message.lines() {
        match &open {
            Some(fence) if fence.closes(line) => {
                if fence.shell {
                    pieces.push(Piece::Script(std::mem::take(&mut script)));
                } else {
                    push_line(&mut text, line);
                }
                open = None;
            }
            Some(fence) if fence.shell => push_line(&mut script, fence.unindent(line)),
            Some(_) => push_line(&mut text, line),
            None => {
                open = Fence::opens(line);
                if open.as_ref().is_some_and(|fence| fence.shell) {
                    push_text(&mut pieces, &mut text);
                } else {
                    push_line(&mut text, line);
                }
            }
        }
    }
    if open.is_some_and(|fence| fence.shell) {
        pieces.push(Piece::Script(script));
    }
    push_text(&mut pieces, &mut text);
    pieces
}

impl Fence {
    fn opens(line: &str) -> Option<Self> {
        let rest = line.trim_start_matches(' ');
        let indent = line.len() - rest.len();
        let mark = rest.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let info = rest.trim_start_matches(mark);
        let length = rest.len() - info.len();
        if indent > 3 || length < 3 || (mark == '`' && info.contains('`')) {
            return None;
        }
        let language = info.split_whitespace().next().unwrap_or_default();
        Some(Self { mark, length, indent, shell: matches!(language, "" | "sh" | "bash" | "shell") })
    }

    fn closes(&self, line: &str) -> bool {
        let rest = line.trim_start_matches(' ');
        let after = rest.trim_start_matches(self.mark);
        line.len() - rest.len() <= 3 && rest.len() - after.len() >= self.length && after.trim().is_empty()
    }

    fn unindent<'a>(&self, line: &'a str) -> &'a str {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        &line[spaces.min(self.indent)..]
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn push_text(pieces: &mut Vec<Piece>, text: &mut String) {
    let piece = std::mem::take(text);
    if !piece.trim().is_empty() {
        pieces.push(Piece::Text(piece.trim().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, pieces};

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }
    fn script(text: &str) -> Piece {
        Piece::Script(text.to_owned())
    }

    #[test]
    fn shell_blocks_run_in_order_and_the_rest_is_prose() {
        let message = "First\n```sh\necho 1\n```\nthen\n\n  ~~~ bash title\n  echo 2\n    x\n  ~~~\n```python\nprint()\n```\n```\necho 3\n```";
        let expected = [
            text("First"),
            script("echo 1\n"),
            text("then"),
            script("echo 2\n  x\n"),
            text("```python\nprint()\n```"),
            script("echo 3\n"),
        ];
        assert_eq!(pieces(message), expected);
    }

    #[test]
    fn a_longer_fence_holds_a_shorter_one_and_an_open_one_reaches_to_the_end() {
        assert_eq!(pieces("````sh\ncat <<E\n```\nE\n````"), [script("cat <<E\n```\nE\n")]);
        assert_eq!(pieces("```shell\necho open"), [script("echo open\n")]);
        assert_eq!(pieces("no block at ```all```"), [text("no block at ```all```")]);
    }
}
