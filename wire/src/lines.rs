//! Lines of a stream that anybody may write to, such as JSON-RPC over standard input and output: of a bounded length, whatever comes.

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Whole, without its end.
    Whole(Vec<u8>),
    /// Too long: this many bytes.
    TooLong(usize),
}

/// Puts a line together from the pieces that a stream comes in. What goes beyond the limit is counted and not kept.
#[derive(Debug)]
pub struct Pieces {
    most: usize,
    line: Vec<u8>,
    length: usize,
}

impl Pieces {
    /// For lines of at most so many bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, line: Vec::new(), length: 0 }
    }

    /// Takes of a piece what belongs to the line: how many bytes that is, and the line, if it ends there.
    pub fn take(&mut self, piece: &[u8]) -> (usize, Option<Line>) {
        let end = piece.iter().position(|byte| *byte == b'\n');
        let part = &piece[..end.unwrap_or(piece.len())];
        self.length += part.len();
        if self.length <= self.most {
            self.line.extend_from_slice(part);
        } else {
            self.line = Vec::new();
        }
        (end.map_or(piece.len(), |end| end + 1), end.map(|_| self.finished()))
    }

    /// What a stream that is over had begun, if anything.
    pub fn end(&mut self) -> Option<Line> {
        (self.length > 0).then(|| self.finished())
    }

    fn finished(&mut self) -> Line {
        let (line, length) = (std::mem::take(&mut self.line), std::mem::take(&mut self.length));
        if length > self.most { Line::TooLong(length) } else { Line::Whole(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_beyond_the_limit_is_skipped_and_the_next_one_is_whole() {
        let text = b"ab\n0123456789\n\nlast";
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        for size in 1..=text.len() {
            let (mut pieces, mut lines) = (Pieces::new(5), Vec::new());
            for mut piece in text.chunks(size) {
                while !piece.is_empty() {
                    let (used, line) = pieces.take(piece);
                    piece = &piece[used..];
                    lines.extend(line);
                }
            }
            lines.extend(pieces.end());
            assert_eq!(lines, [whole("ab"), Line::TooLong(10), whole(""), whole("last")], "in pieces of {size}");
        }
    }
}
