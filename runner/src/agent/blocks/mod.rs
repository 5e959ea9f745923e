//! Splits Markdown text into prose and fenced shell blocks, as CommonMark defines them.

use comrak::{
    Arena, Options,
    nodes::{NodeCodeBlock, NodeValue},
    parse_document,
};

/// A piece of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Prose (including blocks in other languages).
    Text(String),
    /// A shell script.
    Script(String),
}

/// A shell block without a closing fence. CommonMark extends it to the end of what contains it, which is a guess about a
/// text that is incomplete or not meant that way: too little to run it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    /// Line of its opening fence, from 1.
    pub(super) line: usize,
}

/// Splits a message.
///
/// # Errors
/// When a shell block has no closing fence.
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
        // Lines from 1; the fence's line can contain nothing else but the markers of its list or quote.
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

/// Without traces of an editor's encoding and its system's line endings.
fn plain(message: &str) -> String {
    message.strip_prefix('\u{feff}').unwrap_or(message).replace("\r\n", "\n").replace('\r', "\n")
}

/// Whether a shell is meant: the first word of the info string says so, alone or with attributes (`bash {1,3}`, `sh,ignore`), or
/// there is no info string.
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
