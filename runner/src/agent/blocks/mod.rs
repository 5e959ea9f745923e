//! Markdown text into prose and fenced shell blocks, as CommonMark has them.

use comrak::{
    Arena, Options,
    nodes::{NodeCodeBlock, NodeValue},
    parse_document,
};

/// A piece of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Prose (blocks in other languages included).
    Text(String),
    /// A shell script.
    Script(String),
}

/// A shell block that has no closing fence. CommonMark lets it reach to the end of what it is in, which is a guess about a
/// text that is not whole or not meant so: too little to run it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    /// Line of its opening fence, from 1.
    pub(super) line: usize,
}

/// Splits a message.
///
/// # Errors
/// When a shell block is not closed.
pub(super) fn pieces(message: &str) -> Result<Vec<Piece>, Unclosed> {
    let message = plain(message);
    let lines: Vec<&str> = message.split_inclusive('\n').collect();
    let (mut pieces, mut after) = (Vec::new(), 0);
    let arena = Arena::new();
    for node in parse_document(&arena, &message, &Options::default()).descendants() {
        let node = node.data();
        let NodeValue::CodeBlock(block) = &node.value else { continue };
        if !is_shell(block) {
            continue;
        }
        // Lines from 1; on that of the fence nothing else can be but the marks of the list or quote it is in.
        let (first, last) = (node.sourcepos.start.line, node.sourcepos.end.line);
        if !block.closed {
            return Err(Unclosed { line: first });
        }
        push_text(&mut pieces, &lines[after..first - 1]);
        pieces.push(Piece::Script(block.literal.clone()));
        after = last;
    }
    push_text(&mut pieces, &lines[after..]);
    Ok(pieces)
}

/// Without what an editor left of its encoding and of its system's line endings.
fn plain(message: &str) -> String {
    message.strip_prefix('\u{feff}').unwrap_or(message).replace("\r\n", "\n").replace('\r', "\n")
}

/// Whether a shell is meant: the info string's first word says so, alone or with attributes (`bash {1,3}`, `sh,ignore`), or
/// there is none at all.
fn is_shell(block: &NodeCodeBlock) -> bool {
    let word = block.info.split_whitespace().next().unwrap_or_default();
    let language = match word.find(['{', ',']) {
        Some(end) if end > 0 => &word[..end],
        _ => word,
    };
    block.fenced && ["", "sh", "bash", "shell"].iter().any(|shell| language.eq_ignore_ascii_case(shell))
}

fn push_text(pieces: &mut Vec<Piece>, lines: &[&str]) {
    let text = lines.concat();
    if !text.trim().is_empty() {
        pieces.push(Piece::Text(text.trim().to_owned()));
    }
}

#[cfg(test)]
mod tests;
