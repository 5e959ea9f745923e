//! Gives the error envelope to responses that hyper generates itself.
//!
//! What hyper cannot read (a bad request line, too many or too large headers, too long a target) never reaches a route: hyper
//! answers a bare 400, 414 or 431 and closes. hyper offers no hook to change that response, so [`Enveloped`] stands between it and
//! the socket, follows the framing of what is written, and replaces a response that no route has made. [`Exchanges`] knows which ones
//! the routes have made: the router counts a request when it arrives, and its response is written after that.
//!
//! Invariants
//! * A route's response is passed on byte for byte, whatever it contains.
//! * After a response of hyper's own the connection ends; what the client still sends is drained for a moment, so that the response
//!   is not lost to a reset.

mod framing;
mod io;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::Method;

pub(crate) use io::{Enveloped, by_hand};

/// Requests on one connection that routes have received and not yet started to answer on the wire, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchanges(Arc<Mutex<VecDeque<Taken>>>);

/// A request that a route has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its response has no body, whatever the headers say.
    pub(crate) head: bool,
}

impl Exchanges {
    /// A route has the request: its response will follow.
    pub(crate) fn taken(&self, method: &Method) {
        let taken = Taken { head: method == Method::HEAD };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(taken);
    }

    /// The request whose response comes next; none if no route makes it.
    fn next(&self, ahead: usize) -> Option<Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(ahead).copied()
    }

    fn answered(&self, count: usize) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = count.min(taken.len());
        taken.drain(..count);
    }
}
