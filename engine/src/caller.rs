//! The other end of a call, and what it has been handed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::token::TaskToken;

/// A task claimed for a caller, until it has been handed over.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    Workflow(TaskToken),
    Activity(TaskToken),
}

/// The other end of a call.
#[derive(Clone)]
pub(crate) struct Caller {
    gone: watch::Receiver<bool>,
    claim: Arc<Mutex<Option<Claim>>>,
}

impl Caller {
    /// `gone` signals that nobody is waiting any more.
    pub(crate) fn new(gone: watch::Receiver<bool>) -> Self {
        Self { gone, claim: Arc::default() }
    }

    /// Resolves when nobody is waiting for the response any more.
    pub(crate) async fn gone(&self) {
        let mut gone = self.gone.clone();
        // An error means that the caller's side was dropped: gone as well.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Records what to give back if the response does not arrive.
    pub(crate) fn claimed(&self, claim: Claim) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim);
    }

    pub(crate) fn take(&self) -> Option<Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
