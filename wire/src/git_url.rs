//! Accepted repository URLs: `https://host[:port]/path` and `file:///path`, and nothing that any parser could read
//! differently. One check for server, command line and runner.
//!
//! It is strict for the sake of secrets. A URL is stored in the operation log forever, so none with user information gets in,
//! however it is written: a password may contain a slash, so that it looks like a port and a path; parsers drop tabs and line ends, take
//! a backslash for a slash, and fold other characters into `@`. No problem reported here repeats any part of the URL.

use std::net::Ipv6Addr;

/// Longest URL, bytes.
pub const MAX: usize = 2048;
/// The rule as an ECMA 262 regular expression, for documents. It is slightly stricter than the rule: whatever it matches is accepted.
pub const PATTERN: &str = concat!(
    r"^(?!.*(%40|%[01]|%5[Cc]|%7[Ff]|%2[EeFf]))(?!.*/\.\.?(/|$))(https://",
    r"(([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?){0,8}|\[::1\])",
    r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}))?/|file:///)",
    r"([A-Za-z0-9._~!$&'()*+,;=:/]|%[0-9A-Fa-f]{2})([A-Za-z0-9._~!$&'()*+,;=:/-]|%[0-9A-Fa-f]{2})*$",
);

/// Why it is not accepted; for people, to follow the field's name. Contains no part of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem(&'static str);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Problem {}

const CREDENTIALS: Problem = Problem("must not contain credentials, nor anything that could be taken for them ('@')");

/// Checks a URL.
///
/// # Errors
/// What is wrong with it.
pub fn check(url: &str) -> Result<(), Problem> {
    if url.is_empty() || url.len() > MAX {
        return Err(Problem("must have 1 to 2048 bytes"));
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "must be visible ASCII without spaces: percent-encode other characters, write another script's host as xn--…";
        return Err(Problem(why));
    }
    if url.contains(['\\', '?', '#', '"', '<', '>', '`', '{', '}', '|', '^']) {
        return Err(Problem("must not contain a query, a fragment, a backslash or a quote"));
    }
    if let Some(path) = url.strip_prefix("file:///") {
        // A folder's name may contain an '@', but credentials have a ':' before it.
        if path.is_empty() {
            return Err(Problem("must name a folder"));
        }
        let credentials = path.split_once(':').is_some_and(|(_, after)| has_at_sign(after));
        return if credentials { Err(CREDENTIALS) } else { check_path(path) };
    }
    let rest = url.strip_prefix("https://").ok_or(Problem("must begin with https:// or file:///"))?;
    if has_at_sign(rest) {
        return Err(CREDENTIALS);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    check_authority(authority)?;
    if path.is_empty() {
        return Err(Problem("must name a path on the host"));
    }
    check_path(path)
}

fn has_at_sign(text: &str) -> bool {
    text.contains('@') || text.contains("%40")
}

fn check_authority(authority: &str) -> Result<(), Problem> {
    let (host, port) = if authority.starts_with('[') {
        let (host, port) = authority.split_once(']').ok_or(BAD_HOST)?;
        host[1..].parse::<Ipv6Addr>().map_err(|_| BAD_HOST)?;
        (None, port)
    } else {
        let (host, port) = authority.find(':').map_or((authority, ""), |at| authority.split_at(at));
        (Some(host), port)
    };
    if let Some(host) = host {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if host.len() > 253 || !host.split('.').all(label) {
            return Err(BAD_HOST);
        }
    }
    let port = port.strip_prefix(':').or_else(|| port.is_empty().then_some("443")).ok_or(BAD_HOST)?;
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    // Not "a port": it may be a password.
    if !digits || port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err() {
        return Err(BAD_HOST);
    }
    Ok(())
}

const BAD_HOST: Problem =
    Problem("must name a host (letters, digits, '-' and '.') and optionally a port after https://");

/// A path, fully decoded.
fn check_path(path: &str) -> Result<(), Problem> {
    let decoded = decode(path).ok_or(Problem("must be percent-encoded where it has a '%'"))?;
    if decoded.iter().any(u8::is_ascii_control) {
        return Err(Problem("must not contain control characters"));
    }
    if decoded.split(|byte| *byte == b'/').any(|step| matches!(step, b"." | b"..")) {
        return Err(Problem("must not contain '.' or '..' as a segment"));
    }
    if path.starts_with('-') || decoded.contains(&b'\\') {
        return Err(Problem("must not begin with '-' or contain a backslash"));
    }
    Ok(())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (high, low) = (bytes.next()?, bytes.next()?);
        let digit = |byte: u8| char::from(byte).to_digit(16);
        decoded.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_addresses_are_taken() {
        for url in [
            "https://example.org/a/b.git",
            "https://example.org:8443/a",
            "https://127.0.0.1:443/a",
            "https://[::1]:8443/a",
            "https://xn--bcher-kva.example/a",
            "https://host/~me/a%20b.git",
            "https://host/a:b/c",
            "file:///srv/git/a%20b.git",
            "file:///home/@work/a",
            "file:///srv/c%C3%BC",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn whatever_could_hold_credentials_is_not_taken_and_not_repeated() {
        for url in [
            "https://bot:s3cret/cd@host/x.git",
            "https://bot:12/s3cret@host/x.git",
            "https://s3cret@host/x",
            "https://user:s3cret@host/x",
            "https://user:p%2Fs3cret@host/x",
            "https://user%3As3cret%40host/x",
            "https://host/x%40s3cret/y",
            r"https:\\s3cret@host/x",
            r"https://host\s3cret@evil/x",
            "https:/s3cret@host/x",
            "https:s3cret@host/x",
            "https:///s3cret@host/x",
            "https://ho\tst/s3cret@x",
            "ht\ntps://s3cret@host/x",
            " https://s3cret@host/x",
            "https://bot:s3cret\u{ff20}host/x",
            "https://bot:s3cret/x",
            "https://host:s3cret",
            "https://b\u{fc}cher/s3cret",
            "https://host/x?token=s3cret",
            "https://host/x#s3cret",
            "HTTPS://bot:s3cret@host/x",
            "https://[s3cret]/x",
            "file://s3cret@host/x",
            "file:///bot:s3cret/x@host/y",
            "git@host:s3cret/x",
            "ssh://s3cret@host/x",
            "s3cret@host",
        ] {
            let problem = check(url).expect_err(url).to_string();
            assert!(
                !problem.contains("s3cret") && !problem.contains("host/") && !problem.contains("bot"),
                "{url}: {problem}"
            );
        }
    }

    #[test]
    fn other_forms_and_ways_out_are_not_taken() {
        for url in [
            "",
            "https://",
            "https://host",
            "https://host/",
            "https:///x",
            "https://-h/x",
            "https://h-/x",
            "https://h..i/x",
            "https://h:0/x",
            "https://h:70000/x",
            "https://h:/x",
            "http://h/x",
            "Https://h/x",
            "FILE:///x",
            "file://localhost/x",
            "file:/x",
            "file:///",
            "/srv/x",
            "file:///a/../b",
            "file:///a/%2e%2e/b",
            "file:///a%2f..%2fb",
            "file:///a%00b",
            "file:///a%0ab",
            "file:///a%",
            "file:///a%zz",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c touch",
            "https://h/-x/../y",
            "file:///a%5cb",
        ] {
            assert!(check(url).is_err(), "{url}");
        }
        assert!(check(&format!("https://h/{}", "x".repeat(MAX))).is_err());
    }
}
