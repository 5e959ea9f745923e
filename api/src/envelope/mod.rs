//! Answers that hyper makes by itself get the error envelope.
//!
//! What hyper cannot read (a bad request line, too many or too large headers, too long a target) never reaches a route: hyper
//! answers a bare 400, 414 or 431 and closes. Nothing in hyper can be told what to answer, so [`Enveloped`] stands between it and
//! the socket, follows the framing of what is written, and replaces an answer that no route has made. Which ones a route has made
//! is known by [`Exchanges`]: the router counts a request when it arrives, and its answer is written after that.
//!
//! Invariants
//! * What a route answers is passed on byte for byte, whatever it holds.
//! * After an answer of hyper's own the connection ends; what the client still sends is taken in for a moment, so that the answer
//!   is not lost to a reset.

mod framing;
mod io;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::Method;

pub(crate) use io::{Enveloped, by_hand};

/// Requests of one connection that routes have taken and not begun to answer on the wire, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchanges(Arc<Mutex<VecDeque<Taken>>>);

/// A request that a route has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its answer has no body, whatever the headers say.
    pub(crate) head: bool,
}

impl Exchanges {
    /// A route has the request: an answer to it follows.
    pub(crate) fn taken(&self, method: &Method) {
        let taken = Taken { head: method == Method::HEAD };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(taken);
    }

    /// The request whose answer comes next; none when no route makes it.
    fn next(&self, ahead: usize) -> Option<Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(ahead).copied()
    }

    fn answered(&self, count: usize) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = count.min(taken.len());
        taken.drain(..count);
    }
}
