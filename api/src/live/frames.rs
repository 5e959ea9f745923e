//! Frames as text. Events are serialised once for all subscribers, and only wrapped here.

use ambient_live::{Event, Snapshot, SubscribeError};
use ambient_wire::live::ServerFrame;

use crate::error::{ApiError, Number};

/// Any frame but an event.
pub(super) fn text(frame: &ServerFrame) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

/// `{"op":"event","id":…,` and the event's own fields.
pub(super) fn event(subscription: &str, event: &Event) -> String {
    let id = serde_json::Value::from(subscription);
    let fields = event.json().get(1..).unwrap_or("}");
    format!("{{\"op\":\"event\",\"id\":{id},{fields}")
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
    ServerFrame::Error { id, code: code.to_owned(), reason }
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

/// A subscription that cannot start.
pub(super) fn not_subscribed(id: String, failed: SubscribeError) -> ServerFrame {
    match failed {
        SubscribeError::TooOld { .. } => error(Some(id), "too_old", failed.to_string()),
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
