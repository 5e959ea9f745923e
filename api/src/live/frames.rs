//! Frames as text. Events are serialised once for all subscribers, and only wrapped here.

use ambient_live::{Event, Snapshot, SubscribeError};
use ambient_wire::live::ServerFrame;

use crate::error::{ApiError, Number};

/// Any frame but an event.
pub(super) fn text(frame: &ServerFrame) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

/// The beginning of a subscription's event frames: `{"op":"event","id":…,`.
pub(super) struct EventFrames(String);

impl EventFrames {
    pub(super) fn of(subscription: &str) -> Self {
        Self(format!("{{\"op\":\"event\",\"id\":{},", serde_json::Value::from(subscription)))
    }

    /// With the event's own fields.
    pub(super) fn text(&self, event: &Event) -> String {
        [&self.0, event.json().get(1..).unwrap_or("}")].concat()
    }
}

/// The messages so far, without parsing them.
pub(super) fn snapshot(subscription: &str, snapshot: &Snapshot) -> String {
    let id = serde_json::Value::from(subscription);
    let (covers_seq, data) = (snapshot.covers_seq(), snapshot.json());
    format!("{{\"op\":\"snapshot\",\"id\":{id},\"covers_seq\":{covers_seq},\"data\":{data}}}")
}

/// Something is wrong with a subscription, a send, or a frame.
pub(super) fn error(id: Option<String>, code: &str, reason: impl Into<String>) -> ServerFrame {
    let reason = ambient_wire::redact::text(&reason.into()).into_owned();
    ServerFrame::Error { id, code: code.to_owned(), reason, oldest: None, covers_seq: None }
}

/// Events that are no longer kept.
pub(super) fn too_old(id: String, oldest: i64, covers_seq: Option<i64>) -> ServerFrame {
    let reason = format!("events up to {} are no longer kept", oldest - 1);
    ServerFrame::Error { id: Some(id), code: "too_old".to_owned(), reason, oldest: Some(oldest), covers_seq }
}

/// A failure about a subscription or send.
pub(super) fn failure(id: String, failure: &ApiError) -> ServerFrame {
    let code = match failure.number() {
        Number::NotFound => "not_found",
        Number::Unavailable | Number::TooMany => "busy",
        Number::Malformed | Number::Validation | Number::BadRequest | Number::TooLarge => "bad_frame",
        _ => "refused",
    };
    error(Some(id), code, failure.to_string())
}

/// A message that was not accepted. A frame has no `start`, which the refusals recommend to callers of the route.
pub(super) fn not_sent(id: String, failed: &ApiError) -> ServerFrame {
    let frame = failure(id, failed);
    let ServerFrame::Error { id, code, reason, .. } = frame else { return frame };
    let reason = [", or send the message with start=true", " or send the message with start=true"]
        .iter()
        .fold(reason, |reason, advice| reason.replace(advice, " first"));
    ServerFrame::Error { id, code, reason, oldest: None, covers_seq: None }
}

/// A subscription that cannot start.
pub(super) fn not_subscribed(id: String, failed: SubscribeError) -> ServerFrame {
    match failed {
        SubscribeError::TooOld { oldest, covers_seq } => too_old(id, oldest, covers_seq),
        SubscribeError::Ahead { .. } => error(Some(id), "bad_frame", failed.to_string()),
        failed => failure(id, &failed.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_from_failures() {
        let code = |given: &ApiError| match failure("1".to_owned(), given) {
            ServerFrame::Error { code, .. } => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&ApiError::not_found("Session", "x")), "not_found");
        assert_eq!(code(&ApiError::unavailable("x", 1)), "busy");
        assert_eq!(code(&ApiError::forbidden("x")), "refused");
    }
}
