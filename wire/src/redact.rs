//! Texts without the credentials of the URLs in them: for errors, logs and names, whoever the text is from.

use std::borrow::Cow;

/// In the place of credentials.
const REDACTED: &str = "…";

/// The text with what stands between `://` and the last `@` of each URL taken out. Deliberately greedy: a password may hold
/// slashes, and what has no credentials may lose a harmless part.
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

/// The first credentials of a URL: what is before, they themselves, and what follows from the `@` on.
fn first(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(start) = begin(&text[from..]).map(|at| from + at) {
        let url = &text[start..];
        let end = url.find(|c: char| c.is_whitespace() || "\"'`<>,;|".contains(c)).unwrap_or(url.len());
        if let Some((at, sign)) = at_sign(&url[..end]) {
            let (credentials, after) = (&url[..at], &url[at..]);
            // What is passed is at least the sign, so that the search goes on.
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

/// Where the authority of a URL begins: after `://`, or as parsers of browsers have it, `:` and any two slashes of either kind.
fn begin(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let slash = |at: usize| bytes.get(at).is_some_and(|byte| matches!(byte, b'/' | b'\\'));
    (1..bytes.len())
        .find(|&at| bytes[at] == b':' && bytes[at - 1].is_ascii_alphanumeric() && slash(at + 1) && slash(at + 2))
        .map(|at| at + 3)
}

/// The last `@` of a URL, plain or percent-encoded, or in another width that parsers of browsers take for it.
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
