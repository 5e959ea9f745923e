//! The loopback interface of a new network namespace, which the kernel creates switched off.

use rustix::{
    io::{Errno, Result},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with},
};

/// `RTM_NEWLINK`: changes an interface that exists.
const NEW_LINK: u16 = 16;
/// `NLMSG_ERROR`: also the acknowledgement, with error 0.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ACKNOWLEDGED_REQUEST: u16 = 1 | 4;
/// `IFF_UP`.
const UP: u32 = 1;
/// The first interface of every network namespace.
const LOOPBACK: u32 = 1;

/// Switches it on. Needs `CAP_NET_ADMIN` in the namespace.
///
/// # Errors
/// The kernel's.
pub(super) fn up() -> Result<()> {
    // Without a protocol: NETLINK_ROUTE is number 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut answer = [0; 512];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    match (&answer[..length.min(answer.len())], word(&answer, 4)) {
        (answer, kind) if answer.len() >= 20 && kind.to_ne_bytes()[..2] == ERROR.to_ne_bytes() => {
            match word(answer, 16).cast_signed() {
                0 => Ok(()),
                error => Err(Errno::from_raw_os_error(-error)),
            }
        }
        _ => Err(Errno::PROTO),
    }
}

/// A `nlmsghdr` and an `ifinfomsg`, 16 bytes each.
fn request() -> [u8; 32] {
    let mut request = [0; 32];
    request[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
    request[6..8].copy_from_slice(&ACKNOWLEDGED_REQUEST.to_ne_bytes());
    request[20..24].copy_from_slice(&LOOPBACK.to_ne_bytes());
    // Which flags, and which of them are meant.
    request[24..28].copy_from_slice(&UP.to_ne_bytes());
    request[28..32].copy_from_slice(&UP.to_ne_bytes());
    request
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
