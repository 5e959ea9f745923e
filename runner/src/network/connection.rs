//! One connection of the agent to the proxy: one request, or one tunnel.

use std::{sync::Arc, time::Duration};

use ambient_wire::{network::Host, runner_event::NetworkRefusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};

use super::{
    Proxy,
    idle::Watched,
    reach::Failure,
    request::{self, Asked, MAX_HEAD},
};

/// From a connection's start to the end of its request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// Pieces that a head may come in: each is one more reading of what there is.
const MOST_PIECES: usize = 64;
/// How long nothing may go through a connection in either direction.
const IDLE_PATIENCE: Duration = Duration::from_secs(600);
/// For an answer of ours.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// An answer of ours: status line and words.
struct Answer {
    status: &'static str,
    reason: String,
}

impl Answer {
    fn bad_request(reason: impl Into<String>) -> Self {
        Self { status: "400 Bad Request", reason: reason.into() }
    }
}

/// Serves it, until the turn is stopped.
pub(super) async fn serve(mut stream: TcpStream, proxy: Arc<Proxy>) {
    let open = proxy.is_open();
    tokio::select! {
        biased;
        () = open.cancelled() => {}
        answer = pass(&mut stream, &proxy) => if let Err(answer) = answer {
            let _ = timeout(ANSWER_PATIENCE, say(&mut stream, &answer)).await;
        },
    }
}

/// Passes what comes on to where it is for.
async fn pass(stream: &mut TcpStream, proxy: &Proxy) -> Result<(), Answer> {
    let reading = timeout(HEAD_PATIENCE, read_head(stream)).await;
    let slow = || Answer { status: "408 Request Timeout", reason: "the request took too long".to_owned() };
    let Some((Asked { host, port, head }, early)) = reading.map_err(|_| slow())?? else { return Ok(()) };
    let target = match proxy.reach.connect(&host, port).await {
        Ok(target) => target,
        Err(failure) => return Err(failed(proxy, &host, port, failure).await),
    };
    // Small pieces (keystrokes, events) are to go at once.
    let _ = (stream.set_nodelay(true), target.set_nodelay(true));
    let mut target = Watched::new(target, IDLE_PATIENCE);
    let begun = match head {
        Some(head) => target.write_all(&head).await,
        None => stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await,
    };
    let passed = async {
        begun?;
        target.write_all(&early).await?;
        copy_bidirectional(stream, &mut target).await
    };
    if let Err(error) = passed.await {
        tracing::debug!(%error, "a connection through the network proxy ended");
    }
    Ok(())
}

/// What the client asks, and what it has sent after that; none if it asks nothing.
async fn read_head(stream: &mut TcpStream) -> Result<Option<(Asked, Vec<u8>)>, Answer> {
    let mut bytes = Vec::new();
    for _ in 0..MOST_PIECES {
        let Ok(1..) = stream.read_buf(&mut bytes).await else { return Ok(None) };
        if let Some((asked, length)) = request::read(&bytes).map_err(Answer::bad_request)? {
            return Ok(Some((asked, bytes.split_off(length))));
        }
        if bytes.len() > MAX_HEAD {
            break;
        }
    }
    let reason =
        format!("the request's head has more than {MAX_HEAD} bytes, or comes in more than {MOST_PIECES} pieces");
    Err(Answer { status: "431 Request Header Fields Too Large", reason })
}

async fn failed(proxy: &Proxy, host: &Host, port: u16, failure: Failure) -> Answer {
    let why = match failure {
        Failure::Failed(reason) => {
            return Answer { status: "502 Bad Gateway", reason: format!("{host}:{port} cannot be reached: {reason}") };
        }
        Failure::Slow => {
            return Answer {
                status: "504 Gateway Timeout",
                reason: format!("{host}:{port} cannot be reached in time"),
            };
        }
        Failure::Refused(why) => why,
    };
    proxy.refusals.note(host, port, why).await;
    let reason = match why {
        NetworkRefusal::NoNetwork => format!("this session has no network, so {host}:{port} cannot be reached"),
        NetworkRefusal::NotAllowed => format!("{host}:{port} is not in this session's network allow-list"),
        NetworkRefusal::NotPublic => {
            format!("{host}:{port} leads to an address that is not public and not in this session's network allow-list")
        }
    };
    Answer { status: "403 Forbidden", reason }
}

async fn say(stream: &mut TcpStream, answer: &Answer) -> std::io::Result<()> {
    let Answer { status, reason } = answer;
    let length = reason.len() + 1;
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{reason}\n"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    // What the client still sends is taken, or the answer could be lost with the connection.
    tokio::io::copy(&mut stream.take(1 << 20), &mut tokio::io::sink()).await.map(drop)
}
