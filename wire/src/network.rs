//! What a session's agent may reach of the network: one reading of allow-lists for server, command line and runner.
//!
//! Entries and the hosts that are asked for have one spelling each (lower case, punycode, no dot at the end), so that comparing
//! them is comparing texts. Nothing here resolves names.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most entries of an allow-list.
pub const MOST_ALLOWED: usize = 100;
/// Longest entry of an allow-list, bytes.
pub const MAX_ENTRY: usize = 265;
/// An entry as an ECMA 262 regular expression, for documents. It is slightly stricter than the rule: whatever it matches is accepted.
pub const PATTERN: &str = concat!(
    r"^((\*\.)?([a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?\.){0,8}[a-z]([a-z0-9_-]{0,20}[a-z0-9_])?",
    r"|((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])|\[::1\])",
    r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}))?$",
);
/// Ports of an entry that names none: the web's.
const WEB: [u16; 2] = [80, 443];

/// What a session's agent may reach of the network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "mode": "allow_list", "allow": ["github.com", "*.crates.io", "localhost.example:8080"] }))]
pub struct Network {
    /// How much.
    pub mode: NetworkMode,
    /// With `allow_list`: hosts, as `host`, `*.host` (those beneath it) or `host:port`. A host is a name in lower case (other scripts in
    /// punycode), an IPv4 address, or an IPv6 address in brackets. Without a port: 80 and 443. Addresses that are not public, also
    /// those that a name leads to, only if the list names the address. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// How much of the network an agent may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// What the machine reaches.
    #[default]
    Open,
    /// Nothing but the session's model endpoint.
    None,
    /// The same, and over HTTP proxies what the list names.
    AllowList,
}

/// What is wrong with a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Field within the network, such as `allow[3]`.
    pub field: String,
    /// For people, to follow the field's name.
    pub reason: String,
}

impl Network {
    /// Whether it is less than what the machine reaches.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.mode != NetworkMode::Open
    }

    /// Whether it is what the machine reaches, so that nothing needs to be said.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_restricted()
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first problem.
    pub fn check(&self) -> Result<(), Problem> {
        self.entries().map(drop)
    }

    /// The allow-list, read.
    ///
    /// # Errors
    /// The first problem.
    pub fn entries(&self) -> Result<Vec<Entry>, Problem> {
        let problem = |field: String, reason: &str| Problem { field, reason: reason.to_owned() };
        let allow = "allow".to_owned();
        match (self.mode, self.allow.len()) {
            (NetworkMode::AllowList, 0) => Err(problem(allow, "names no host; mode 'none' is for nothing at all")),
            (NetworkMode::AllowList, 1..=MOST_ALLOWED) => {
                let read = |(i, text): (usize, &String)| {
                    text.parse().map_err(|reason: NotAnEntry| problem(format!("allow[{i}]"), reason.0))
                };
                self.allow.iter().enumerate().map(read).collect()
            }
            (NetworkMode::AllowList, _) => Err(problem(allow, "has more than 100 entries")),
            (_, 0) => Ok(Vec::new()),
            _ => Err(problem(allow, "is for mode 'allow_list' only")),
        }
    }
}

/// `open`, `none`, or an allow-list's entries, separated by commas: as on a command line.
impl FromStr for Network {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let network = match text.trim() {
            "open" => Self::default(),
            "none" => Self { mode: NetworkMode::None, allow: Vec::new() },
            hosts => {
                let allow = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned);
                Self { mode: NetworkMode::AllowList, allow: allow.collect() }
            }
        };
        network.check().map(|()| network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            NetworkMode::Open => f.write_str("open"),
            NetworkMode::None => f.write_str("none"),
            NetworkMode::AllowList => f.write_str(&self.allow.join(",")),
        }
    }
}

/// Whom a connection is for, as its client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name in its one spelling.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Reads what a client asks for: any case, and a dot at the end, are put right.
impl FromStr for Host {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, NotAnEntry> {
        if let Some(address) = text.strip_prefix('[') {
            let address = address.strip_suffix(']').and_then(|address| address.parse::<Ipv6Addr>().ok());
            // The same host must not have two names.
            return address.map(|address| Self::Address(IpAddr::V6(address).to_canonical())).ok_or(ADDRESS);
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        check_name(&name).map(|()| Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// An entry of an allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    host: Pattern,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Host(Host),
    /// Names that end so; begins with a dot.
    Beneath(String),
}

/// Why a text is no host or no entry; for people, to follow the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnEntry(pub &'static str);

const ADDRESS: NotAnEntry = NotAnEntry("is not an IPv6 address in brackets");

impl Entry {
    /// Whether it names this host and port.
    #[must_use]
    pub fn names(&self, host: &Host, port: u16) -> bool {
        let is_port = self.port.map_or_else(|| WEB.contains(&port), |own| own == port);
        is_port
            && match (&self.host, host) {
                (Pattern::Host(own), host) => own == host,
                // Something comes before the dot.
                (Pattern::Beneath(end), Host::Name(name)) => name.len() > end.len() && name.ends_with(end.as_str()),
                (Pattern::Beneath(_), Host::Address(_)) => false,
            }
    }
}

impl FromStr for Entry {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, NotAnEntry> {
        if text.is_empty() || text.len() > MAX_ENTRY {
            return Err(NotAnEntry("must have 1 to 265 bytes"));
        }
        if !text.is_ascii() {
            return Err(NotAnEntry("must be ASCII: write another script's host name as xn--…"));
        }
        if text.contains(['/', '@']) {
            return Err(NotAnEntry("must be a host, with a port if need be, and no URL"));
        }
        // The colons of an address are within its brackets.
        let end = text.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match text[end..].split_once(':') {
            Some((rest, port)) => (&text[..end + rest.len()], Some(check_port(port)?)),
            None => (text, None),
        };
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(NotAnEntry("must be in lower case"));
        }
        if host.ends_with('.') {
            return Err(NotAnEntry("must not end with a dot"));
        }
        let host = match host.strip_prefix("*.") {
            Some(name) => check_name(name).map(|()| Pattern::Beneath(format!(".{name}")))?,
            None if host.contains('*') => {
                return Err(NotAnEntry("may have a '*' only in place of everything before a dot, as in *.example.com"));
            }
            None => Pattern::Host(host.parse()?),
        };
        Ok(Self { host, port })
    }
}

fn check_port(text: &str) -> Result<u16, NotAnEntry> {
    let is_plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|_| is_plain);
    port.ok_or(NotAnEntry("must have a port from 1 to 65535 after the colon (IPv6 addresses in brackets)"))
}

/// A host's name in its one spelling, and nothing that a resolver could take for an address.
fn check_name(name: &str) -> Result<(), NotAnEntry> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(NotAnEntry(
            "is not a host name: labels of 1 to 63 letters, digits, '-' and '_', at most 253 bytes together",
        ));
    }
    // `127.1`, `2130706433` and `0x7f.1` are addresses to some.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        return Err(NotAnEntry("is neither a host name nor an IPv4 address with four numbers"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Entry, Host, Network};

    fn entry(text: &str) -> Entry {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e:?}"))
    }

    fn names(text: &str, host: &str, port: u16) -> bool {
        entry(text).names(&host.parse::<Host>().unwrap(), port)
    }

    #[test]
    fn an_entry_names_exactly_its_hosts_and_ports() {
        assert!(names("example.com", "example.com", 443) && names("example.com", "EXAMPLE.com.", 80));
        assert!(!names("example.com", "example.com", 22) && !names("example.com", "a.example.com", 443));
        assert!(!names("example.com", "example.com.evil.net", 443) && !names("example.com", "badexample.com", 443));
        assert!(names("*.example.com", "a.example.com", 443) && names("*.example.com", "a.b.example.com", 80));
        assert!(!names("*.example.com", "example.com", 443) && !names("*.example.com", "badexample.com", 443));
        assert!(names("example.com:22", "example.com", 22) && !names("example.com:22", "example.com", 443));
        assert!(names("127.0.0.1:8080", "127.0.0.1", 8080) && !names("127.0.0.1:8080", "[::1]", 8080));
        assert!(names("[::1]:8080", "[0:0::1]", 8080) && names("[fd00::1]", "[fd00::1]", 443));
        // One address, whichever way it is written.
        assert!(names("127.0.0.1", "[::ffff:127.0.0.1]", 80));
    }

    #[test]
    fn what_is_no_entry_is_told_with_the_reason() {
        for text in [
            "",
            "Example.com",
            "exämple.com",
            "https://example.com",
            "a@b",
            "example.com:0",
            "example.com:65536",
            "example.com:",
            "example.com:+1",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "*",
            "*.",
            "a.*.com",
            "*example.com",
            "*.*.com",
            "example.com.",
            "-a.com",
            "a..com",
            "127.1",
            "2130706433",
            "0x7f.0x1",
            "1.2.3.4.5",
            "*.1",
            "*.127.0.0.1",
            "a b",
            "a,b",
        ] {
            assert!(text.parse::<Entry>().is_err(), "{text}");
        }
        for text in ["a", "_x.y", "xn--exmple-cua.com", "*.com", "1.2.3.4", "[::]", "a.com:65535", "1a.b2"] {
            entry(text);
        }
        for host in ["127.1", "2130706433", "0x7f000001", "", ".", "a b", "a\0", "[::1]:1", "exämple.com"] {
            assert!(host.parse::<Host>().is_err(), "{host}");
        }
    }

    #[test]
    fn a_command_lines_words_are_a_network() {
        for text in ["open", "none", "github.com,*.crates.io,[::1]:80"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let problem = "github.com, Crates.io".parse::<Network>().unwrap_err();
        assert_eq!((problem.field.as_str(), problem.reason.as_str()), ("allow[1]", "must be in lower case"));
        assert_eq!(",".parse::<Network>().unwrap_err().field, "allow");
        assert!(vec!["a"; 101].join(",").parse::<Network>().is_err());
    }
}
