//! Passing an answer on, piece by piece as it comes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::timeout;

use super::{
    calls::Call,
    meter::Meter,
    pool::{Connection, Pool},
    server::Body,
};

/// Longest pause in an answer. Endpoints send signs of life more often.
const PIECE_PATIENCE: Duration = Duration::from_secs(300);

struct Passing {
    body: Incoming,
    call: Call,
    /// None once the answer is whole, or its connection has failed.
    from: Option<(Connection, Arc<Pool>)>,
    /// The last piece of an answer that is not events goes out when what it has used is recorded: the next call must find it.
    holds_back: bool,
    held: Bytes,
}

/// The body of an answer. When it is dropped its connection is closed, unless it was read to its end.
pub(super) fn body(body: Incoming, call: Call, from: (Connection, Arc<Pool>)) -> Body {
    let holds_back = call.meter.as_ref().is_some_and(Meter::holds_back);
    let passing = Passing { body, call, from: Some(from), holds_back, held: Bytes::new() };
    let pieces = futures::stream::unfold(passing, |mut passing| async move {
        let piece = passing.next().await?;
        Some((piece.map(Frame::data), passing))
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl Passing {
    /// The next piece for the agent, none at the end.
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            self.from.as_ref()?;
            let piece = match self.received().await {
                Ok(Some(piece)) => self.take(piece).await,
                Ok(None) => self.end().await,
                Err(reason) => {
                    self.from = None;
                    self.call.count(false).await;
                    // The pieces before go out while this waits; with the error they would be thrown away.
                    tokio::task::yield_now().await;
                    return Some(Err(std::io::Error::other(reason)));
                }
            };
            if !piece.is_empty() {
                return Some(Ok(piece));
            }
        }
    }

    async fn received(&mut self) -> Result<Option<Bytes>, String> {
        let frame = tokio::select! {
            biased;
            () = self.call.cancelled() => return Err("the turn was stopped".to_owned()),
            frame = timeout(PIECE_PATIENCE, self.body.frame()) => frame,
        };
        match frame.map_err(|_| "the model endpoint stopped in the middle of its answer")? {
            None => Ok(None),
            // Trailers are left out.
            Some(frame) => Ok(Some(frame.map_err(|e| e.to_string())?.into_data().unwrap_or_default())),
        }
    }

    async fn take(&mut self, piece: Bytes) -> Bytes {
        let Some(meter) = &mut self.call.meter else { return piece };
        let mut piece = meter.piece(piece);
        if meter.is_complete() {
            let rest = meter.end();
            if !rest.is_empty() {
                piece = [piece, rest].concat().into();
            }
            self.call.count(true).await;
        }
        if self.holds_back && !piece.is_empty() { std::mem::replace(&mut self.held, piece) } else { piece }
    }

    async fn end(&mut self) -> Bytes {
        let rest = self.call.meter.as_mut().map(Meter::end).unwrap_or_default();
        self.call.count(true).await;
        self.call.lets_go();
        if let Some((connection, pool)) = self.from.take() {
            pool.give_back(connection);
        }
        // What is held back is of a whole answer, of which nothing else is left.
        if self.holds_back { std::mem::take(&mut self.held) } else { rest }
    }
}
