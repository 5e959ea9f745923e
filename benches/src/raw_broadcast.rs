//! The ceiling of the live channels: a process that sends the same bytes to the same number of sockets, and nothing else.
//!
//! This program starts itself with [`ARGUMENT`]. A line on standard input, `<group> <text>`, is sent to the group's sockets; a
//! socket's first message names its group. It ends when its standard input closes.

use std::{collections::HashMap, process::Stdio, sync::Arc};

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, Command},
    sync::broadcast,
};
use tokio_tungstenite::{
    accept_async,
    tungstenite::{Message, Utf8Bytes},
};

use crate::{Failure, server::resident_bytes};

/// Makes this program a broadcaster.
pub(crate) const ARGUMENT: &str = "raw-broadcast";
/// Most groups, and lines a socket may be behind.
const GROUPS: usize = 128;
const BEHIND: usize = 2_048;

type Groups = Arc<HashMap<String, broadcast::Sender<Utf8Bytes>>>;

/// Broadcasts until standard input ends.
pub(crate) async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let groups: Groups = Arc::new((0..GROUPS).map(|n| (n.to_string(), broadcast::channel(BEHIND).0)).collect());
    let accepting = tokio::spawn(accept(listener, groups.clone()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (group, text) = line.split_once(' ').ok_or("a line is `<group> <text>`")?;
        // Nobody listening is fine.
        let _ = groups.get(group).ok_or("there is no such group")?.send(Utf8Bytes::from(text));
    }
    accepting.abort();
    Ok(())
}

async fn accept(listener: TcpListener, groups: Groups) {
    while let Ok((stream, _)) = listener.accept().await {
        let groups = groups.clone();
        tokio::spawn(async move {
            if let Err(error) = socket(stream, &groups).await {
                eprintln!("bench: raw broadcast: {error}");
            }
        });
    }
}

async fn socket(stream: TcpStream, groups: &Groups) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut socket = accept_async(stream).await?;
    let Some(Message::Text(group)) = socket.next().await.transpose()? else { return Ok(()) };
    let mut texts = groups.get(group.as_str()).ok_or("there is no such group")?.subscribe();
    socket.send(Message::text("subscribed")).await?;
    loop {
        tokio::select! {
            text = texts.recv() => {
                socket.feed(Message::Text(text?)).await?;
                // As the server does: what is ready together leaves in one write.
                while let Ok(text) = texts.try_recv() {
                    socket.feed(Message::Text(text)).await?;
                }
                socket.flush().await?;
            }
            message = socket.next() => if !matches!(message, Some(Ok(_))) { return Ok(()) },
        }
    }
}

/// A broadcaster process.
pub(crate) struct RawBroadcast {
    child: Child,
    input: ChildStdin,
    pub(crate) url: String,
}

impl RawBroadcast {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
        let address = BufReader::new(output).lines().next_line().await?.ok_or("the broadcaster ended")?;
        Ok(Self { child, input, url: format!("ws://{address}/") })
    }

    /// Sends texts to the sockets of a group.
    pub(crate) async fn send(&mut self, group: usize, texts: &[&str]) -> Result<(), Failure> {
        let lines: String = texts.iter().map(|text| format!("{group} {text}\n")).collect();
        self.input.write_all(lines.as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    pub(crate) fn resident_bytes(&self) -> Result<f64, Failure> {
        resident_bytes(self.child.id().ok_or("the broadcaster ended")?)
    }
}
