//! A block's output, on its way into the log.

use ambient_wire::runner_event::{OutputStream, RunnerEvent};

use crate::{log::LogError, turn::Turn};

/// Most bytes of text per output record.
pub(super) const CHUNK: usize = 16 * 1024;
/// Most bytes of a block's output in the log.
const MAX_STREAMED: usize = 1024 * 1024;
/// Most bytes of output in the result.
const RESULT: usize = 64 * 1024;

/// A block's output on its way into the log.
pub(super) struct Output<'a> {
    turn: &'a Turn,
    id: &'a str,
    stdout: Decoder,
    stderr: Decoder,
    streamed: usize,
    /// Number of bytes that were no longer streamed.
    held_back: usize,
    truncated: bool,
    tail: String,
}

impl<'a> Output<'a> {
    pub(super) fn new(turn: &'a Turn, id: &'a str) -> Self {
        let (stdout, stderr) = (Decoder::default(), Decoder::default());
        Self { turn, id, stdout, stderr, streamed: 0, held_back: 0, truncated: false, tail: String::new() }
    }

    pub(super) async fn take(&mut self, stream: OutputStream, bytes: &[u8]) -> Result<(), LogError> {
        let decoder = if stream == OutputStream::Stdout { &mut self.stdout } else { &mut self.stderr };
        let text = decoder.decode(bytes);
        self.record(stream, &text).await
    }

    async fn record(&mut self, stream: OutputStream, text: &str) -> Result<(), LogError> {
        self.tail.push_str(text);
        if self.tail.len() > 2 * RESULT {
            self.tail = last(&self.tail, RESULT).to_owned();
            self.truncated = true;
        }
        if self.streamed > MAX_STREAMED {
            self.held_back += text.len();
            return Ok(());
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.floor_char_boundary(CHUNK));
            self.streamed += chunk.len();
            self.emit(stream, chunk).await?;
            rest = after;
            if self.streamed > MAX_STREAMED {
                self.held_back += rest.len();
                return self
                    .emit(
                        OutputStream::Stderr,
                        "\n[no more output is recorded except its end: the limit is 1 MiB per block]\n",
                    )
                    .await;
            }
        }
        Ok(())
    }

    async fn emit(&self, stream: OutputStream, text: &str) -> Result<(), LogError> {
        let output = RunnerEvent::ToolOutput { tool_call_id: self.id.to_owned(), stream, text: text.to_owned() };
        self.turn.emit(vec![output]).await
    }

    /// The last part of the whole output.
    pub(super) async fn finish(mut self) -> Result<String, LogError> {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let decoder = if stream == OutputStream::Stdout { &mut self.stdout } else { &mut self.stderr };
            let text = decoder.finish();
            self.record(stream, &text).await?;
        }
        if self.held_back > 0 {
            // How it ends matters more than its middle: a result, an error, the last state of a progress bar.
            self.emit(OutputStream::Stdout, from_a_line(last(&self.tail, self.held_back.min(CHUNK)))).await?;
        }
        let tail = last(&self.tail, RESULT);
        let cut = self.truncated || tail.len() < self.tail.len();
        Ok(if cut { format!("[the beginning is left out]\n{tail}") } else { tail.to_owned() })
    }
}

fn last(text: &str, most: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most))..]
}

/// From the first complete line on, if there is one.
fn from_a_line(text: &str) -> &str {
    let end = text[..text.len().saturating_sub(1)].find(['\n', '\r']);
    end.map_or(text, |end| &text[end + 1..])
}

/// Bytes into text: characters split across chunks are kept whole; invalid UTF-8, and NUL, become U+FFFD.
#[derive(Default)]
struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.pending);
        let mut text = String::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(length) = error.error_len() else {
                        self.pending = invalid.to_vec();
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &invalid[length..];
                }
            }
        }
        text.replace('\0', "\u{FFFD}")
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Decoder;

    #[test]
    fn characters_split_over_chunks_stay_whole_and_rubbish_is_replaced() {
        let mut decoder = Decoder::default();
        let bytes = "aé€😀".as_bytes();
        let text: String = bytes.iter().map(|byte| decoder.decode(&[*byte])).collect();
        assert_eq!(text, "aé€😀");
        assert_eq!(decoder.decode(b"\xffx\0\xe2\x82"), "\u{FFFD}x\u{FFFD}");
        assert_eq!(decoder.finish(), "\u{FFFD}");
    }
}
