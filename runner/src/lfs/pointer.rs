//! What a repository contains in place of a file that Git LFS keeps: its hash and size.

use serde::{Deserialize, Serialize};

/// Every pointer is shorter than this, bytes.
pub(crate) const MAX_POINTER: u64 = 1024;
/// No pointer is shorter than this, bytes.
pub(crate) const MIN_POINTER: u64 = 100;
const FIRST_LINES: [&str; 2] =
    ["version https://git-lfs.github.com/spec/v1", "version https://hawser.github.com/spec/v1"];

/// A Git LFS object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Object {
    /// SHA-256 of its content, in hexadecimal.
    pub(crate) oid: String,
    /// Bytes.
    pub(crate) size: u64,
}

/// Whether it is an object's name. Anything else never becomes part of a path or a request.
pub(crate) fn is_oid(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// The object that a blob stands for; nothing if it is not a pointer. One with extensions is not one we could check: its hash is not
/// the file's.
pub(crate) fn parse(blob: &[u8]) -> Option<Object> {
    if blob.len() as u64 >= MAX_POINTER {
        return None;
    }
    let mut lines = std::str::from_utf8(blob).ok()?.lines();
    let first = lines.next()?;
    let oid = lines.next()?.strip_prefix("oid sha256:").filter(|oid| is_oid(oid))?;
    let size = lines.next()?.strip_prefix("size ").filter(|size| size.bytes().all(|c| c.is_ascii_digit()))?;
    let fits = FIRST_LINES.contains(&first) && lines.all(str::is_empty);
    fits.then_some(Object { oid: oid.to_owned(), size: size.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{Object, parse};

    #[test]
    fn pointers_are_what_the_specification_says_and_nothing_else() {
        let oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let good = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12345\n");
        assert_eq!(parse(good.as_bytes()), Some(Object { oid: oid.to_owned(), size: 12345 }));
        for bad in [
            String::new(),
            good.replace("v1", "v2"),
            good.replace("sha256", "md5"),
            good.replace("4d7a", "../x"),
            good.replace("4d7a", "4D7A"),
            good.replace("12345", "-1"),
            good.replace("12345", "99999999999999999999999"),
            good.replace("size", "ext-0-x sha256:1\nsize"),
            format!("{good}more\n"),
            format!("{good}{}", "\n".repeat(1024)),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
