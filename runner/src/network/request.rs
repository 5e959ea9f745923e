//! What a client asks the proxy: a tunnel (`CONNECT host:port`), or a request to pass on (`GET http://host/…`).

use ambient_wire::network::Host;

/// Longest head, bytes.
pub(super) const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 128;
/// For this connection only, or for us. A connection serves one request, so `Connection` is ours to say.
const NOT_PASSED_ON: [&str; 7] =
    ["connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "upgrade", "host"];

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) host: Host,
    pub(super) port: u16,
    /// What is sent to the host first; none for a tunnel.
    pub(super) head: Option<Vec<u8>>,
}

/// Reads a head; none if it is not complete, else also its length.
///
/// # Errors
/// In words, if it is none that can be served.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Asked, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(bytes).map_err(|e| format!("this is not HTTP: {e}"))?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if method == "CONNECT" {
        let (host, port) = authority(target)?;
        let port = port.ok_or("CONNECT needs a host and a port")?;
        return Ok(Some((Asked { host, port, head: None }, length)));
    }
    let is_http = target.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let rest = target
        .get(7..)
        .filter(|_| is_http)
        .ok_or("this is an HTTP proxy: it takes CONNECT, and requests for http:// addresses")?;
    let (named, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = authority(named)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    // The host that was checked is the one that is asked.
    let colon = port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut head =
        format!("{method} {slash}{path} HTTP/1.1\r\nHost: {host}{colon}\r\nConnection: close\r\n").into_bytes();
    for header in request.headers.iter().filter(|header| is_passed_on(header.name)) {
        for piece in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
            head.extend_from_slice(piece);
        }
    }
    head.extend_from_slice(b"\r\n");
    Ok(Some((Asked { host, port: port.unwrap_or(80), head: Some(head) }, length)))
}

fn is_passed_on(name: &str) -> bool {
    !NOT_PASSED_ON.iter().any(|own| name.eq_ignore_ascii_case(own))
}

fn authority(text: &str) -> Result<(Host, Option<u16>), String> {
    // The colons of an address are within its brackets.
    let end = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[end..].split_once(':') {
        Some((rest, port)) => {
            let number = port.parse().ok().filter(|number| *number != 0 && port.bytes().all(|b| b.is_ascii_digit()));
            (&text[..end + rest.len()], Some(number.ok_or("the port is not a number from 1 to 65535")?))
        }
        None => (text, None),
    };
    Ok((host.parse().map_err(|reason: ambient_wire::network::NotAnEntry| format!("the host {}", reason.0))?, port))
}

#[cfg(test)]
mod tests {
    use super::read;

    fn asked(head: &str) -> (String, u16, Option<String>) {
        let (asked, length) = read(head.as_bytes()).unwrap().unwrap();
        assert_eq!(length, head.len());
        (asked.host.to_string(), asked.port, asked.head.map(|head| String::from_utf8(head).unwrap()))
    }

    #[test]
    fn what_is_passed_on_goes_to_the_host_of_the_address_and_says_nothing_of_the_proxy() {
        assert_eq!(
            asked("CONNECT Example.com:443 HTTP/1.1\r\nHost: other\r\n\r\n"),
            ("example.com".to_owned(), 443, None)
        );
        assert_eq!(asked("CONNECT [::1]:8443 HTTP/1.1\r\n\r\n"), ("[::1]".to_owned(), 8443, None));
        let (host, port, head) = asked(
            "POST HTTP://example.com:8080/a?b HTTP/1.1\r\nHost: other\r\nProxy-Authorization: Basic x\r\nConnection: keep-alive, x\r\n\
             Content-Length: 3\r\n\r\n",
        );
        let head = head.unwrap();
        assert_eq!((host.as_str(), port), ("example.com", 8080));
        assert_eq!(
            head,
            "POST /a?b HTTP/1.1\r\nHost: example.com:8080\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
        );
        assert!(
            asked("GET http://[fd00::1]?q HTTP/1.0\r\n\r\n")
                .2
                .unwrap()
                .starts_with("GET /?q HTTP/1.1\r\nHost: [fd00::1]\r\n")
        );
    }

    #[test]
    fn what_cannot_be_served_is_told() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET https://a/ HTTP/1.1\r\n\r\n",
            "CONNECT a HTTP/1.1\r\n\r\n",
            "CONNECT a:0 HTTP/1.1\r\n\r\n",
            "CONNECT a:+1 HTTP/1.1\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\n\r\n",
            "GET http:///x HTTP/1.1\r\n\r\n",
            "\x16\x03\x01",
            "CONNECT 127.1:80 HTTP/1.1\r\n\r\n",
            "GET http://a\\@b/ HTTP/1.1\r\n\r\n",
            "SSH-2.0-x\r\n",
        ] {
            assert!(read(head.as_bytes()).is_err(), "{head:?}");
        }
        assert_eq!(read(b"CONNECT a:1 HTTP/1.1\r\nHost: x").unwrap(), None);
    }
}
