//! What an agent writes to its standard output, line by line.

pub(super) use ambient_wire::lines::Line;
use ambient_wire::lines::Pieces;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Longest line, bytes: a tool call with the old and new text of a large file. The rest of a longer one is skipped.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// The next line; none at the end.
///
/// # Errors
/// A system error.
pub(super) async fn next(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Line>> {
    let mut pieces = Pieces::new(MAX_LINE);
    loop {
        let piece = reader.fill_buf().await?;
        if piece.is_empty() {
            return Ok(pieces.end());
        }
        let (used, line) = pieces.take(piece);
        reader.consume(used);
        if line.is_some() {
            return Ok(line);
        }
    }
}
