//! The bare counterpart of sockets that wait and of logs that are sent again: a process that does nothing but hold WebSockets, and send
//! the lines of a file when it is asked to. It knows no callers, sessions or database.

use std::{process::Stdio, sync::Arc};

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use tokio_tungstenite::{
    accept_async_with_config,
    tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig},
};

use crate::{Failure, server::resident_bytes};

/// Makes this program such a process; the file is named next.
pub(crate) const ARGUMENT: &str = "bare-sockets";
/// What a client says first.
pub(crate) const HOLD: &str = "hold";
pub(crate) const SEND: &str = "send";
/// Buffers as small as the server's, bytes (`api/src/routes/live.rs`).
const SMALL: [usize; 2] = [2 * 1024, 4 * 1024];

/// Serves until standard input ends.
pub(crate) async fn serve(file: &str) -> Result<(), Failure> {
    let text = if file.is_empty() { String::new() } else { tokio::fs::read_to_string(file).await? };
    let lines: Arc<[Utf8Bytes]> = text.lines().map(Utf8Bytes::from).collect();
    let [read, write] = SMALL;
    let small = WebSocketConfig::default().read_buffer_size(read).write_buffer_size(write);
    for config in [WebSocketConfig::default(), small] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        tokio::spawn(accept(listener, config, lines.clone()));
    }
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while input.next_line().await?.is_some() {}
    Ok(())
}

async fn accept(listener: TcpListener, config: WebSocketConfig, lines: Arc<[Utf8Bytes]>) {
    while let Ok((stream, _)) = listener.accept().await {
        let lines = lines.clone();
        tokio::spawn(async move {
            if let Err(error) = socket(stream, config, &lines).await {
                eprintln!("bench: bare socket: {error}");
            }
        });
    }
}

async fn socket(stream: TcpStream, config: WebSocketConfig, lines: &[Utf8Bytes]) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    let Some(Message::Text(first)) = socket.next().await.transpose()? else { return Ok(()) };
    socket.send(Message::text("subscribed")).await?;
    if first.as_str() == SEND {
        for line in lines {
            // A client that has what it wanted leaves.
            if socket.feed(Message::Text(line.clone())).await.is_err() {
                return Ok(());
            }
        }
        let _ = socket.flush().await;
    }
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}

/// Such a process; it ends with this value.
pub(crate) struct BareSockets {
    child: Child,
    /// With the library's buffers, and with as small ones as the server's.
    pub(crate) urls: [String; 2],
}

impl BareSockets {
    /// With the lines of a file to send; none if it is empty.
    pub(crate) async fn start(file: &str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ARGUMENT, file]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let mut urls = [String::new(), String::new()];
        for url in &mut urls {
            *url = format!("ws://{}/", output.next_line().await?.ok_or("the bare sockets' process has ended")?);
        }
        Ok(Self { child, urls })
    }

    pub(crate) fn resident_bytes(&self) -> Result<f64, Failure> {
        resident_bytes(self.child.id().ok_or("the bare sockets' process has ended")?)
    }
}
