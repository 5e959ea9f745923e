//! What a runner's parts share.

use std::sync::Arc;

use crate::{
    attempt::Attempt,
    auth::Auth,
    ending::{CurrentTurn, Ending},
    git::repos::Repos,
    log::EventLog,
    messages::Inbox,
    reader::Readers,
};

pub(crate) type SharedApp = Arc<App>;

/// The whole runner.
pub(crate) struct App {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) log: EventLog,
    pub(crate) log_id: String,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) readers: Readers,
    pub(crate) repos: Repos,
    pub(crate) auth: Auth,
    pub(crate) current: CurrentTurn,
    pub(crate) ending: Ending,
}
