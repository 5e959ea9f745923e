//! What people think of what an agent says or does.

use serde::{Deserialize, Serialize};

use crate::{entity::Refusal, name};

/// Longest id of what is rated, reason and comment, bytes.
const MAX_ID: usize = 1024;
const MAX_REASON: usize = 1024;
const MAX_COMMENT: usize = 16 * 1024;

/// What a person thinks of an answer, or of the session as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// In short.
    pub rating: Rating,
    /// Message that it is about; the session as a whole when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Why, in a word or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rating {
    /// Good.
    ThumbsUp,
    /// Bad.
    ThumbsDown,
}

impl Feedback {
    /// Checks every field.
    ///
    /// # Errors
    /// A refusal that names the field.
    pub(super) fn validate(&self) -> Result<(), Refusal> {
        let Self { rating: _, message_id, reason, comment } = self;
        message_id.as_ref().map_or(Ok(()), |id| name::line("payload.messageId", id, MAX_ID))?;
        reason.as_ref().map_or(Ok(()), |reason| name::line("payload.reason", reason, MAX_REASON))?;
        let Some(comment) = comment else { return Ok(()) };
        if comment.len() > MAX_COMMENT {
            return Err(Refusal::invalid("payload.comment", format!("must have at most {MAX_COMMENT} bytes")));
        }
        name::text("payload.comment", comment)
    }
}
