//! What the stage that makes namespaces hands to its runner over a socket: a report, and listening sockets with it.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use tokio::io::Interest;

use super::MAX_REPORT;

/// Most sockets of a report.
const MOST: usize = 4;

/// Sends it on standard output, which is the runner's socket.
pub(super) fn send(report: &[u8], ports: &[TcpListener]) -> std::io::Result<()> {
    let ports: Vec<_> = ports.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !ports.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&ports)) {
        return Err(std::io::Error::other("too many ports"));
    }
    let sent = sendmsg(std::io::stdout(), &[IoSlice::new(report)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == report.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
}

/// Receives it, until the stage has closed its end.
pub(super) async fn receive(socket: UnixStream, most: usize) -> std::io::Result<(Vec<u8>, Vec<TcpListener>)> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixStream::from_std(socket)?;
    let (mut text, mut ports) = (Vec::new(), Vec::new());
    loop {
        let (piece, handed) = socket.async_io(Interest::READABLE, || Ok(receive_some(&socket)?)).await?;
        ports.extend(handed.into_iter().map(TcpListener::from));
        text.extend_from_slice(&piece);
        if piece.is_empty() {
            return Ok((text, ports));
        }
        if text.len() as u64 > MAX_REPORT || ports.len() > most {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
}

fn receive_some(socket: &tokio::net::UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut piece = vec![0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut piece)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    piece.truncate(received.bytes);
    let handed = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(handed) => Some(handed),
        _ => None,
    });
    let handed = handed.flatten().collect();
    Ok((piece, handed))
}
