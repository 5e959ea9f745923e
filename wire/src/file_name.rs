//! Names of files as text. A file's name is bytes and need not be UTF-8, but JSON and URLs carry text.
//!
//! In every name and path that is told or asked for (workspace, git, events) what is UTF-8 stands for itself, a backslash is written
//! `\\`, and a byte that is not part of UTF-8 is written `\xHH` with two hexadecimal digits from `80` to `ff`. So every name has one
//! such text, and every such text means one name: what was told can be sent back as it is.

use std::fmt::Write;

/// Longest path in a workspace, bytes.
const MAX_PATH: usize = 4096;

/// A path in a workspace as bytes, without `.` and empty parts; empty for the workspace itself.
///
/// # Errors
/// What is wrong with it, in words.
pub fn in_workspace(text: &str) -> Result<Vec<u8>, String> {
    let path = unescape(text).map_err(|error| error.to_string())?;
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(format!("must have at most {MAX_PATH} bytes, without NUL"));
    }
    if path.starts_with(b"/") {
        return Err("must be relative to the workspace".to_owned());
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err("must not contain '..'".to_owned());
    }
    Ok(parts.join(&b'/'))
}

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(r"a backslash must be written \\; only bytes that are not UTF-8 are written \x80 to \xff")]
pub struct NotAName;

/// A name or path as text.
#[must_use]
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        for byte in chunk.invalid() {
            // Writing into a string does not fail.
            let _ = write!(text, r"\x{byte:02x}");
        }
    }
    text
}

/// The name or path that a text means.
///
/// # Errors
/// When a backslash begins neither `\\` nor `\x80` to `\xff`.
pub fn unescape(text: &str) -> Result<Vec<u8>, NotAName> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                name.push(b'\\');
                after
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let byte = digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low);
                name.push(byte.filter(|byte| !byte.is_ascii()).ok_or(NotAName)?);
                after
            }
            (b'\\', _) => return Err(NotAName),
            (other, after) => {
                name.push(*other);
                after
            }
        };
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_text_and_comes_back() {
        for (name, text) in [
            (&b"a/b c"[..], "a/b c"),
            ("ü%41".as_bytes(), "ü%41"),
            (b"bad\xff\nname", "bad\\xff\nname"),
            (br"a\b", r"a\\b"),
            (br"\xff", r"\\xff"),
            (b"\xc3", r"\xc3"),
            (b"", ""),
        ] {
            assert_eq!(escape(name), text);
            assert_eq!(unescape(text).as_deref(), Ok(name));
        }
        for text in [r"\", r"a\b", r"\x", r"\xf", r"\x41", r"\x00", r"\x2f", r"\xgg", r"\x+f", r"\\\"] {
            assert_eq!(unescape(text), Err(NotAName), "{text}");
        }
    }
}
