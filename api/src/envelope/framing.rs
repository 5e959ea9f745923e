//! Where one HTTP/1 response ends and the next begins, in what a server writes.

use std::io::IoSlice;

use super::{Exchanges, Taken};

/// Largest head of a response that is inspected; ours are far smaller.
const MAX_HEAD: usize = 64 * 1024;

/// Position in the stream of responses.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    place: Place,
    /// Responses begun since [`Exchanges`] was told.
    begun: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In a head; what has arrived of it. Empty: between two responses.
    Head(Vec<u8>),
    /// In a body with this many bytes left.
    Body(u64),
    /// In the line before a chunk; the length so far, and whether its digits have ended.
    Size(u64, bool),
    /// In a chunk, including its line end, with this many bytes left.
    Chunk(u64),
    /// In the lines after the last chunk; whether the current one is empty so far.
    Trailer(bool),
    /// Another protocol, or a body that ends with the connection.
    Rest,
}

/// Which part of a buffer belongs to routes' responses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This many bytes from its start, at least one.
    Route(usize),
    /// None: a response begins that no route makes.
    Nobody,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self { place: Place::Head(Vec::new()), begun: 0 }
    }

    /// Nothing is inspected any more.
    pub(super) fn give_up(&mut self) {
        self.place = Place::Rest;
    }

    /// Whom the buffer's start belongs to.
    pub(super) fn owner(&self, buffer: &[u8], exchanges: &Exchanges) -> Owner {
        match self.clone().foresee(buffer, exchanges) {
            0 => Owner::Nobody,
            passed => Owner::Route(passed),
        }
    }

    /// Whether all of the buffers are routes' responses.
    pub(super) fn routes_own(&self, buffers: &[IoSlice<'_>], exchanges: &Exchanges) -> bool {
        let mut ahead = self.clone();
        buffers.iter().all(|buffer| ahead.foresee(buffer, exchanges) == buffer.len())
    }

    /// Advances to where a response begins that no route makes; returns how far that is.
    fn foresee(&mut self, buffer: &[u8], exchanges: &Exchanges) -> usize {
        let mut passed = 0;
        while passed < buffer.len() {
            let rest = &buffer[passed..];
            if self.is_between() && exchanges.next(self.begun).is_none() && looks_like_http(rest) {
                break;
            }
            passed += self.step(rest, exchanges);
        }
        passed
    }

    /// Records bytes that were written.
    pub(super) fn written(&mut self, mut bytes: &[u8], exchanges: &Exchanges) {
        while !bytes.is_empty() && self.place != Place::Rest {
            let taken = self.step(bytes, exchanges);
            bytes = &bytes[taken..];
        }
        exchanges.answered(std::mem::take(&mut self.begun));
    }

    fn is_between(&self) -> bool {
        matches!(&self.place, Place::Head(seen) if seen.is_empty())
    }

    /// Advances over some of the bytes; returns how many, at least one if the buffer is not empty.
    fn step(&mut self, bytes: &[u8], exchanges: &Exchanges) -> usize {
        let byte = bytes.first().copied().unwrap_or_default();
        let (next, passed) = match &mut self.place {
            Place::Head(seen) => {
                let before = seen.len();
                let room = &bytes[..bytes.len().min(MAX_HEAD)];
                seen.extend_from_slice(room);
                match end_of_head(seen, before) {
                    Some(end) => {
                        let head = seen[..end].to_vec();
                        let after = self.after_head(&head, exchanges);
                        (after, end - before)
                    }
                    None if seen.len() > MAX_HEAD || !looks_like_http(seen) => (Place::Rest, bytes.len()),
                    None => return room.len(),
                }
            }
            Place::Body(left) => passing(*left, bytes, Place::Body, Place::Head(Vec::new())),
            Place::Chunk(left) => passing(*left, bytes, Place::Chunk, Place::Size(0, false)),
            Place::Size(0, _) if byte == b'\n' => (Place::Trailer(true), 1),
            Place::Size(size, _) if byte == b'\n' => (Place::Chunk(size.saturating_add(2)), 1),
            Place::Size(size, over) => match char::from(byte).to_digit(16).filter(|_| !*over) {
                Some(digit) => (Place::Size(size.saturating_mul(16).saturating_add(digit.into()), false), 1),
                None => (Place::Size(*size, true), 1),
            },
            Place::Trailer(true) if byte == b'\n' => (Place::Head(Vec::new()), 1),
            Place::Trailer(empty) => (Place::Trailer(byte == b'\n' || (*empty && byte == b'\r')), 1),
            Place::Rest => (Place::Rest, bytes.len()),
        };
        self.place = next;
        passed
    }

    fn after_head(&mut self, head: &[u8], exchanges: &Exchanges) -> Place {
        let status = status(head).unwrap_or_default();
        let interim = (100..200).contains(&status) && status != 101;
        if interim {
            return Place::Head(Vec::new());
        }
        let taken = exchanges.next(self.begun).unwrap_or(Taken { head: false });
        self.begun += 1;
        if status == 101 {
            return Place::Rest;
        }
        if taken.head || matches!(status, 204 | 304) {
            return Place::Head(Vec::new());
        }
        if header(head, b"transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
            return Place::Size(0, false);
        }
        let length = header(head, b"content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        match length {
            Some(0) => Place::Head(Vec::new()),
            Some(length) => Place::Body(length),
            None => Place::Rest,
        }
    }
}

/// As many of the bytes as remain; then what follows.
fn passing(left: u64, bytes: &[u8], on: impl FnOnce(u64) -> Place, over: Place) -> (Place, usize) {
    let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let left = left - passed as u64;
    (if left == 0 { over } else { on(left) }, passed)
}

/// Index after the empty line, which does not end before `from`.
pub(super) fn end_of_head(seen: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(3);
    seen[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4)
}

fn looks_like_http(bytes: &[u8]) -> bool {
    let begins = &bytes[..bytes.len().min(7)];
    b"HTTP/1.".starts_with(begins)
}

/// Status of a head.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name).then(|| line[colon + 1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    /// Where the first response that no route makes begins, with the stream passed in pieces of every size.
    fn foreign(methods: &[Method], stream: &[u8]) -> Option<usize> {
        let found = |piece: usize| {
            let exchanges = Exchanges::default();
            methods.iter().for_each(|method| exchanges.taken(method));
            let (mut framing, mut at) = (Framing::new(), 0);
            while at < stream.len() {
                let buffer = &stream[at..stream.len().min(at + piece)];
                match framing.owner(buffer, &exchanges) {
                    Owner::Nobody => return Some(at),
                    Owner::Route(passed) => {
                        framing.written(&buffer[..passed], &exchanges);
                        at += passed;
                    }
                }
            }
            None
        };
        let whole = found(stream.len());
        for piece in 1..stream.len() {
            assert_eq!(found(piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn behind(methods: &[Method], answers: &[u8]) {
        assert_eq!(foreign(methods, answers), None, "{}", String::from_utf8_lossy(answers));
        let with = [answers, BARE].concat();
        assert_eq!(foreign(methods, &with), Some(answers.len()), "{}", String::from_utf8_lossy(&with));
    }

    #[test]
    fn an_answer_of_nobody_is_found_behind_whatever_routes_have_answered() {
        behind(&[], b"");
        let holds_one = [b"HTTP/1.1 200 OK\r\nContent-Length: 66\r\n\r\n".as_slice(), BARE].concat();
        assert_eq!(BARE.len(), 66);
        behind(&[Method::GET], &holds_one);
        behind(
            &[Method::GET],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab\r\nc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
        );
        behind(&[Method::GET], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\nc: d\r\n\r\n");
        behind(&[Method::HEAD], b"HTTP/1.1 200 OK\r\ncontent-length: 70\r\n\r\n");
        behind(
            &[Method::DELETE, Method::GET],
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        );
        behind(
            &[Method::POST],
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\n{}",
        );
    }

    #[test]
    fn what_is_no_sequence_of_answers_is_passed_on() {
        let upgraded = [b"HTTP/1.1 101 Switching Protocols\r\n\r\n".as_slice(), BARE].concat();
        assert_eq!(foreign(&[Method::GET], &upgraded), None);
        let to_the_end = [b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n".as_slice(), BARE].concat();
        assert_eq!(foreign(&[Method::GET], &to_the_end), None);
        assert_eq!(foreign(&[], b"\x00\x00\x12\x04\x00\x00\x00\x00\x00PRI"), None);
    }
}
