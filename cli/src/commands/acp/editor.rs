//! The editor, as conversations see it.

use std::sync::Arc;

use agent_client_protocol::{
    Client as EditorRole,
    v1::{ConnectionTo, SentRequest, schema as acp},
};
use tokio::sync::Semaphore;

use crate::{
    error::CliError,
    output::{Console, Style},
};

/// Most updates that are on their way to the editor: the crate's queue has no bound of its own.
pub(super) const MAX_UPDATES: usize = 64;

/// What our failures are to the editor.
pub(super) const FAILED: i32 = -32603;
pub(super) const WRONG: i32 = -32602;
const NOT_FOUND: i32 = -32002;

/// The editor.
#[derive(Clone)]
pub(super) struct Editor {
    pub(super) connection: ConnectionTo<EditorRole>,
    /// Room for updates; whoever writes them gives it back.
    pub(super) room: Arc<Semaphore>,
    pub(super) console: Arc<Console>,
}

impl Editor {
    /// Tells of something in a session, when there is room for it.
    pub(super) async fn update(&self, session: &acp::SessionId, update: acp::SessionUpdate) {
        // Never closed.
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
        // An editor that is gone has ended its input too, and with that the command.
        let _ = self.connection.send_notification(acp::SessionNotification::new(session.clone(), update));
    }

    /// Asks whether the agent may do something.
    pub(super) fn ask(&self, request: acp::RequestPermissionRequest) -> SentRequest<acp::RequestPermissionResponse> {
        self.connection.send_request(request)
    }

    /// A remark for whoever reads the editor's log.
    pub(super) fn note(&self, text: &str) {
        self.console.progress(Style::Dim, text);
    }

    /// A failure, for the editor and its log.
    pub(super) fn failed(&self, error: &CliError) -> agent_client_protocol::Error {
        self.console.error(&error.report());
        refusal(error)
    }
}

/// An error in words.
pub(super) fn told(code: i32, words: impl Into<String>) -> agent_client_protocol::Error {
    agent_client_protocol::Error::new(code, words)
}

/// A failure as the editor gets it.
pub(super) fn refusal(error: &CliError) -> agent_client_protocol::Error {
    let code = match error {
        CliError::Usage(_) | CliError::Api { status: 400 | 413 | 422, .. } => WRONG,
        CliError::Api { status: 404, .. } => NOT_FOUND,
        _ => FAILED,
    };
    let report = error.report();
    told(code, report.strip_prefix("error: ").unwrap_or(&report).trim_end())
}
