//! Playing the parts of an answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    conversation::Conversation,
    dialect::{Answer, Dialect},
    scenario::Part,
    seen::Open,
    serve::Body,
    tools::Tools,
};

/// Frames on their way to the client.
const QUEUE: usize = 4;
/// Pieces without a pause between them are sent together up to this size, bytes.
const FRAME: usize = 16 * 1024;

const BEFORE_BREAK: Duration = Duration::from_millis(20);

type Frames = mpsc::Sender<std::io::Result<Frame<Bytes>>>;

/// The client has gone, or the script ends the connection.
struct Over;

/// The answer as events, each part as soon as it is its turn.
pub(crate) fn streamed(dialect: Dialect, asked: Conversation, parts: Vec<Part>, call: Open) -> Body {
    let (frames, mut body) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let answer = dialect.answer(call.number, &asked);
        let mut stage = Stage { answer, frames, waiting: String::new() };
        if stage.play(parts, &asked.tools).await.is_ok() {
            call.done();
        }
    });
    BodyExt::boxed(StreamBody::new(futures::stream::poll_fn(move |context| body.poll_recv(context))))
}

struct Stage {
    answer: Box<dyn Answer>,
    frames: Frames,
    /// Events that are not sent yet.
    waiting: String,
}

impl Stage {
    async fn play(&mut self, parts: Vec<Part>, tools: &Tools) -> Result<(), Over> {
        self.waiting = self.answer.begin();
        for part in parts {
            match part {
                Part::Drip { count, size, every } => {
                    for _ in 0..count {
                        if !every.is_zero() {
                            self.send().await?;
                            self.pause(tokio::time::sleep(every)).await?;
                        }
                        self.waiting += &self.answer.text(&piece(size));
                        if self.waiting.len() >= FRAME {
                            self.send().await?;
                        }
                    }
                }
                Part::Silence => {
                    self.send().await?;
                    self.pause(std::future::pending()).await?;
                }
                Part::Break => {
                    self.send().await?;
                    // The parts before go out first; with the error they would be thrown away.
                    tokio::time::sleep(BEFORE_BREAK).await;
                    let _ = self.frames.send(Err(std::io::Error::other("as the script has it"))).await;
                    return Err(Over);
                }
                part => {
                    self.waiting += &say(&mut *self.answer, &part, tools);
                    self.send().await?;
                }
            }
        }
        self.waiting += &self.answer.end();
        self.send().await
    }

    async fn send(&mut self) -> Result<(), Over> {
        let bytes = Bytes::from(std::mem::take(&mut self.waiting));
        if bytes.is_empty() {
            return Ok(());
        }
        self.frames.send(Ok(Frame::data(bytes))).await.map_err(|_| Over)
    }

    /// Waits, unless the client goes away meanwhile.
    async fn pause(&mut self, wait: impl Future<Output = ()>) -> Result<(), Over> {
        tokio::select! {
            () = self.frames.closed() => Err(Over),
            () = wait => Ok(()),
        }
    }
}

/// The answer in one object; none if the script ends the connection.
pub(crate) async fn whole(dialect: Dialect, asked: &Conversation, parts: Vec<Part>, call: Open) -> Option<Value> {
    let mut answer = dialect.answer(call.number, asked);
    for part in parts {
        match part {
            Part::Drip { count, size, every } => {
                for _ in 0..count {
                    tokio::time::sleep(every).await;
                    answer.text(&piece(size));
                }
            }
            Part::Silence => std::future::pending().await,
            Part::Break => return None,
            part => drop(say(&mut *answer, &part, &asked.tools)),
        }
    }
    call.done();
    let whole = answer.whole();
    Some(if asked.list { Value::Array(vec![whole]) } else { whole })
}

fn say(answer: &mut dyn Answer, part: &Part, tools: &Tools) -> String {
    match part {
        Part::Text(text) => answer.text(text),
        Part::Thought(text) => answer.thought(text),
        Part::Call(action) => match tools.call(action) {
            Some(call) => answer.tool(&call),
            None => answer.text("(the agent declares no tool for that)"),
        },
        Part::Drip { .. } | Part::Silence | Part::Break => String::new(),
    }
}

/// A piece of text of so many bytes.
fn piece(size: usize) -> String {
    format!("{}\n", "x".repeat(size.saturating_sub(1)))
}
