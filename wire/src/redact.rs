//! Removes the credentials from URLs in texts: for errors, logs and names, whoever wrote the text.

use std::borrow::Cow;

/// What credentials are replaced with.
const REDACTED: &str = "…";

/// The text without what is between `://` and the last `@` of each URL. Deliberately greedy: a password may contain
/// slashes, and a text without credentials may lose a harmless part.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    let mut told = String::new();
    let mut rest = text;
    while let Some((before, credentials, after)) = first(rest) {
        if credentials != REDACTED {
            told.push_str(before);
            told.push_str(REDACTED);
        } else {
            told.push_str(before);
            told.push_str(credentials);
        }
        rest = after;
    }
    if told.is_empty() || format!("{told}{rest}") == text {
        return Cow::Borrowed(text);
    }
    told.push_str(rest);
    Cow::Owned(told)
}

/// The first credentials of a URL: the text before them, the credentials, and the rest from the `@` on.
fn first(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(start) = begin(&text[from..]).map(|at| from + at) {
        let url = &text[start..];
        let end = url.find(|c: char| c.is_whitespace() || "\"'`<>,;|".contains(c)).unwrap_or(url.len());
        if let Some((at, sign)) = at_sign(&url[..end]) {
            let (credentials, after) = (&url[..at], &url[at..]);
            // At least the sign is consumed, so the search makes progress.
            return Some((&text[..start], credentials, after)).filter(|_| !sign.is_empty());
        }
        from = start;
        if end == 0 {
            from = start + url.chars().next().map_or(0, char::len_utf8);
            if from >= text.len() {
                return None;
            }
        }
    }
    None
}

/// Where a URL's authority begins: after `://`, or, as browsers' parsers read it, after `:` and any two slashes of either kind.
fn begin(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let slash = |at: usize| bytes.get(at).is_some_and(|byte| matches!(byte, b'/' | b'\\'));
    (1..bytes.len())
        .find(|&at| bytes[at] == b':' && bytes[at - 1].is_ascii_alphanumeric() && slash(at + 1) && slash(at + 2))
        .map(|at| at + 3)
}

/// A URL's last `@`, plain or percent-encoded, or in another width that browsers' parsers take for one.
fn at_sign(url: &str) -> Option<(usize, &'static str)> {
    ["@", "%40", "\u{ff20}", "\u{fe6b}"].into_iter().filter_map(|sign| Some((url.rfind(sign)?, sign))).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_urls_are_taken_out_wherever_they_stand() {
        for (said, told) in [
            ("fatal: https://bot:ab/cd@host/x.git is away", "fatal: https://…@host/x.git is away"),
            ("'https://user:p%2Fw@host'", "'https://…@host'"),
            (r"https:\\user:pw@host", r"https:\\…@host"),
            ("HTTPS://user:pw@host", "HTTPS://…@host"),
            ("file://user:pw@host/x", "file://…@host/x"),
            ("https://u:a@b@host/x and https://v:c@d/y", "https://…@host/x and https://…@d/y"),
            ("postgres://me:secret@127.0.0.1:5432/db", "postgres://…@127.0.0.1:5432/db"),
            ("/projects/https://bot:ab%40host", "/projects/https://…%40host"),
            ("https://bot:pw\u{ff20}host/x", "https://…\u{ff20}host/x"),
        ] {
            assert_eq!(text(said), told);
            assert!(matches!(text(said), Cow::Owned(_)));
            assert_eq!(text(told), told, "told once, it stays");
        }
    }

    #[test]
    fn a_text_without_credentials_is_left_alone() {
        for plain in [
            "",
            "a",
            "me@example.org",
            "https://host/a b@c",
            "://",
            "a://",
            "https://",
            "https:// @",
            "https://…@host",
            "12:30 a@b",
        ] {
            assert!(matches!(text(plain), Cow::Borrowed(_)), "{plain:?}: {:?}", text(plain));
        }
    }
}
